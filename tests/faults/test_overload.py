"""More than can be served: idle connections, slow clients, tables that somebody has locked."""

from __future__ import annotations

import resource
import socket
import time
from collections import Counter
from collections.abc import Callable

import pytest

from ..support.load import is_whole
from ..support.long_runs import FULL, Site, at
from .load import Load, in_full, spread, wait

SECONDS = 20 if FULL else 5
IDLE = 1500


@pytest.mark.parametrize("engine", ["sqlite", pytest.param("postgres", marks=in_full)])
def test_idle_connections_cost_others_little(
    engine: str,
    url_on: Callable[[str], str],
    site_on: Callable[..., Site],
    load_on: Callable[..., Load],
    figure: Callable[[str, str], None],
) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    client, [server] = site_on(url_on(engine))
    without = verifications(load_on(client, server.port))
    idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(IDLE)]
    found = verifications(load_on(client, server.port))
    for connection in idle:
        connection.close()
    figure("without idle connections", spread(without))
    figure(f"with {IDLE:,}", spread(found))
    if FULL:  # on a machine that does nothing else
        assert at(0.99, found) <= 2 * at(0.99, without)


def verifications(load: Load) -> list[float]:
    """How long verifications take, while the load lasts."""
    wait(SECONDS)
    found = load.finish()
    assert {each.status for each in found} <= {200, 201, 204, 401, 503}
    return [each.milliseconds for each in found if each.kind == "verify"]


def whole_answer(connection: socket.socket) -> bytes:
    """What comes, head and body."""
    answer = b""
    while not is_whole(answer) and (more := connection.recv(65536)):
        answer += more
    return answer


def test_what_waits_is_bounded(site_on: Callable[..., Site], url_on: Callable[[str], str]) -> None:
    _, [server] = site_on(url_on("sqlite"), threads=1)
    crowd = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(400)]
    for connection in crowd:
        connection.sendall(b"GET /v1/auth/me HTTP/1.1\r\nHost: x\r\nX-API-Key: none\r\n\r\n")
    answers = [whole_answer(connection) for connection in crowd]
    for connection in crowd:
        connection.close()
    told = Counter(answer[9:12] for answer in answers)
    assert set(told) == {b"401", b"503"}
    refused = next(answer for answer in answers if answer[9:12] == b"503")
    assert b"Retry-After: 1" in refused
    assert b"Content-Type: application/problem+json" in refused
    assert b'"code": "unavailable"' in refused
    assert server.ask("GET", "/healthz").status == 200


def test_requests_that_are_half_sent_stop_nobody(
    site_on: Callable[..., Site], url_on: Callable[[str], str], figure: Callable[[str, str], None]
) -> None:
    _, [server] = site_on(url_on("sqlite"))
    slow = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(300)]
    for number, connection in enumerate(slow):
        body = b"Content-Length: 9\r\n\r\n{" if number % 2 else b"X-"
        connection.sendall(b"POST /v1/auth/login HTTP/1.1\r\nHost: x\r\n" + body)
    began = time.monotonic()
    for _ in range(20):
        assert server.ask("GET", "/healthz").status == 200
    taken = (time.monotonic() - began) * 50
    figure("/healthz beside 300 of them, mean", f"{taken:.1f} ms")
    for connection in slow:
        connection.close()
    assert taken < 500
