"""Mounting: inside a host's process, beside its routes and its logs, and beside another of us."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client

from backend.app import create_app
from backend.core.settings import ROOT, SettingsError
from backend.web.access import public

from .support.apps import client_of
from .support.databases import migrate
from .support.people import PASSWORD, Person, add_user, sign_in


def hosted(backend: Flask) -> Client:
    """A client of a host that has the service mounted under /accounts."""
    host = Flask("host")

    @host.get("/")
    def page() -> str:
        return "the host's page"

    @host.errorhandler(404)
    def not_found(error: Exception) -> tuple[str, int]:
        return "the host's own 404", 404

    host.wsgi_app = DispatcherMiddleware(host.wsgi_app, {"/accounts": backend})  # type: ignore[method-assign]
    return Client(host)


def test_the_hosts_own_pages_are_left_alone(bare: FlaskClient) -> None:
    client = hosted(bare.application)
    for path, status, text in [("/", 200, "the host's page"), ("/v1", 404, "the host's own 404")]:
        response = client.get(path)
        assert (response.status_code, response.text) == (status, text)
        assert "X-Request-ID" not in response.headers
        assert "Content-Security-Policy" not in response.headers
    inside = client.get("/accounts/nothing")
    assert inside.json["code"] == "not_found"
    assert inside.headers["X-Request-ID"] == inside.json["request_id"]


def test_links_and_locations_carry_the_prefix(root: Person) -> None:
    client = hosted(root.client.application)
    links = client.get("/accounts/").json["links"]
    assert links["docs"] == "/accounts/v1/docs"
    for path in links.values():
        assert client.get(path).status_code == 200
    carol = {"username": "carol", "email": "carol@example.com", "password": PASSWORD}
    for path, body in [("api-keys", {"name": "x"}), ("auth/register", carol)]:
        created = client.post(f"/accounts/v1/{path}", json=body, headers=root.headers)
        assert created.status_code == 201
        assert created.headers["Location"].startswith("/accounts/v1/")
        read = client.get(created.headers["Location"], headers=root.headers)
        assert read.json["id"] == created.json["id"]


def test_documentation_works_under_the_prefix(bare: FlaskClient) -> None:
    client = hosted(bare.application)
    assert client.get("/accounts/v1/openapi.json").json["servers"][-1] == {"url": "/accounts"}
    for path in ["docs", "redoc", "docs/assets/swagger.js"]:
        response = client.get(f"/accounts/v1/{path}")
        assert response.status_code == 200
        assert "/accounts" not in response.text  # all addresses are relative


def test_the_mount_point_itself_is_no_redirect(bare: FlaskClient) -> None:
    response = hosted(bare.application).get("/accounts")
    assert response.status_code in {200, 404}
    assert "Location" not in response.headers


def test_the_root_logger_is_left_alone(make_bare_app: Callable[..., Flask]) -> None:
    logger = logging.getLogger()
    before = (list(logger.handlers), list(logger.filters), logger.level)
    client = client_of(make_bare_app())
    client.get("/healthz")
    client.get("/v1/docs")
    client.post("/v1/auth/login", json={"username": "alice", "password": PASSWORD})
    assert (list(logger.handlers), list(logger.filters), logger.level) == before
    assert logging.getLogger("backend").handlers == []


def test_a_host_may_add_views_of_its_own_that_are_marked(
    make_bare_app: Callable[..., Flask],
) -> None:
    app = make_bare_app()

    @app.get("/own")
    @public
    def own() -> str:
        return "own"

    assert client_of(app).get("/own").text == "own"


@pytest.fixture
def other(make_app: Callable[..., Flask], tmp_path: Path) -> FlaskClient:
    """A client of a second app in this process, with a database and a secret of its own."""
    url = f"sqlite:///{tmp_path}/other.db"
    migrate(url)
    return client_of(
        make_app(
            database_url=url, secret_key="another secret for the other app", api_key_prefix="xx"
        )
    )


def test_two_apps_in_one_process_know_nothing_of_each_other(
    client: FlaskClient, alice: Person, other: FlaskClient
) -> None:
    key = alice.new_key()["key"]
    add_user(other, "alice", password="purple elephants drink tea")
    namesake = sign_in(other, "alice", "purple elephants drink tea")
    assert namesake.id != alice.id
    assert other.get("/v1/auth/me", headers=alice.headers).status_code == 401
    assert client.get("/v1/auth/me", headers=namesake.headers).status_code == 401
    assert other.get("/v1/auth/me", headers={"X-API-Key": key}).status_code == 401
    assert other.post("/v1/api-keys/revoke", json={"key": key}).status_code == 204
    assert client.get("/v1/auth/me", headers={"X-API-Key": key}).status_code == 200
    assert namesake.new_key()["key"].startswith("xx_")
    assert len(alice.get("/v1/api-keys").json["items"]) == 1
    assert client.get("/readyz").status_code == other.get("/readyz").status_code == 200


def test_two_apps_do_not_disturb_each_other_at_the_same_time(
    client: FlaskClient, alice: Person, other: FlaskClient
) -> None:
    add_user(other, "bob")
    bob = sign_in(other, "bob")

    def work(person: Person, name: str) -> None:
        browser = person.client.application.test_client()
        for number in range(10):
            body = {"name": f"{name} {number}"}
            created = browser.post("/v1/api-keys", json=body, headers=person.headers)
            assert created.status_code == 201
            me = browser.get("/v1/auth/me", headers={"X-API-Key": created.json["key"]})
            assert me.json["username"] == name

    with ThreadPoolExecutor(4) as pool:
        people = [(alice, "alice"), (bob, "bob")] * 2
        for done in [pool.submit(work, *person) for person in people]:
            done.result()
    for person, name in [(alice, "alice"), (bob, "bob")]:
        names = {key["name"] for key in person.get("/v1/api-keys").json["items"]}
        assert names == {f"{name} {number}" for number in range(10)}


def test_one_app_may_ask_another_while_it_answers(
    make_app: Callable[..., Flask], other: FlaskClient
) -> None:
    app, people = make_app(), []

    def who(person: Person) -> str:
        browser = person.client.application.test_client()
        return browser.get("/v1/auth/me", headers=person.headers).json["username"]

    @app.get("/all")
    @public
    def everybody() -> list[str]:
        return [who(person) for person in people]

    for client, name in [(client_of(app), "alice"), (other, "bob")]:
        add_user(client, name)
        people.append(sign_in(client, name))
    people.append(people[0])
    assert client_of(app).get("/all").json == ["alice", "bob", "alice"]


IMPORT = """
import logging, pkgutil, sys, threading

