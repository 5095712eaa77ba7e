"""A PostgreSQL of our own that may be stopped and frozen, servers on it, and load on them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from flask.testing import FlaskClient

from backend.core.settings import ROOT
from backend.crypto.keyring import Keyring

from ..conftest import PASSWORD, add_user, make_settings, migrate, process_environ, sign_in
from ..load import Answer
from ..long_runs import Site, at, figure, make_site, pytest_terminal_summary, site_on
from ..processes import Process, free_port, program

__all__ = ["Site", "figure", "make_site", "pytest_terminal_summary", "site_on"]

FULL = os.environ.get("FAULTS") == "full"
USERS = [f"user{number}" for number in range(16)]
in_full = pytest.mark.skipif(not FULL, reason="in the whole form only")


def as_user(name: str, *command: str) -> list[str]:
    """The command, run by that user if we are root."""
    if os.getuid():
        return [*command]
    return ["setpriv", f"--reuid={name}", f"--regid={name}", "--clear-groups", *command]


class Postgres:
    """A cluster of our own. `wal` may lie elsewhere than the data, as it should."""

    def __init__(self, folder: Path, wal: Path | None = None) -> None:
        self.data, self.port = folder / "data", free_port()
        shutil.chown(folder, "postgres") if not os.getuid() else None
        elsewhere = [f"--waldir={wal}"] if wal else []
        self._run("initdb", "-A", "trust", "-U", "postgres", "-E", "UTF8", *elsewhere)
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.write(
                f"port = {self.port}\nlisten_addresses = '127.0.0.1'\nmax_connections = 100\n"
                f"unix_socket_directories = ''\nlogging_collector = off\n"
            )
        self.start()

    def _run(self, name: str, *arguments: str) -> None:
        command = as_user("postgres", program(name), "-D", str(self.data), *arguments)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/")

    def start(self) -> None:
        """Start it, and return when it answers."""
        log = str(self.data.parent / "log")
        self._run("pg_ctl", "start", "-w", "-l", log)

    def stop(self, mode: str = "fast") -> None:
        """Stop it; what is connected is cut off."""
        self._run("pg_ctl", "stop", "-w", "-m", mode)

    def freeze(self) -> None:
        """Stop all of its processes: connections stay, and nobody answers."""
        for pid in self._processes():
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let all of its processes go on."""
        for pid in self._processes():
            os.kill(pid, signal.SIGCONT)

    def _processes(self) -> list[int]:
        """The postmaster first, so that none is forked meanwhile."""
        postmaster = int((self.data / "postmaster.pid").read_text().split("\n")[0])
        found = [postmaster]
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                if int(stat.read_text().rpartition(")")[2].split()[1]) == postmaster:
                    found.append(int(stat.parent.name))
        return found

    def new_database(self, migrated: bool = True) -> str:
        """The URL of a new database."""
        name = f"test_{uuid.uuid4().hex}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        if migrated:
            migrate(self.url(name))
        return self.url(name)

    def url(self, name: str, port: int = 0) -> str:
        """The URL of a database here, or by way of a relay on that port."""
        return f"postgresql://postgres@127.0.0.1:{port or self.port}/{name}"


