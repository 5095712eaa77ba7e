"""`python -m tests.load PORT SECONDS`: what 16 clients at once get to hear, as JSON.

Each client sends its next request when it has read an answer (a closed loop). All are in one
thread, so that they leave the cores to the server. Standard input says who they are:
{"users": [name, ...], "password": theirs, "verifier": an API key with keys:verify, "stranger": one of
nobody, "rest": seconds between requests}.
"""

from __future__ import annotations

import heapq
import itertools
import json
import random
import re
import selectors
import socket
import sys
import time
from collections.abc import Generator, Iterable
from typing import Any, NamedTuple

CLIENTS = 16
PATIENCE = 30.0  # seconds for an answer; who is silent longer hangs
AGAIN = 0.02  # seconds until the next try when the connection was refused
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)


class Answer(NamedTuple):
    """What came of one request. `status` 0: the connection broke or was refused; -1: it hung."""

    kind: str
    sent_at: float  # time.monotonic, which is the same in all processes
    milliseconds: float
    status: int


class Request(NamedTuple):
    """What is sent, and under what name it is counted."""

    kind: str
    raw: bytes


Reply = tuple[int, Any]  # status and the body's JSON, if there is one
Client = Generator[Request, Reply, None]


def request(kind: str, method: str, path: str, credential: str = "", body: Any = None) -> Request:
    """A request with this API key or access token, and this JSON."""
    lines = [f"{method} {path} HTTP/1.1", "Host: x"]
    if credential:
        lines.append(f"Authorization: Bearer {credential}")
    content = b"" if body is None else json.dumps(body).encode()
    if content:
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    return Request(kind, "\r\n".join([*lines, "", ""]).encode() + content)


def is_whole(answer: bytes) -> bool:
    """True if no more of this answer is to come."""
    head, end, body = answer.partition(b"\r\n\r\n")
    length = LENGTH.search(head)
    return bool(end) and (b" 204 " in head[:14] or bool(length and len(body) >= int(length[1])))


class _Connection:
    """One client: its plan, and where it is in it."""

    def __init__(self, port: int, plan: Client) -> None:
        self.port, self.plan = port, plan
        self.socket: socket.socket | None = None
        self.wanted = next(plan)
        self.read = b""
        self.sent_at = 0.0

    def send(self) -> bool:
        """Send what is wanted; False if the connection is refused."""
        self.sent_at, self.read = time.monotonic(), b""
        try:
            if self.socket is None:
                self.socket = socket.create_connection(("127.0.0.1", self.port), 5)
            self.socket.sendall(self.wanted.raw)
        except OSError:
            self.close()
            return False
        return True

    def close(self) -> None:
        if self.socket:
            self.socket.close()
        self.socket = None

    def take(self) -> Reply | None:
        """The answer, as far as it has come: None if more is to come."""
        assert self.socket
        try:
            data = self.socket.recv(65536)
        except OSError:
            data = b""
        self.read += data
        if not data:
            self.close()
            return (0, None)
        if not is_whole(self.read):
            return None
        head, _, body = self.read.partition(b"\r\n\r\n")
        if CLOSE.search(head):
            self.close()
        try:
            told = json.loads(body)
        except ValueError:
            told = None
        return int(head[9:12]), told


def drive(port: int, seconds: float, plans: Iterable[Client], rest: float = 0.0) -> list[Answer]:
    """The answers of all clients, each of which rests so long between two requests."""
    found: list[Answer] = []
    selector, due, number = selectors.DefaultSelector(), [], itertools.count()
    end = time.monotonic() + seconds

    def later(connection: _Connection, pause: float) -> None:
        heapq.heappush(due, (time.monotonic() + pause, next(number), connection))

    def over(connection: _Connection, reply: Reply) -> None:
        now = time.monotonic()
        taken = (now - connection.sent_at) * 1000
        found.append(Answer(connection.wanted.kind, connection.sent_at, taken, reply[0]))
        try:
            connection.wanted = connection.plan.send(reply)
        except StopIteration:
            connection.close()
            return
        later(connection, rest if reply[0] > 0 else AGAIN)

    for plan in plans:
        later(_Connection(port, plan), 0)
    while (due or selector.get_map()) and time.monotonic() < end + PATIENCE:
        while due and due[0][0] <= time.monotonic():
            _, _, connection = heapq.heappop(due)
            if time.monotonic() >= end:
                connection.close()
            elif connection.send():
                selector.register(connection.socket, selectors.EVENT_READ, connection)
            else:
                over(connection, (0, None))
        pause = min(0.5, max(0, due[0][0] - time.monotonic()) if due else 0.5)
        for key, _ in selector.select(pause):
            reply = key.data.take()
            if reply:
                selector.unregister(key.fileobj)
                over(key.data, reply)
        for key in list(selector.get_map().values()):
            if time.monotonic() - key.data.sent_at > PATIENCE:
                selector.unregister(key.fileobj)
                key.data.close()
                over(key.data, (-1, None))
    return found


