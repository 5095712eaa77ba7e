"""A PostgreSQL of our own that may be stopped and frozen, servers on it, and load on them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from backend.crypto.keyring import Keyring

from ..support.databases import migrate
from ..support.people import PASSWORD, add_user, sign_in
from ..support.processes import Process, free_port, program
from ..support.settings import make_settings
from .cluster import Postgres
from .load import USERS, Load


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
