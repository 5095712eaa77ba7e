"""`python -m tests.attack.endless PORT SECONDS`: 60 connections send what never ends.

Each sends until the server refuses it, and connects again half a second later. Prints how often
the server refused and how many bytes were sent, as JSON.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
import time
from itertools import chain, repeat

from ..support.servers import CHUNKED, GET

CONNECTIONS = 60
PAUSE = 0.5
BLOCK = 16 * 1024
KINDS = [
    (CHUNKED, b"1"),
    (CHUNKED + b"1;", b"a"),
    (CHUNKED + b"0\r\n", b"a: b\r\n"),
    (CHUNKED, b"1\r\nx\r\n"),
    (GET + b"A:", b" "),
]


def attack(port: int, until: float, kind: tuple[bytes, bytes], refused: list[int]) -> None:
    """One connection after the other; the bytes that each sent go into `refused`."""
    head, endless = kind
    block = endless * (BLOCK // len(endless))
    while time.monotonic() < until:
        sent = 0
        with contextlib.suppress(OSError), socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BLOCK)
            connection.connect(("127.0.0.1", port))
            for data in chain([head], repeat(block)):
                connection.sendall(data)
                sent += len(data)
                if time.monotonic() > until:
                    return
        refused.append(sent)
        time.sleep(PAUSE)


if __name__ == "__main__":
    port, until = int(sys.argv[1]), time.monotonic() + float(sys.argv[2])
    refused: list[int] = []
    threads = [
        threading.Thread(target=attack, args=(port, until, KINDS[number % len(KINDS)], refused))
        for number in range(CONNECTIONS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({"refused": len(refused), "bytes": sum(refused)}))