class Ledger:
    """What the service has acknowledged of API keys, to be held against what it has kept."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}  # key id -> its name, of keys that must be there
        self.gone: list[str] = []  # ids of keys that must not be there


def stranger(key: str) -> Client:
    """Somebody whose key is no key: whatever fails, there is no way in."""
    while True:
        yield request("stranger", "GET", "/v1/auth/me", key)


def mixed(user: str, password: str, verifier: str, ledger: Ledger) -> Client:
    """A user of the service: 80 % verification, 10 % refresh, 8 % keys, 2 % signing in.

    It signs in again when its session has ended: a refresh whose answer was lost may be taken for
    reuse once the time of grace is over.
    """
    chance = random.Random(user)
    signing_in = {"username": user, "password": password}
    login = request("login", "POST", "/v1/auth/login", body=signing_in)
    access = renewal = ""
    keys: list[tuple[str, str]] = []  # (id, text)

    while True:
        if not access:
            status, body = yield login
            if status == 200:
                access, renewal = body["access_token"], body["refresh_token"]
            continue
        if not keys:
            wanted = {"name": f"of {user}", "scopes": ["keys:read"]}
            status, body = yield request("key", "POST", "/v1/api-keys", access, wanted)
            if status == 201:
                keys.append((body["id"], body["key"]))
                ledger.kept[body["id"]] = body["name"]
            elif status == 401:
                access = ""
            continue
        lot = chance.random()
        if lot < 0.4:
            yield request("verify", "GET", "/v1/auth/me", keys[-1][1])
        elif lot < 0.8:
            asked = {"key": keys[-1][1]}
            yield request("verify", "POST", "/v1/api-keys/verify", verifier, asked)
        elif lot < 0.9:
            status, body = yield request(
                "refresh", "POST", "/v1/auth/refresh", body={"refresh_token": renewal}
            )
            if status == 200:
                access, renewal = body["access_token"], body["refresh_token"]
            elif status == 401:
                access = ""
        elif lot < 0.98:
            status = yield from _use(keys, access, ledger, chance)
            if status == 401:
                access = ""
        else:
            status, body = yield login
            if status == 200:
                access, renewal = body["access_token"], body["refresh_token"]


def _use(
    keys: list[tuple[str, str]], access: str, ledger: Ledger, chance: random.Random
) -> Generator[Request, Reply, int]:
    """Change or delete a key, or make another; what becomes of it is in the ledger."""
    act = chance.choice(["create", "change", "delete"])
    if act == "create" and len(keys) < 20:
        wanted = {"name": f"number {chance.random()}", "scopes": ["keys:read"]}
        status, body = yield request("key", "POST", "/v1/api-keys", access, wanted)
        if status == 201:
            keys.append((body["id"], body["key"]))
            ledger.kept[body["id"]] = body["name"]
        return status
    key_id, _ = keys[0]
    path = f"/v1/api-keys/{key_id}"
    before = ledger.kept.pop(key_id, None)  # until it is acknowledged, either may be so
    if act == "change":
        name = f"number {chance.random()}"
        status, _ = yield request("key", "PATCH", path, access, {"name": name})
        if status == 200:
            ledger.kept[key_id] = name
    else:
        status, _ = yield request("key", "DELETE", path, access)
        if status == 204:
            keys.pop(0)
            ledger.gone.append(key_id)
        elif status == 404:  # deleted, and the answer was lost
            keys.pop(0)
    if 400 <= status < 500 and status != 404 and before:
        ledger.kept[key_id] = before
    return status


def main(port: int, seconds: float, who: dict[str, Any]) -> None:
    """Drive, and print the answers and the ledger."""
    ledger = Ledger()
    plans = [mixed(user, who["password"], who["verifier"], ledger) for user in who["users"]]
    found = drive(port, seconds, [*plans, stranger(who["stranger"])], who["rest"])
    print(json.dumps({"answers": found, "kept": ledger.kept, "gone": ledger.gone}))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), json.load(sys.stdin))