@pytest.fixture(scope="session")
def cluster() -> Iterator[Postgres]:
    """A PostgreSQL of our own, running."""
    folder = Path(tempfile.mkdtemp(prefix="faults"))
    cluster = Postgres(folder)
    yield cluster
    cluster.thaw()
    cluster.stop("immediate")
    shutil.rmtree(folder)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Process]:
    """A Redis of our own, running and empty."""
    port = free_port()
    command = [program("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with Process(command, port, tmp_path / "redis.log") as redis:
        yield redis


@pytest.fixture
def url_on(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """A function that gives the URL of a migrated, empty database on an engine."""

    def make(engine: str) -> str:
        if engine == "postgres":
            return str(request.getfixturevalue("cluster").new_database())
        migrate(f"sqlite:///{tmp_path / 'test.db'}")
        return f"sqlite:///{tmp_path / 'test.db'}"

    return make


class Load:
    """Clients of a port, in a process of their own, all of whom are signed in."""

    def __init__(self, port: int, who: dict[str, Any]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.load", str(port)],
            cwd=ROOT,
            env=process_environ(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(who))
        self.process.stdin.close()
        self.process.stdin = None
        self.answers: list[Answer] = []
        self.kept: dict[str, str] = {}
        self.gone: list[str] = []
        assert self.process.stdout.readline() == "\n"
        self.began = time.monotonic()

    def finish(self) -> list[Answer]:
        """All answers since it began. None was 500 or failed to come, and no stranger got in."""
        self.process.terminate()
        told = json.loads(self.process.communicate(timeout=300)[0])
        self.answers = [Answer(*each) for each in told["answers"]]
        self.kept, self.gone = told["kept"], told["gone"]
        self.never({500, -1})
        assert not [each for each in self.answers if each.kind == "stranger" and each.status == 200]
        self.answers = [each for each in self.answers if each.sent_at >= self.began]
        return self.answers

    def never(self, statuses: set[int]) -> None:
        """No answer had one of these statuses."""
        found = [each for each in self.answers if each.status in statuses]
        assert not found, found[:5]

    def between(self, begin: float, end: float) -> list[Answer]:
        """What was sent in that time."""
        return [each for each in self.answers if begin <= each.sent_at < end]

    def next_good(self, moment: float) -> float:
        """Seconds from the moment to the next 200."""
        return min(
            each.sent_at + each.milliseconds / 1000 - moment
            for each in self.answers
            if each.status == 200 and each.sent_at + each.milliseconds / 1000 >= moment
        )

    def missing(self, client: FlaskClient, person: Any) -> list[str]:
        """What was acknowledged and is not so: keys that are gone, back, or called otherwise."""
        names, cursor = {}, ""
        while cursor is not None:
            page = person.get(
                f"/v1/api-keys?owner_id=any&limit=100{cursor and '&cursor=' + cursor}"
            )
            names |= {each["id"]: each["name"] for each in page.json["items"]}
            cursor = page.json["next"]
        lost = [each for each, name in self.kept.items() if names.get(each) != name]
        return lost + [each for each in self.gone if each in names]


@pytest.fixture
def load_on() -> Iterator[Callable[..., Load]]:
    """A function that puts load on a site, and adds its users: `load_on(client, port)`."""
    started: list[Load] = []

    def start(client: FlaskClient, port: int, users: int = len(USERS), rest: float = 0.0) -> Load:
        names = USERS[:users]
        if not started:
            for name in names:
                add_user(client, name)
            add_user(client, "root", role="admin")
        root = sign_in(client, "root")
        who = {
            "users": names,
            "password": PASSWORD,
            "verifier": root.new_key(scopes=["keys:verify"])["key"],
            "stranger": Keyring(make_settings()).new_api_key(),
            "rest": rest,
        }
        started.append(Load(port, who))
        return started[-1]

    yield start
    for load in started:
        if load.process.poll() is None:
            load.process.kill()
            load.process.communicate()


def wait(seconds: float) -> None:
    """Let the fault last."""
    time.sleep(seconds)


def milliseconds(answers: list[Answer], *statuses: int) -> list[float]:
    """How long the answers took that have one of these statuses; all if none is named."""
    return [each.milliseconds for each in answers if not statuses or each.status in statuses]


def spread(values: list[float]) -> str:
    """p50 and p99 of milliseconds, and how many they are."""
    if not values:
        return "none"
    return f"p50 {at(0.5, values):.1f} ms, p99 {at(0.99, values):.1f} ms, of {len(values):,}"


def counts(answers: list[Answer]) -> str:
    """How many answers there are of each status."""
    found = sorted({each.status for each in answers})
    return ", ".join(f"{sum(a.status == status for a in answers):,} x {status}" for status in found)
