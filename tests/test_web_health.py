"""Health: what the service says of itself, to people, to supervisors and to balancers."""

import socket
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from backend import __version__

from .support.apps import client_of, service_of
from .support.databases import migrate
from .support.problems import assert_problem


def test_the_front_page_says_name_version_and_links(bare: FlaskClient) -> None:
    response = bare.get("/")
    assert response.status_code == 200
    assert set(response.json) == {"name", "version", "links"}
    assert response.json["name"] == "backend"
    assert response.json["version"] == __version__
    assert response.json["links"]["healthz"] == "/healthz"


def test_a_service_with_its_database_lives_and_is_ready(client: FlaskClient) -> None:
    live, ready = client.get("/healthz"), client.get("/readyz")
    assert (live.status_code, live.json) == (200, {"status": "ok"})
    assert (ready.status_code, ready.json) == (200, {"status": "ready"})


def test_credentials_are_not_read(bare: FlaskClient) -> None:
    both = {"Authorization": "Bearer nonsense", "X-API-Key": "other"}
    assert bare.get("/healthz", headers=both).status_code == 200
    assert bare.get("/", headers=both).status_code == 200


@pytest.mark.parametrize(
    "url", ["sqlite:////there/is/no/such/folder.db", "postgresql://nobody@127.0.0.1:1/none"]
)
def test_without_a_database_it_lives_and_is_not_ready(
    make_bare_app: Callable[..., Flask], url: str
) -> None:
    client = client_of(make_bare_app(database_url=url))
    assert client.get("/healthz").status_code == 200
    response = client.get("/readyz")
    assert_problem(response, 503, "unavailable")
    assert int(response.headers["Retry-After"]) > 0


def test_it_is_ready_once_migrations_are_applied(
    make_app: Callable[..., Flask], tmp_path: Path
) -> None:
    path = tmp_path / "later" / "backend.db"
    client = client_of(make_app(database_url=f"sqlite:///{path}"))
    assert_problem(client.get("/readyz"), 503, "unavailable")
    path.parent.mkdir()
    assert_problem(client.get("/readyz"), 503, "unavailable")
    migrate(f"sqlite:///{path}")
    assert client.get("/readyz").status_code == 200


def test_asking_writes_nothing(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    client = client_of(make_app(database_url=f"sqlite:///{path}"))
    assert_problem(client.get("/readyz"), 503, "unavailable")
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    connection.close()


def test_a_service_that_drains_lives_and_is_not_ready(app: Flask, client: FlaskClient) -> None:
    service_of(app).draining.set()
    assert_problem(client.get("/readyz"), 503, "unavailable")
    assert client.get("/healthz").status_code == 200


def test_a_file_that_is_no_database_makes_it_not_ready(
    make_app: Callable[..., Flask], tmp_path: Path
) -> None:
    path = tmp_path / "broken.db"
    path.write_bytes(b"no database at all " * 100)
    client = client_of(make_app(database_url=f"sqlite:///{path}"))
    assert_problem(client.get("/readyz"), 503, "unavailable")


def test_a_database_that_does_not_answer_makes_it_not_ready_within_a_second(
    make_bare_app: Callable[..., Flask],
) -> None:
    threads = set(threading.enumerate())
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, says nothing
        url = f"postgresql://nobody@127.0.0.1:{silent.getsockname()[1]}/none"
        client = client_of(make_bare_app(database_url=url))
        started = time.monotonic()
        assert_problem(client.get("/readyz"), 503, "unavailable")
        assert time.monotonic() - started < 1
    for thread in set(threading.enumerate()) - threads:
        thread.join()  # the one that asked ends with its connection
