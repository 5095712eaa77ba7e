"""`python -m tests.support.load PORT`: what 16 clients at once get to hear until SIGTERM, as JSON.

Each client sends its next request when it has read an answer (a closed loop). All are in one
thread, so that they leave the cores to the server. Standard input says who they are: {"users":
[name, ...], "password": theirs, "verifier": an API key with keys:verify, "stranger": one of nobody,
"rest": seconds between requests}. The first line is empty: all are signed in and have a key.
"""

from __future__ import annotations

import heapq
import itertools
import json
import random
import re
import selectors
import signal
import socket
import sys
import time
from collections.abc import Generator, Iterable
from typing import Any, NamedTuple

CLIENTS = 16
PATIENCE = 30.0  # seconds for an answer; who is silent longer hangs
AGAIN = 0.02  # seconds until the next try when the connection was refused
BUSY = 0.2  # seconds until somebody tries to sign in again who was told 503
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


class _Loop:
    """All clients, in one thread."""

    def __init__(self, port: int, plans: Iterable[Client], rest: float) -> None:
        self.rest, self.end = rest, 0.0
        self.found: list[Answer] = []
        self.selector = selectors.DefaultSelector()
        self.due: list[tuple[float, int, _Connection]] = []  # who sends when
        self.number = itertools.count()
        for plan in plans:
            self._later(_Connection(port, plan), 0)

    def run(self, seconds: float) -> None:
        """Go on for so long, or until `end` is set, and until what was sent is answered."""
        self.end = time.monotonic() + seconds
        while self.due or self.selector.get_map():
            while self.due and self.due[0][0] <= time.monotonic():
                _, _, connection = heapq.heappop(self.due)
                if time.monotonic() < self.end:
                    self._send(connection)
                else:
                    connection.close()
            pause = self.due[0][0] - time.monotonic() if self.due else 0.5
            for key, _ in self.selector.select(min(0.5, max(0, pause))):
                reply = key.data.take()
                if reply:
                    self.selector.unregister(key.fileobj)
                    self._over(key.data, reply)
            self._give_up()

    def _later(self, connection: _Connection, pause: float) -> None:
        heapq.heappush(self.due, (time.monotonic() + pause, next(self.number), connection))

    def _send(self, connection: _Connection) -> None:
        if connection.send():
            self.selector.register(connection.socket, selectors.EVENT_READ, connection)
        else:
            self._over(connection, (0, None))

    def _over(self, connection: _Connection, reply: Reply) -> None:
        taken = (time.monotonic() - connection.sent_at) * 1000
        kind = connection.wanted.kind
        self.found.append(Answer(kind, connection.sent_at, taken, reply[0]))
        connection.wanted = connection.plan.send(reply)
        pause = self.rest if reply[0] > 0 else AGAIN
        self._later(connection, BUSY if kind == "login" and reply[0] == 503 else pause)

    def _give_up(self) -> None:
        for key in list(self.selector.get_map().values()):
            if time.monotonic() - key.data.sent_at > PATIENCE:
                self.selector.unregister(key.fileobj)
                key.data.close()
                self._over(key.data, (-1, None))


def drive(port: int, seconds: float, plans: Iterable[Client], rest: float = 0.0) -> list[Answer]:
    """The answers of all clients, each of which rests so long between two requests."""
    loop = _Loop(port, plans, rest)
    loop.run(seconds)
    return loop.found


class Ledger:
    """What the service has acknowledged of API keys, to be held against what it has kept."""

    def __init__(self, users: int) -> None:
        self.kept: dict[str, str] = {}  # key id -> its name, of keys that must be there
        self.gone: list[str] = []  # ids of keys that must not be there
        self._awaited = users

    def create(self, key_id: str, name: str, *, first: bool) -> None:
        """A key was made. When the last user has its first one, tell that all are there."""
        self.kept[key_id] = name
        self._awaited -= first
        if first and not self._awaited:
            print(flush=True)


def stranger(key: str) -> Client:
    """Somebody whose key is no key: whatever fails, there is no way in."""
    while True:
        yield request("stranger", "GET", "/v1/auth/me", key)


