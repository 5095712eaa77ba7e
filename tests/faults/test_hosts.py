"""Two processes behind nginx: restarted in turn, killed, cut off from PostgreSQL and from Redis."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from flask.testing import FlaskClient

from backend.core.settings import ROOT

from ..support.concurrency import at_once, until
from ..support.load import Answer
from ..support.long_runs import FULL, Site
from ..support.metrics import told_by
from ..support.people import add_user, by_key, sign_in
from ..support.processes import Process, free_port, nginx
from ..support.relay import Relay
from ..support.servers import Server, read
from .cluster import Postgres
from .load import Load, counts, milliseconds, spread, wait

LONG = 10 if FULL else 3  # seconds for each state of a link
SETTINGS = {
    "secret_key": "Zr8Qm2N4pX7vB9Ca5Sd3Gh6Yt1LwEk0J",
    "trusted_proxies": "127.0.0.1",
    "metrics_enabled": "true",
    "rate_limit_default": "1000000/60",  # each use of a key asks Redis
}
LIMITED = {"rate_limit": {"limit": 20, "window_seconds": 60}}
USED_UP = "20 x 200, 10 x 429"  # what 30 uses of such a key are told


class Hosts(NamedTuple):
    """Two servers behind nginx, and a client of the same service in this process."""

    client: FlaskClient
    servers: list[Server]
    nginx: Process


@pytest.fixture
def hosts(
    cluster: Postgres, redis: Process, site_on: Callable[..., Site], tmp_path: Path
) -> Iterator[Callable[..., Hosts]]:
    """A function that starts them on one PostgreSQL and one Redis, behind the nginx that we ship.

    `hosts("gunicorn", database=8001, redis_at=8002)`: the first reaches them at these ports.
    """
    with ExitStack() as started:

        def start(
            kind: str = "waitress", *, database: int = 0, redis_at: int = 0, **settings: Any
        ) -> Hosts:
            url = cluster.new_database()
            first = {
                "database_url": cluster.url(url.rpartition("/")[2], database),
                "redis_url": f"redis://127.0.0.1:{redis_at or redis.port}/0",
            }
            both = {**SETTINGS, "redis_url": f"redis://127.0.0.1:{redis.port}/0", **settings}
            client, servers = site_on(url, kind, 2, first=first, **both)
            port = free_port()
            text = (ROOT / "config" / "nginx.conf").read_text("utf-8")
            text = text.replace("listen 8080", f"listen 127.0.0.1:{port}")
            for number, server in enumerate(servers, 1):
                text = text.replace(f"app{number}:8000", f"127.0.0.1:{server.port}")
            proxy = Process(nginx(text, tmp_path), port, tmp_path / "nginx.log")
            return Hosts(client, servers, started.enter_context(proxy))

        yield start


def use(key: str, at: Process) -> Answer:
    """What /v1/verify says of one use of the key. Who is refused for now is told for how long."""
    connection, began = at.connect(), time.monotonic()
    connection.request("GET", "/v1/verify", headers=by_key(key))
    answer = read(connection)
    connection.close()
    assert answer.status not in {429, 503} or int(answer.headers["Retry-After"]) > 0
    return Answer("verify", began, (time.monotonic() - began) * 1000, answer.status)


def uses(key: str, *at: Process, times: int = 30) -> list[Answer]:
    """What so many uses of the key at once, at these in turn, are told."""
    return at_once(*(lambda n=n: use(key, at[n % len(at)]) for n in range(times)))


def fallbacks(server: Server) -> float:
    """How many looks at a limit it took by itself, without Redis."""
    return told_by(server).get("limiter_fallbacks_total")


def uses_for(seconds: float, key: str, at: Process) -> list[Answer]:
    """What uses of the key one after the other are told in so many seconds."""
    end, found = time.monotonic() + seconds, []
    while time.monotonic() < end:
        found.append(use(key, at))
    return found


def other_than_logins(answers: list[Answer]) -> list[Answer]:
    """Answers but to those who sign in: of many at once, some are told 503."""
    return [each for each in answers if each.kind != "login"]


@pytest.mark.parametrize("kind", ["waitress", "gunicorn"])
def test_a_rolling_restart_fails_no_request(
    kind: str,
    hosts: Callable[..., Hosts],
    load_on: Callable[..., Load],
    figure: Callable[[str, str], None],
) -> None:
    client, servers, front = hosts(kind, workers=1, threads=8)
    rounds = 3 if FULL else 1
    load = load_on(client, front.port)
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
    hosts: Callable[..., Hosts], load_on: Callable[..., Load], figure: Callable[[str, str], None]
) -> None:
    client, servers, front = hosts()
    add_user(client, "alice")
    limited = sign_in(client, "alice").new_key(**LIMITED)["key"]
    assert counts(uses(limited, *servers, times=10)) == "10 x 200"
    load = load_on(client, front.port)
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
    assert counts(uses(limited, *servers, times=30)) == "10 x 200, 20 x 429"


def test_a_link_to_the_database_is_cut_slowed_and_mended(
    cluster: Postgres,
    hosts: Callable[..., Hosts],
    load_on: Callable[..., Load],
    figure: Callable[[str, str], None],
) -> None:
    link = Relay("127.0.0.1", cluster.port)
    client, [one, other], front = hosts(database=link.port)
    add_user(client, "alice")
    alice = sign_in(client, "alice")
    good, revoked = alice.new_key(), alice.new_key()
    alice.post(f"/v1/api-keys/{revoked['id']}/revoke")
    load = load_on(client, front.port)
    moments = {"cut": time.monotonic()}
    link.cut()
    refused = uses_for(LONG, good["key"], one)
    assert use(good["key"], other).status == 200
    moments["mended"] = time.monotonic()
    link.mend()
    until(lambda: use(good["key"], one).status == 200, 2)
    healed = time.monotonic() - moments["mended"]
    wait(LONG)
    moments["slowed by 100 ms"] = time.monotonic()
    link.delay = 0.1
    for key, status in ((good["key"], 200), (revoked["key"], 401), ("garbage", 401)):
        assert {each.status for each in uses_for(LONG / 3, key, one)} == {status}
    moments["as before"] = time.monotonic()
    link.delay = 0.0
    wait(LONG)
    load.finish()
    link.close()
    for state, moment in moments.items():
        found = load.between(moment, moment + LONG)
        figure(f"{state}: answers", f"{counts(found)}; {spread(milliseconds(found))}")
    told = f"{counts(refused)}; {spread(milliseconds(refused))}"
    figure("/v1/verify of the one that is cut off", told)
    figure("next 200 of that one, once mended", f"{healed:.2f} s")
    assert {each.status for each in refused} == {503}
    assert max(milliseconds(refused)) < 1000
    load.never({0, 502, 504})
    for state in ("mended", "slowed by 100 ms", "as before"):
        late = load.between(moments[state] + 2, moments[state] + LONG)
        assert {each.status for each in other_than_logins(late)} <= {200, 201, 204, 401}
    assert not load.missing(client, sign_in(client, "root"))


@pytest.mark.parametrize(("fault", "repair"), [("cut", "mend"), ("freeze", "thaw")])
def test_hosts_count_together_and_one_alone_while_its_link_to_redis_is_broken(
    fault: str,
    repair: str,
    redis: Process,
    hosts: Callable[..., Hosts],
    figure: Callable[[str, str], None],
) -> None:
    link = Relay("127.0.0.1", redis.port)
    client, [one, other], front = hosts(redis_at=link.port)
    add_user(client, "alice")
    alice = sign_in(client, "alice")
    plain = alice.new_key()["key"]

    def limited() -> str:
        return alice.new_key(**LIMITED)["key"]

    def says(text: str) -> int:
        return one.output.read_text("utf-8").count(text)

    for delay in (0.02, 0.0):
        link.delay = delay
        assert counts(uses(limited(), front)) == USED_UP
        assert counts(uses(limited(), one, other)) == USED_UP
    assert fallbacks(one) == 0

    getattr(link, fault)()
    key = limited()
    alone = uses(key, one)
    assert counts(alone) == counts(uses(key, other)) == USED_UP
    alone += uses_for(LONG / 2, plain, one)
    figure("answers meanwhile", f"{counts(alone)}; {spread(milliseconds(alone))}")
    figure("longest", f"{max(milliseconds(alone)):.0f} ms")
    assert max(milliseconds(alone)) < 1000
    assert fallbacks(one) == len(alone)
    assert (says("Redis is down"), says("Redis is back")) == (1, 0)

    getattr(link, repair)()
    mended = time.monotonic()
    until(lambda: use(plain, one).status == 200 and says("Redis is back"), 2)
    figure("in Redis again after", f"{time.monotonic() - mended:.2f} s")
    assert counts(uses(limited(), one, other)) == USED_UP
    assert fallbacks(other) == 0
    link.close()
