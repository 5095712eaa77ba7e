"""PostgreSQL stopped, restarted, frozen, locked and full: 503 in bounded time, and healing."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from flask import Flask

from backend.db.backup import verify

from ..support.apps import client_of, service_of
from ..support.concurrency import until
from ..support.databases import migrate
from ..support.long_runs import FULL, Site
from ..support.people import add_user, by_key, sign_in
from ..support.processes import Process
from ..support.servers import Server, read
from .cluster import Postgres
from .load import Load, counts, milliseconds, spread, wait

Starts = Callable[..., Site]
Loads = Callable[..., Load]
Figure = Callable[[str, str], None]

AROUND = 3.0 if FULL else 2.0  # seconds of load before a fault, and after it


def test_postgres_is_restarted_under_load(
    cluster: Postgres, site_on: Starts, load_on: Loads, figure: Figure
) -> None:
    client, [server] = site_on(cluster.new_database())
    load = load_on(client, server.port)
    wait(AROUND)
    began = time.monotonic()
    cluster.stop()
    cluster.start()
    back = time.monotonic()
    wait(AROUND)
    load.finish()
    healthy = load.next_good(back)
    figure("away", f"{back - began:.1f} s")
    figure("answers meanwhile", counts(load.between(began, back)))
    figure("next 200 after it was back", f"{healthy:.2f} s")
    load.never({0})
    assert healthy < 2


def test_postgres_is_stopped_for_a_while(
    cluster: Postgres, site_on: Starts, load_on: Loads, figure: Figure
) -> None:
    client, [server] = site_on(cluster.new_database())
    seconds = 60 if FULL else 3
    load = load_on(client, server.port)
    wait(AROUND)
    cluster.stop("immediate")
    began = time.monotonic()
    wait(seconds)
    ended = time.monotonic()
    cluster.start()
    back = time.monotonic()
    wait(AROUND)
    load.finish()
    refused = load.between(began, ended)
    figure("503", spread(milliseconds(refused, 503)))
    figure("longest 503", f"{max(milliseconds(refused, 503)):.0f} ms")
    figure("next 200 after it was back", f"{load.next_good(back):.2f} s")
    assert {each.status for each in refused} <= {503, 401}
    assert max(milliseconds(refused, 503)) < 1000
    assert load.next_good(back) < 2


def test_postgres_is_frozen(
    cluster: Postgres, site_on: Starts, load_on: Loads, figure: Figure
) -> None:
    client, [server] = site_on(cluster.new_database())
    seconds = 30 if FULL else 7
    load = load_on(client, server.port)
    wait(AROUND)
    cluster.freeze()
    began = time.monotonic()
    wait(seconds)
    thawed = time.monotonic()
    cluster.thaw()
    wait(AROUND)
    load.finish()
    at_once = load.between(began - 5, began + 5)
    later = [each for each in load.between(began + 5, thawed) if each.status == 503]
    longest = max(milliseconds(at_once + later))
    figure("longest of all", f"{longest / 1000:.2f} s")
    figure("503 after the first 5 s", spread(milliseconds(later)))
    figure("longest 503 after the first 5 s", f"{max(milliseconds(later)):.0f} ms")
    figure("next 200 after the thaw", f"{load.next_good(thawed):.2f} s")
    load.never({0})
    assert longest < 5000
    assert {each.status for each in load.between(began + 5, thawed - 0.2)} <= {503, 401}
    assert max(milliseconds(later)) < (100 if FULL else 500)
    assert load.next_good(thawed) < 2


def healths(server: Server, over: threading.Event) -> list[float]:
    """Milliseconds of asking /healthz ten times a second, until it is over."""
    found = []
    while not over.wait(0.1):
        began = time.monotonic()
        assert server.ask("GET", "/healthz").status == 200
        found.append((time.monotonic() - began) * 1000)
    return found


@contextmanager
def watched(server: Server) -> Iterator[list[float]]:
    """Milliseconds of /healthz while the block lasts; filled in at its end."""
    over, found = threading.Event(), []
    watch = threading.Thread(target=lambda: found.extend(healths(server, over)))
    watch.start()
    try:
        yield found
    finally:
        over.set()
        watch.join()


def test_tables_that_somebody_has_locked_do_not_stop_the_process(
    cluster: Postgres, site_on: Starts, load_on: Loads, figure: Figure
) -> None:
    url = cluster.new_database()
    client, [server] = site_on(url)
    load = load_on(client, server.port)
    wait(AROUND)
    with watched(server) as health, psycopg.connect(url) as other:
        other.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
        began = time.monotonic()
        wait(6)
        ended = time.monotonic()
    wait(AROUND)
    load.finish()
    refused = load.between(began, ended)
    figure("answers meanwhile", counts(refused))
    figure("503", spread(milliseconds(refused, 503)))
    figure("/healthz, longest", f"{max(health):.0f} ms")
    figure("next 200 after the lock", f"{load.next_good(ended):.2f} s")
    assert max(milliseconds(refused)) < 5000
    assert max(health) < 1500
    assert load.next_good(ended) < 2


def test_a_pool_that_is_too_small_refuses_in_bounded_time(
    cluster: Postgres, site_on: Starts, load_on: Loads, figure: Figure
) -> None:
    client, [server] = site_on(cluster.new_database(), database_pool_size=1, threads=16)
    load = load_on(client, server.port)
    wait(2 * AROUND)
    found = load.finish()
    figure("answers", counts(found))
    figure("503", spread(milliseconds(found, 503)))
    load.never({0})
    assert max([0.0, *milliseconds(found, 503)]) < 5000


# --- Redis ---


def test_redis_is_frozen_stopped_and_started_again(
    redis: Process, url_on: Callable[[str], str], site_on: Starts, figure: Figure
) -> None:
    client, [server] = site_on(url_on("sqlite"), redis_url=f"redis://127.0.0.1:{redis.port}/0")
    add_user(client, "alice")
    limit = {"limit": 1000, "window_seconds": 60}
    headers = by_key(sign_in(client, "alice").new_key(rate_limit=limit)["key"])

    def ask(times: int) -> list[float]:
        found = []
        for _ in range(times):
            began = time.monotonic()
            connection = server.connect()
            connection.request("GET", "/v1/auth/me", headers=headers)
            assert read(connection).status == 200
            connection.close()
            found.append((time.monotonic() - began) * 1000)
        return found

    figure("with Redis", spread(ask(20)))
    redis.process.send_signal(signal.SIGSTOP)
    frozen = ask(50)
    redis.end()
    stopped = ask(50)
    redis.start()
    until(lambda: ask(1) and "Redis is back" in server.output.read_text("utf-8"))
    figure("frozen, longest", f"{max(frozen):.0f} ms")
    figure("stopped, longest", f"{max(stopped):.0f} ms")
    assert max(frozen) < 1000
    assert max(stopped) < 1000
    assert "Redis is down" in server.output.read_text("utf-8")


# --- a full disk ---


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A folder on a file system of its own, which is small."""
    folder = Path(tempfile.mkdtemp(prefix="small"))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=96m,mode=755", "tmpfs", folder], check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a file system takes root")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)
    folder.rmdir()