class User:
    """A user of the service: 80 % verification, 10 % refresh, 8 % keys, 2 % signing in.

    It signs in again when its session has ended: a refresh whose answer was lost may be taken for
    reuse once the time of grace is over.
    """

    def __init__(self, name: str, password: str, verifier: str, ledger: Ledger) -> None:
        self.chance = random.Random(name)
        signing_in = {"username": name, "password": password}
        self.login = request("login", "POST", "/v1/auth/login", body=signing_in)
        self.verifier, self.ledger = verifier, ledger
        self.access = self.renewal = ""
        self.has_begun = False
        self.keys: list[tuple[str, str]] = []  # (id, text)

    def plan(self) -> Client:
        """What it does, for ever."""
        while True:
            if not self.access:
                yield from self._take_tokens(self.login)
            elif not self.keys:
                yield from self._create()
            else:
                [act] = self.chance.choices(
                    [self._verify, self._refresh, self._use_keys, self._sign_in], [80, 10, 8, 2]
                )
                yield from act()

    def _verify(self) -> Client:
        text = self.keys[-1][1]
        if self.chance.random() < 0.5:
            yield request("verify", "GET", "/v1/auth/me", text)
        else:
            yield request("verify", "POST", "/v1/api-keys/verify", self.verifier, {"key": text})

    def _refresh(self) -> Client:
        body = {"refresh_token": self.renewal}
        yield from self._take_tokens(request("refresh", "POST", "/v1/auth/refresh", body=body))

    def _sign_in(self) -> Client:
        yield from self._take_tokens(self.login)

    def _take_tokens(self, wanted: Request) -> Client:
        status, body = yield wanted
        if status == 200:
            self.access, self.renewal = body["access_token"], body["refresh_token"]
        elif status == 401:
            self.access = ""

    def _use_keys(self) -> Client:
        act = self.chance.choice([self._create, self._change, self._delete])
        yield from self._delete() if len(self.keys) > 20 else act()

    def _create(self) -> Client:
        name = f"number {self.chance.random()}"
        wanted = {"name": name, "scopes": ["keys:read"]}
        status, body = yield request("key", "POST", "/v1/api-keys", self.access, wanted)
        if status == 201:
            self.ledger.create(body["id"], name, first=not self.has_begun)
            self.has_begun = True
            self.keys.append((body["id"], body["key"]))
        elif status == 401:
            self.access = ""

    def _change(self) -> Client:
        key_id = self.keys[0][0]
        before = self.ledger.kept.pop(key_id, None)  # until it is acknowledged, either may be so
        name = f"number {self.chance.random()}"
        path = f"/v1/api-keys/{key_id}"
        status, _ = yield request("key", "PATCH", path, self.access, {"name": name})
        if status == 200:
            self.ledger.kept[key_id] = name
        self._refused(status, key_id, before)

    def _delete(self) -> Client:
        key_id = self.keys[0][0]
        before = self.ledger.kept.pop(key_id, None)
        status, _ = yield request("key", "DELETE", f"/v1/api-keys/{key_id}", self.access)
        if status in {204, 404}:  # 404: it was deleted, and the answer was lost
            self.keys.pop(0)
            self.ledger.gone.append(key_id)
        self._refused(status, key_id, before)

    def _refused(self, status: int, key_id: str, before: str | None) -> None:
        if status == 401:
            self.access = ""
            if before:
                self.ledger.kept[key_id] = before


def main(port: int, who: dict[str, Any]) -> None:
    """Go on until SIGTERM, then print the answers and the ledger."""
    ledger = Ledger(len(who["users"]))
    users = [User(name, who["password"], who["verifier"], ledger) for name in who["users"]]
    plans = [*(user.plan() for user in users), stranger(who["stranger"])]
    loop = _Loop(port, plans, who["rest"])
    signal.signal(signal.SIGTERM, lambda *_: setattr(loop, "end", 0.0))
    loop.run(1e9)
    print(json.dumps({"answers": loop.found, "kept": ledger.kept, "gone": ledger.gone}))


if __name__ == "__main__":
    main(int(sys.argv[1]), json.load(sys.stdin))
