"""Two processes behind nginx: restarted in turn, killed, cut off from their database."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backend.core.settings import ROOT

from ..conftest import Relay, sign_in, until
from ..load import Answer
from ..test_servers import Server, free_port
from .conftest import FULL, Load, Postgres, Site, counts, milliseconds, program, spread, wait


class Nginx:
    """nginx with the configuration that we ship, before these servers."""

    def __init__(self, folder: Path, servers: list[Server]) -> None:
        self.port = free_port()
        text = (ROOT / "config" / "nginx.conf").read_text("utf-8")
        for number, server in enumerate(servers, 1):
            text = text.replace(f"app{number}:8000", f"127.0.0.1:{server.port}")
        text = text.replace("listen 8080", f"listen 127.0.0.1:{self.port}")
        text = text.replace("auto", "1", 1)
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
        conf = folder / "nginx.conf"
        conf.write_text(text.replace("http {", f"http {{ {paths}"), "utf-8")
        self.output = folder / "nginx.log"
        command = [program("nginx"), "-e", self.output, "-c", conf, "-p", folder]
        command += ["-g", f"daemon off; pid {folder}/nginx.pid; error_log {self.output};"]
        self.process = subprocess.Popen(command)

    def end(self) -> None:
        """Stop it."""
        self.process.terminate()
        self.process.wait(30)


@pytest.fixture
def before(tmp_path: Path) -> Iterator[Callable[[list[Server]], int]]:
    """A function that puts nginx before servers and returns its port."""
    started: list[Nginx] = []

    def start(servers: list[Server]) -> int:
        started.append(Nginx(tmp_path, servers))
        until(lambda: (tmp_path / "nginx.pid").exists())
        return started[-1].port

    yield start
    for nginx in started:
        nginx.end()


def restarted(server: Server, settings: dict[str, Any]) -> Server:
    """Another process in place of the server, with its port and database."""
    folder = server.output.parent
    again = Server(server.kind, server.tree, folder, port=server.port, **settings)
    return again.wait_until_it_serves()


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
    settings = {**SETTINGS, "workers": 1, "threads": 8, "database_url": cluster.new_database()}
    client, servers = site_on(settings["database_url"], kind, 2, **SETTINGS, workers=1, threads=8)
    rounds = 3 if FULL else 1
    load = load_on(client, before(servers))
    wait(1)
    ends = []
    for _ in range(rounds):
        for number, server in enumerate(servers if FULL else servers[:1]):
            began = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(40) == 0
            ends.append(time.monotonic() - began)
            servers[number] = restarted(server, settings)
            wait(2.5)  # until nginx asks it again
    found = load.finish()
    for server in servers:
        server.end()
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
    url = cluster.new_database()
    client, servers = site_on(url, "waitress", 2, **SETTINGS)
    load = load_on(client, before(servers))
    wait(2)
    servers[0].end()
    killed = time.monotonic()
    wait(3)
    servers[0] = restarted(servers[0], {**SETTINGS, "database_url": url})
    wait(2)
    found = load.finish()
    servers[0].end()
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
