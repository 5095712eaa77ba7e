"""`python -m tests.attack.flood PORT SECONDS NAME...`: sign in as these, from 16 clients at once.

Each sends its next request when it has read an answer. All are in one thread, so that they leave
the cores to the server. Prints {status: [milliseconds, ...]} as JSON.
"""

from __future__ import annotations

import json
import re
import selectors
import socket
import sys
import time
from collections import defaultdict
from itertools import cycle

CLIENTS = 16
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def request(name: str) -> bytes:
    """The bytes of a try at signing in."""
    body = json.dumps({"username": name, "password": "not the right password"}).encode()
    head = "POST /v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def is_whole(answer: bytes) -> bool:
    """True if no more of this answer is to come."""
    head, end, body = answer.partition(b"\r\n\r\n")
    length = LENGTH.search(head)
    return bool(end and length and len(body) >= int(length[1]))


def flood(port: int, seconds: float, names: list[str]) -> dict[str, list[float]]:
    """Milliseconds until each answer, by status."""
    requests, found = cycle([request(name) for name in names]), defaultdict(list)
    selector = selectors.DefaultSelector()
    sent, read = {}, defaultdict(bytes)

    def send(connection: socket.socket) -> None:
        connection.sendall(next(requests))
        sent[connection] = time.perf_counter()

    for _ in range(CLIENTS):
        connection = socket.create_connection(("127.0.0.1", port))
        selector.register(connection, selectors.EVENT_READ)
        send(connection)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for key, _ in selector.select(1):
            connection = key.fileobj
            read[connection] += connection.recv(65536)
            if is_whole(read[connection]):
                answer = read.pop(connection)
                status = answer.partition(b"\r\n")[0].split()[1].decode()
                found[status].append((time.perf_counter() - sent[connection]) * 1000)
                send(connection)
    return found


if __name__ == "__main__":
    print(json.dumps(flood(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:])))
