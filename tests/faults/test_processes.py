"""Processes that are killed, that migrate at once, that write at once, whose clock jumps."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from backend.db import migrations
from backend.db.database import open_database

from ..support.long_runs import FULL, Site, at
from ..support.people import add_user, by_key, by_token, sign_in
from ..support.processes import program, run
from ..support.servers import read
from ..support.settings import make_settings, process_environ
from .load import Load, counts, in_full, wait

Starts = Callable[..., Site]
Loads = Callable[..., Load]
Figure = Callable[[str, str], None]
Urls = Callable[[str], str]

KILLS = 20 if FULL else 1
SECRET = {"secret_key": "Zr8Qm2N4pX7vB9Ca5Sd3Gh6Yt1LwEk0J"}
SETTINGS = {**SECRET, "public_url": "http://127.0.0.1:8000", "mail_url": "memory:"}


# --- kill -9 ---


@pytest.mark.parametrize("engine", ["sqlite", pytest.param("postgres", marks=in_full)])
def test_a_process_is_killed_under_load(
    engine: str, url_on: Urls, site_on: Starts, load_on: Loads, figure: Figure
) -> None:
    client, [server] = site_on(url_on(engine), bcrypt_rounds=10, **SETTINGS)
    load = load_on(client, server.port)
    wait(2)
    killed = []
    for _ in range(KILLS):
        server.end()
        killed.append(time.monotonic())
        server.start()  # what a supervisor does
        wait(5)
    load.finish()
    told(load, client, killed, 5, figure)


@pytest.mark.parametrize("engine", [pytest.param("sqlite", marks=in_full), "postgres"])
def test_a_worker_is_killed_under_load(
    engine: str, url_on: Urls, site_on: Starts, load_on: Loads, figure: Figure
) -> None:
    client, [server] = site_on(
        url_on(engine), "gunicorn", workers=2, threads=4, bcrypt_rounds=10, **SETTINGS
    )
    load = load_on(client, server.port)
    wait(2)
    killed = []
    for _ in range(KILLS):
        os.kill(children(server.process.pid)[0], signal.SIGKILL)
        killed.append(time.monotonic())
        wait(4)
    load.finish()
    told(load, client, killed, 3, figure)


def told(
    load: Load, client: FlaskClient, killed: list[float], seconds: float, figure: Figure
) -> None:
    """Hold what was acknowledged against what is there, and the time without an answer."""
    healthy = [load.next_good(moment) for moment in killed]
    figure("answers", counts(load.answers))
    figure(f"next 200 after each of {len(killed)} kills", f"{max(healthy):.2f} s at most")
    figure("acknowledged keys held against the database", f"{len(load.kept) + len(load.gone):,}")
    assert not load.missing(client, sign_in(client, "root"))
    assert max(healthy) < seconds


def children(pid: int) -> list[int]:
    """The processes that this one started."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(each) for each in found]


# --- migrating ---


