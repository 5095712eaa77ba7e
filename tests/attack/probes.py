"""Requests that come at their times, however long others take."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from ..support.long_runs import FULL
from ..support.servers import Server, read

SECONDS = 30 if FULL else 5
PER_SECOND = 20


def probe(server: Server, path: str, headers: dict[str, str], due: float) -> float:
    """Milliseconds from when the request was due, on a connection of its own, to its answer."""
    connection = server.connect()
    connection.request("GET", path, headers=headers)
    assert read(connection).status == 200
    connection.close()
    return (time.perf_counter() - due) * 1000


def probes(
    server: Server,
    credentials: list[dict[str, str]],
    path: str = "/v1/auth/me",
    seconds: float = SECONDS,
) -> list[float]:
    """Milliseconds of requests that come at their times, however long others take."""
    begun = time.perf_counter()
    with ThreadPoolExecutor(8) as pool:
        found = []
        for number in range(int(seconds * PER_SECOND)):
            due = begun + number / PER_SECOND
            time.sleep(max(0, due - time.perf_counter()))
            headers = credentials[number % len(credentials)]
            found.append(pool.submit(probe, server, path, headers, due))
        return [each.result() for each in found]