told = []
WRITES = {"os.mkdir", "os.rename", "os.remove", "os.link", "sqlite3.connect", "socket.connect",
          "socket.bind", "subprocess.Popen", "os.fork", "os.exec", "os.posix_spawn"}

def hook(event, arguments):
    if event in WRITES or event == "open" and set(str(arguments[1])) & set("wax+"):
        told.append((event, str(arguments[0])))

root = logging.getLogger()
before = list(root.handlers), root.level, threading.active_count()
sys.addaudithook(hook)
import backend
for module in pkgutil.walk_packages(backend.__path__, "backend."):
    if module.name != "backend.wsgi":  # the entry point
        __import__(module.name)
after = list(root.handlers), root.level, threading.active_count()
named = [name for name in logging.root.manager.loggerDict if name.startswith("backend")]
assert before == after, (before, after)
assert not any(logging.getLogger(name).handlers for name in named), named
assert not told, told
assert "gunicorn" not in sys.modules
"""


@pytest.mark.slow
def test_importing_it_does_nothing(tmp_path: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", IMPORT], cwd=tmp_path, env=environ, capture_output=True, text=True
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_building_an_app_connects_to_nothing(make_bare_app: Callable[..., Flask]) -> None:
    make_bare_app(database_url="postgresql://nobody@127.0.0.1:1/none")


def test_without_settings_the_environment_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ENVIRONMENT", "testing")
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/missing/backend.db")
    monkeypatch.setenv("PUBLIC_URL", "https://accounts.example.com")
    monkeypatch.setenv("DOCS_ENABLED", "false")
    client = create_app().test_client()
    assert "Strict-Transport-Security" in client.get("/healthz").headers
    assert client.get("/v1/docs").status_code == 404


def test_without_settings_an_unsafe_environment_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ENVIRONMENT", "production")
    monkeypatch.setenv("SECRET_KEY", "short")
    with pytest.raises(SettingsError, match="SECRET_KEY"):
        create_app()


@pytest.mark.parametrize(
    ("options", "is_multithreaded", "errors"),
    [
        ({"master": True}, False, 1),
        ({"enable-threads": b"false"}, False, 1),
        ({"enable-threads": True}, False, 0),
        ({"threads": b"2"}, True, 0),
    ],
)
def test_uwsgi_without_threads_is_logged_as_an_error_once(
    make_bare_app: Callable[..., Flask],
    logged: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    is_multithreaded: bool,
    errors: int,
) -> None:
    # As uWSGI 2.0.21 shows its options to the application.
    monkeypatch.setitem(sys.modules, "uwsgi", SimpleNamespace(opt=options))
    environ = {"uwsgi.version": b"2.0.21", "wsgi.multithread": is_multithreaded}
    client = make_bare_app().test_client()
    for _ in range(2):
        assert client.get("/healthz", environ_overrides=environ).status_code == 200
    assert sum("--enable-threads" in line for line in logged()) == errors
