"""More than can be served: idle connections, slow clients, tables that somebody has locked."""

from __future__ import annotations

import resource
import socket
from collections.abc import Callable

import pytest

from .conftest import FULL, Load, Site, at, in_full, spread, wait

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