@pytest.fixture(params=["sqlite", "postgres"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database that no migration has seen."""
    if request.param == "postgres":
        return str(request.getfixturevalue("cluster").new_database(migrated=False))
    return f"sqlite:///{tmp_path / 'test.db'}"


def schema(url: str) -> tuple[list[str], str]:
    """The migrations that were applied, and how the models differ from them."""
    database = open_database(make_settings(database_url=url))
    found = migrations.applied(database), migrations.drift(database)
    database.close_all()
    return found


@pytest.mark.parametrize(
    "older", [pytest.param(False, marks=in_full), True], ids=["empty", "older"]
)
def test_eight_processes_migrate_at_once(
    empty: str, tree: Path, figure: Figure, older: bool
) -> None:
    if older:
        upgrade(tree, empty)
        down = run(
            tree, "flask", "--app", "wsgi", "db", "downgrade", "005_audit", database_url=empty
        )
        assert down.returncode == 0, down.stderr
    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda _: upgrade(tree, empty), range(8)))
    figure("until the last was done", f"{time.monotonic() - began:.1f} s")
    assert sum("applied" in each for each in done) == 1, done
    assert schema(empty) == (migrations.known(), "")


def upgrade(tree: Path, url: str) -> str:
    """What `flask db upgrade` prints."""
    done = run(tree, "flask", "--app", "wsgi", "db", "upgrade", database_url=url, seconds=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_process_is_killed_while_it_migrates(empty: str, tree: Path) -> None:
    for _ in range(8 if FULL else 3):
        process = subprocess.Popen(
            [Path(sys.executable).parent / "flask", "--app", "wsgi", "db", "upgrade"],
            cwd=tree,
            env=process_environ(database_url=empty),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1 + 0.15 * _)
        process.kill()
        process.wait()
    upgrade(tree, empty)
    assert schema(empty) == (migrations.known(), "")


# --- writing at once ---


def test_sixteen_writers_in_two_processes_on_sqlite(
    url_on: Urls, site_on: Starts, figure: Figure
) -> None:
    many = {"threads": 12, "max_keys_per_user": 1_000_000}
    url = url_on("sqlite")
    client, servers = site_on(url, processes=2, bcrypt_rounds=10, **many, **SETTINGS)
    add_user(client, "alice")
    headers = {**sign_in(client, "alice").headers, "Content-Type": "application/json"}
    end = time.monotonic() + (60 if FULL else 5)

    def write(number: int) -> list[tuple[int, float]]:
        connection, found = servers[number % 2].connect(), []
        while time.monotonic() < end:
            began = time.monotonic()
            body = json.dumps({"name": f"of {number}"})
            connection.request("POST", "/v1/api-keys", body, headers)
            found.append((read(connection).status, (time.monotonic() - began) * 1000))
        connection.close()
        return found

    with ThreadPoolExecutor(16) as pool:
        found = [each for several in pool.map(write, range(16)) for each in several]
    times = [taken for _, taken in found]
    figure("writes", f"{len(found):,}, p50 {at(0.5, times):.0f} ms, p99 {at(0.99, times):.0f} ms")
    figure("longest", f"{max(times):.0f} ms")
    assert {status for status, _ in found} == {201}
    for server in servers:
        assert "database is locked" not in server.output.read_text("utf-8")


# --- the clock ---


@pytest.fixture
def jump(tmp_path: Path) -> tuple[Callable[[int], None], dict[str, Any]]:
    """(a function that sets the clock of processes so many seconds off, their environment)."""
    program("faketime")
    [library] = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    path = tmp_path / "faketime"

    def to(seconds: int) -> None:
        path.write_text(f"{seconds:+d}")

    to(0)
    given = {
        "LD_PRELOAD": library,
        "FAKETIME_TIMESTAMP_FILE": path,
        "FAKETIME_NO_CACHE": 1,
        "FAKETIME_DONT_FAKE_MONOTONIC": 1,
    }
    return to, given


@pytest.mark.parametrize("engine", ["sqlite", pytest.param("postgres", marks=in_full)])
def test_the_clock_jumps(
    engine: str,
    url_on: Urls,
    site_on: Starts,
    jump: tuple[Callable[[int], None], dict[str, Any]],
    figure: Figure,
) -> None:
    to, environment = jump
    client, [server] = site_on(url_on(engine), bcrypt_rounds=10, **SETTINGS, **environment)
    add_user(client, "alice")
    alice = sign_in(client, "alice")
    short = alice.new_key(expires_at=None)["key"]

    def status(headers: dict[str, str]) -> int:
        connection = server.connect()
        connection.request("GET", "/v1/auth/me", headers=headers)
        found = read(connection).status
        connection.close()
        return found

    def post(path: str, **body: str) -> tuple[int, Any]:
        answer = server.ask("POST", path, json.dumps(body))
        return answer.status, json.loads(answer.content or b"null")

    assert status(by_key(short)) == status(alice.headers) == 200
    to(3600)
    assert status(alice.headers) == 401  # its ten minutes are over
    assert status(by_key(short)) == 200
    code, body = post("/v1/auth/refresh", refresh_token=alice.refresh_token)
    assert code == 200
    ahead = by_token(body["access_token"])
    assert status(ahead) == 200
    to(-600)  # ten minutes before the truth, an hour and ten before the last token
    assert status(by_key(short)) == 200
    assert status(ahead) == 401  # not yet; for no longer than the jump
    code, body = post("/v1/auth/refresh", refresh_token=body["refresh_token"])
    assert code == 200
    assert status(by_token(body["access_token"])) == 200
    to(0)
    assert status(by_token(body["access_token"])) == 200
    figure("an hour ahead, then ten minutes back", "nobody in, nobody out")