def fill(folder: Path) -> Path:
    """Fill the disk to its last byte; returns the file that does it."""
    waste = folder / "waste"
    with waste.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            return waste


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_a_full_disk(
    engine: str, small_disk: Path, app_on: Callable[..., Flask], figure: Figure
) -> None:
    if engine == "sqlite":
        url = f"sqlite:///{small_disk / 'test.db'}"
        migrate(url)
        fill_and_free(app_on(url), small_disk, figure)
        return
    folder, wal = small_disk / "cluster", Path(tempfile.mkdtemp(prefix="wal"))
    folder.mkdir()
    shutil.chown(wal, "postgres")
    cluster = Postgres(folder, wal / "wal")  # where it lies, as it should, on another disk
    try:
        fill_and_free(app_on(cluster.new_database()), small_disk, figure)
    finally:
        cluster.stop("immediate")
        shutil.rmtree(wal)


def fill_and_free(app: Flask, disk: Path, figure: Figure) -> None:
    """Writes are refused while the disk is full, and nothing else is."""
    client = client_of(app)
    add_user(client, "alice")
    alice = sign_in(client, "alice")
    key = by_key(alice.new_key()["key"])
    wanted = {"name": "x" * 100, "description": "y" * 500, "expires_in_days": 1}

    def make() -> int:
        status = alice.post("/v1/api-keys", wanted).status_code
        assert status in {201, 409, 503}
        return status

    waste = fill(disk)
    made = [make() for _ in range(60)]
    assert made[-20:] == [503] * 20
    assert {client.get("/v1/auth/me", headers=key).status_code for _ in range(20)} == {200}
    waste.unlink()
    began = time.monotonic()
    until(lambda: make() == 201, 10)
    figure("next write after there was space", f"{time.monotonic() - began:.2f} s")
    service = service_of(app)
    with service.active():
        assert verify(service.database) == []
    assert len(alice.get("/v1/api-keys?limit=100").json["items"]) == made.count(201) + 2
