"""Two processes behind nginx: restarted in turn, killed, cut off from their database."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from backend.core.settings import ROOT

from ..conftest import Relay, sign_in
from ..load import Answer
from ..processes import Process, free_port, nginx
from ..test_servers import Server
from .conftest import FULL, Load, Postgres, Site, counts, milliseconds, spread, wait


@pytest.fixture
def before(tmp_path: Path) -> Iterator[Callable[[list[Server]], int]]:
    """A function that puts nginx, by the configuration that we ship, before servers: its port."""
    with ExitStack() as started:

        def start(servers: list[Server]) -> int:
            port = free_port()
            text = (ROOT / "config" / "nginx.conf").read_text("utf-8")
            text = text.replace("listen 8080", f"listen 127.0.0.1:{port}")
            for number, server in enumerate(servers, 1):
                text = text.replace(f"app{number}:8000", f"127.0.0.1:{server.port}")
            command = nginx(text, tmp_path)
            return started.enter_context(Process(command, port, tmp_path / "nginx.log")).port

        yield start


def other_than_logins(answers: list[Answer]) -> list[Answer]:
    """Answers but to those who sign in: of many at once, some are told 503."""
    return [each for each in answers if each.kind != "login"]


LONG = 10 if FULL else 3  # seconds for each state of a link
SETTINGS = {
    "secret_key": "Zr8Qm2N4pX7vB9Ca5Sd3Gh6Yt1LwEk0J",
    "public_url": "http://127.0.0.1:8000",
    "mail_url": "memory:",
    "bcrypt_rounds": 10,
    "trusted_proxies": "127.0.0.1",
}


@pytest.mark.parametrize("kind", ["waitress", "gunicorn"])
def test_a_rolling_restart_fails_no_request(
    kind: str,
    cluster: Postgres,
    site_on: Callable[..., Site],
    load_on: Callable[..., Load],
    before: Callable[[list[Server]], int],
    figure: Callable[[str, str], None],
) -> None:
    client, servers = site_on(cluster.new_database(), kind, 2, **SETTINGS, workers=1, threads=8)
    rounds = 3 if FULL else 1
    load = load_on(client, before(servers))
    wait(1)
    ends = []
    for _ in range(rounds):
        for server in servers if FULL else servers[:1]:
            began = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(40) == 0
            ends.append(time.monotonic() - began)
            server.start()
            server.wait_until_it_serves()
            wait(2.5)  # until nginx asks it again
    found = load.finish()
    figure("answers", counts(found))
    figure("from SIGTERM to the end", f"{max(ends):.1f} s at most")
    figure("of all", spread(milliseconds(found)))
    assert {each.status for each in other_than_logins(found)} <= {200, 201, 204, 401}
    assert {each.status for each in found} <= {200, 201, 204, 401, 503}
    assert not load.missing(client, sign_in(client, "root"))


def test_a_host_is_killed_under_load_and_brought_back(
    cluster: Postgres,
    site_on: Callable[..., Site],
    load_on: Callable[..., Load],
    before: Callable[[list[Server]], int],
    figure: Callable[[str, str], None],
) -> None:
    client, servers = site_on(cluster.new_database(), "waitress", 2, **SETTINGS)
    load = load_on(client, before(servers))
    wait(2)
    servers[0].end()
    killed = time.monotonic()
    wait(3)
    servers[0].start()
    servers[0].wait_until_it_serves()
    wait(2)
    found = load.finish()
    broken = [each for each in found if each.status in {0, 502}]
    figure("answers", counts(found))
    figure("next 200 after the kill", f"{load.next_good(killed):.2f} s")
    assert all(abs(each.sent_at - killed) < 2 for each in broken), broken
    assert len(broken) <= 16
    assert load.next_good(killed) < 1
    assert not load.missing(client, sign_in(client, "root"))


def test_a_link_to_the_database_is_cut_slowed_and_mended(
    cluster: Postgres,
    site_on: Callable[..., Site],
    load_on: Callable[..., Load],
    before: Callable[[list[Server]], int],
    figure: Callable[[str, str], None],
) -> None:
    name = cluster.new_database().rpartition("/")[2]
    relay = Relay("127.0.0.1", cluster.port)
    client, [one] = site_on(cluster.url(name, relay.port), **SETTINGS)
    _, [other] = site_on(cluster.url(name), **SETTINGS)
    load = load_on(client, before([one, other]))
    moments = {}
    for name, act in {
        "cut": relay.cut,
        "mended": relay.mend,
        "slowed by 100 ms": lambda: setattr(relay, "delay", 0.1),
        "as before": lambda: setattr(relay, "delay", 0.0),
    }.items():
        act()
        moments[name] = time.monotonic()
        wait(LONG)
    load.finish()
    relay.close()
    for name, begin in moments.items():
        found = load.between(begin, begin + LONG)
        figure(f"{name}: answers", f"{counts(found)}; {spread(milliseconds(found))}")
    load.never({0, 502, 504})
    assert load.next_good(moments["mended"]) < 2
    for name in ("mended", "as before"):
        late = other_than_logins(load.between(moments[name] + 2, moments[name] + LONG))
        assert {each.status for each in late} <= {200, 201, 204, 401}
