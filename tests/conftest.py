"""What tests share: a client, and Alice, Bob and Root who use it, on both databases.

Every test that asks for `client` (or for one of them) runs on SQLite, and again on PostgreSQL if
TEST_POSTGRES_URL names a server on which databases may be created; tests of Redis run if
TEST_REDIS_URL names one. With CI=true both must be set.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import psycopg
import pyotp
import pytest
from flask import Flask
from flask.testing import FlaskClient
from waitress.server import create_server
from werkzeug.test import TestResponse

from backend.app import create_app
from backend.core import clock, logs
from backend.core.identity import CONSOLE
from backend.core.settings import ROOT, Settings
from backend.db import migrations
from backend.db.database import open_database, release
from backend.services import Services
from backend.users import service as users
from backend.web import openapi

PASSWORD = "correct horse battery staple"
NEW_PASSWORD = "purple elephants drink tea"
NOTHING = "0192d3a4-0000-7d8e-9f01-23456789abcd"  # an id that nothing has
POSTGRES_URL = os.environ.get("TEST_POSTGRES_URL", "")
REDIS_URL = os.environ.get("TEST_REDIS_URL", "")
INTERNAL = re.compile(r'"(password_hash|digest|seal|wrapped_key|secret_id|\w*epoch)":|\$2b\$')
ENGINES = ("sqlite", "postgres")
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # no waiting for disks

# Servers under test are sent it, even if the tests themselves run under nohup.
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

if os.environ.get("CI") == "true" and not (POSTGRES_URL and REDIS_URL):
    raise pytest.UsageError("CI=true: set TEST_POSTGRES_URL and TEST_REDIS_URL, no test is skipped")


def make_settings(**values: object) -> Settings:
    """Return settings for a test. Names are those of settings in lower case, values their text."""
    environ = {"ENVIRONMENT": "testing", "THREADS": "64"}
    environ |= {name.upper(): str(value) for name, value in values.items()}
    return Settings.load(environ, dotenv=None)


@pytest.fixture(scope="session", params=ENGINES)
def template(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The URL of a migrated, empty database, made once per session."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('sqlite')}/template.db"
        migrate(url)
        yield url
        return
    if not POSTGRES_URL:
        pytest.skip("TEST_POSTGRES_URL is not set")
    with scratch_postgres() as url:
        migrate(url)
        yield url


# For a test that makes sense on only one of the two.
ON_SQLITE = pytest.mark.parametrize("template", ["sqlite"], indirect=True)
ON_POSTGRES = pytest.mark.parametrize("template", ["postgres"], indirect=True)


@pytest.fixture
def fresh_database(template: str) -> Iterator[Callable[[], str]]:
    """A function that returns the URL of a migrated, empty database.

    On SQLite a new file each time; on PostgreSQL one database for the session, emptied.
    """
    if template.startswith("sqlite:"):
        file = template.removeprefix("sqlite:///")
        with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
            yield lambda: f"sqlite:///{shutil.copy(file, f'{folder}/{uuid.uuid4().hex}.db')}"
        return

    def empty() -> str:
        with psycopg.connect(template) as connection:
            connection.execute(
                "TRUNCATE users, throttles, notices, mails, audit_events, audit_chain, denials,"
                " held_usernames CASCADE"
            )
        return template

    yield empty


class scratch_postgres:
    """Context manager: the URL of a new, empty PostgreSQL database, dropped at the end.

    `options` are those of CREATE DATABASE.
    """

    def __init__(self, options: str = "") -> None:
        self.name, self.options = f"test_{uuid.uuid4().hex}", options

    def __enter__(self) -> str:
        self._execute(f"CREATE DATABASE {self.name} {self.options}")
        return f"{POSTGRES_URL.rpartition('/')[0]}/{self.name}"

    def __exit__(self, *exc: object) -> None:
        self._execute(f"DROP DATABASE {self.name} WITH (FORCE)")

    def _execute(self, statement: str) -> None:
        with psycopg.connect(POSTGRES_URL, autocommit=True) as connection:
            connection.execute(statement)


def migrate(url: str) -> None:
    """Bring the database up to date."""
    database = open_database(make_settings(database_url=url))
    migrations.upgrade(database)
    database.close_all()


@pytest.fixture(params=ENGINES)
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a new database that no migration has seen."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'test.db'}"
        return
    if not POSTGRES_URL:
        pytest.skip("TEST_POSTGRES_URL is not set")
    with scratch_postgres() as url:
        yield url


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of all that runs: processes find no `.env` of ours there and write nothing here."""
    return copy_tree(tmp_path_factory.mktemp("tree"))


def copy_tree(folder: Path) -> Path:
    """Copy all that runs into the folder, and return it."""
    for name in ("backend", "config", "migrations"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy2(ROOT / "wsgi.py", folder)
    return folder


def process_environ(**values: object) -> dict[str, str]:
    """Return the environment of a production process, with settings as for `make_app`.

    None removes a setting.
    """
    values = {"secret_key": secrets.token_urlsafe(48), **values}
    given = {name.upper(): str(text) for name, text in values.items() if text is not None}
    return {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"} | given


def run(
    tree: Path,
    program: str,
    *arguments: str,
    stdin: str = "",
    seconds: float = 60,
    **values: object,
) -> subprocess.CompletedProcess[str]:
    """Run `python`, `flask` or `gunicorn` in the tree to completion, in production."""
    return subprocess.run(
        [Path(sys.executable).parent / program, *arguments],
        cwd=tree,
        env=process_environ(**values),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def until(condition: Callable[[], Any], seconds: float = 30) -> Any:
    """Return the first true value of the condition; fail the test if none comes in time."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
    return value


@pytest.fixture
def redis_url() -> str:
    """The URL of a Redis. Use unique names for what you write there, and let it expire."""
    if not REDIS_URL:
        pytest.skip("TEST_REDIS_URL is not set")
    return REDIS_URL


@pytest.fixture
def make_app(fresh_database: Callable[[], str]) -> Iterator[Callable[..., Flask]]:
    """A function that builds an app with given settings, by default on this test's database.

    `make_app(bcrypt_rounds=5)`; a second app on the same database: `database_url=url_of(app)`.
    """
    made: list[Flask] = []

    def make(**values: object) -> Flask:
        values.setdefault("database_url", None)
        if values["database_url"] is None:
            values["database_url"] = fresh_database()
        made.append(create_app(make_settings(**values)))
        return made[-1]

    yield make
    for app in made:
        close(app)


@pytest.fixture
def app_on() -> Iterator[Callable[..., Flask]]:
    """A function that builds an app on the database of a URL: `app_on(url, threads=4)`."""
    made: list[Flask] = []

    def make(url: str, **values: object) -> Flask:
        made.append(create_app(make_settings(database_url=url, **values)))
        return made[-1]

    yield make
    for app in made:
        close(app)


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:
    """An app with a test's settings, on an empty database."""
    return make_app()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A client of `app` without credentials. Each answer is checked against the documentation."""
    return client_of(app)


@pytest.fixture(scope="session")
def make_bare_app(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Flask]:
    """Like make_app, with a database that cannot be opened: for tests without one, run once."""
    folder = tmp_path_factory.mktemp("bare") / "missing"

    def make(**values: object) -> Flask:
        values.setdefault("database_url", f"sqlite:///{folder}/backend.db")
        return create_app(make_settings(**values))

    return make


@pytest.fixture(scope="session")
def bare(make_bare_app: Callable[..., Flask]) -> FlaskClient:
    """A client of an app without a database. Each answer is checked against the documentation."""
    return client_of(make_bare_app())


def client_of(app: Flask) -> FlaskClient:
    """Return a client of the app. Each answer is checked against the documentation."""
    app.test_client_class = DocumentedClient
    return app.test_client()


def close(app: Flask) -> None:
    """End the app's threads, then its connections: a thread that still uses one would crash."""
    service = service_of(app)
    for lane in (service.tasks, service.lookups, service.sender):
        lane.close()
    service.periodic_tasks.stop()  # no test looks at what remains to be done
    service.database.close_all()


def service_of(app: Flask) -> Services:
    """Return the service inside the app."""
    return app.extensions["backend"]


def url_of(app: Flask) -> str:
    """Return the URL of the app's database."""
    return service_of(app).settings.database_url


@contextmanager
def statements(app: Flask) -> Iterator[list[str]]:
    """Collect the SQL that this thread runs on the app's database during the block."""
    database, thread, ran = service_of(app).database, threading.get_ident(), []

    def hook(event: Any) -> None:
        if threading.get_ident() == thread:
            ran.append(event.sql)

    database.query_hooks.append(hook)
    yield ran
    database.query_hooks.remove(hook)


class DocumentedClient(FlaskClient):
    """Fails the test on a 5xx that is not documented, or an undocumented error code.

    It also fails on an answer that shows an internal column or a hash (ASVS 5.0 8.2.3).
    """

    def open(self, *args: Any, **kwargs: Any) -> TestResponse:
        response = super().open(*args, **kwargs)
        assert response.status_code != 500, response.text
        if response.mimetype == "application/json":
            assert not INTERNAL.search(response.text), response.text
        is_problem = response.mimetype == "application/problem+json"
        if response.status_code >= 400 and is_problem and response.data:  # HEAD has none
            rules = self.application.url_map.bind("localhost")
            path, method = response.request.path, response.request.method
            if response.json["code"] not in {"not_found", "method_not_allowed", "bad_request"}:
                endpoint, found = rules.match(path, method)
                view = self.application.view_functions[endpoint]
                assert response.json["code"] in openapi.codes_of(view, has_id=bool(found))
        return response


@dataclass(frozen=True)
class Person:
    """A user who is signed in. `get`, `post`, `patch`, `delete` send the access token."""

    client: FlaskClient
    id: str
    username: str
    access_token: str
    refresh_token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.access_token}"}

    def get(self, path: str, **kwargs: Any) -> TestResponse:
        return self.client.get(path, headers=self.headers, **kwargs)

    def post(self, path: str, json: Any = None, **kwargs: Any) -> TestResponse:
        return self.client.post(path, headers=self.headers, json=json, **kwargs)

    def patch(self, path: str, json: Any, **kwargs: Any) -> TestResponse:
        return self.client.patch(path, headers=self.headers, json=json, **kwargs)

    def delete(self, path: str, **kwargs: Any) -> TestResponse:
        return self.client.delete(path, headers=self.headers, **kwargs)

    def new_key(self, **wanted: Any) -> dict[str, Any]:
        """Create a key of this person and return the answer; its text is `["key"]`."""
        response = self.post("/v1/api-keys", {"name": "test", **wanted})
        assert response.status_code == 201, response.json
        return response.json

    def with_key(self, key: dict[str, Any]) -> Person:
        """Return the same person, sending this key in place of the access token."""
        return replace(self, access_token=key["key"])

    def again(self) -> Person:
        """Sign the same person in again."""
        return sign_in(self.client, self.username)


def sign_in(client: FlaskClient, username: str, password: str = PASSWORD) -> Person:
    """Sign in, and return the person."""
    response = client.post("/v1/auth/login", json={"username": username, "password": password})
    assert response.status_code == 200, response.json
    body = response.json
    return Person(client, body["user"]["id"], username, body["access_token"], body["refresh_token"])


def add_user(client: FlaskClient, username: str, **account: Any) -> None:
    """Create an account as the console would, with PASSWORD unless another one is given."""
    account = {"email": f"{username}@example.com", "password": PASSWORD, **account}
    service = service_of(client.application)
    with service.active():
        users.create(CONSOLE, username=username, **account)
        service.database.close()


@pytest.fixture
def root(client: FlaskClient) -> Person:
    """The one administrator, signed in."""
    add_user(client, "root", role="admin")
    return sign_in(client, "root")


@pytest.fixture
def alice(client: FlaskClient) -> Person:
    """A user, signed in."""
    add_user(client, "alice")
    return sign_in(client, "alice")


@pytest.fixture
def bob(client: FlaskClient) -> Person:
    """Another user, signed in."""
    add_user(client, "bob")
    return sign_in(client, "bob")


@contextmanager
def serving_an_admin(folder: Path, port: int = 0, **settings: object) -> Iterator[int]:
    """Serve an app with an administrator called admin, with PASSWORD; yield the port."""
    url = f"sqlite:///{folder}/served.db"
    migrate(url)
    app = create_app(make_settings(database_url=url, **settings))
    add_user(client_of(app), "admin", role="admin")
    server = create_server(app, host="127.0.0.1", port=port, threads=2)
    threading.Thread(target=server.run, daemon=True).start()
    yield server.effective_port
    server.trigger.pull_trigger(server.close)


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """The URL of a service with an administrator called admin, with PASSWORD."""
    with serving_an_admin(tmp_path) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def logged() -> Iterator[Callable[[], list[str]]]:
    """A function that returns the lines logged at DEBUG since the test began."""
    named = [each for each in logging.root.manager.loggerDict.values() if hasattr(each, "level")]
    levels = {logger: logger.level for logger in (logging.root, *named)}
    others, console = logging.root.handlers[:], io.StringIO()
    logging.root.handlers.clear()  # they belong to pytest, and would be closed
    logs.configure(make_settings(log_level="DEBUG"), console)
    [ours] = logging.root.handlers
    logging.root.handlers[:0] = others
    yield lambda: console.getvalue().split("\n")[:-1]
    logging.root.removeHandler(ours)
    for logger, level in levels.items():
        logger.setLevel(level)


@pytest.fixture
def audit_refused(app: Flask) -> Iterator[None]:
    """The database refuses every audit event."""
    database = service_of(app).database
    when = "CREATE TRIGGER refuse BEFORE INSERT ON audit_events"
    if "sqlite" in type(database).__name__.lower():
        database.execute_sql(f"{when} BEGIN SELECT RAISE(ABORT, 'full'); END")
        undo = "DROP TRIGGER refuse"
    else:
        database.execute_sql(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql"
            " AS 'BEGIN RAISE EXCEPTION ''full''; END'"
        )
        database.execute_sql(f"{when} FOR EACH ROW EXECUTE FUNCTION refuse()")
        undo = "DROP FUNCTION refuse CASCADE"
    release(database)
    yield
    release(database)
    database.execute_sql(undo)
    release(database)


@pytest.fixture
def travel(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that moves the clock: travel(days=8), travel(seconds=-600)."""

    def move(**duration: float) -> None:
        monkeypatch.setattr(clock, "shift", clock.shift + timedelta(**duration))

    return move


def operations(client: FlaskClient) -> list[tuple[str, str, dict[str, Any]]]:
    """Return (method, path, operation) of all that is documented; ids in paths are NOTHING."""
    return [
        (method.upper(), re.sub(r"{\w+}", NOTHING, path), operation)
        for path, item in client.get("/v1/openapi.json").json["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
    ]


def example_of(operation: dict[str, Any]) -> dict[str, Any] | None:
    """Return the example of the JSON body that an operation takes, or None."""
    content = operation.get("requestBody", {}).get("content", {})
    return content.get("application/json", {}).get("example")


def code_of(secret: str, steps: int = 0) -> str:
    """Return what an authenticator app with the secret shows, `steps` steps of 30 s from now."""
    return pyotp.TOTP(secret).at(clock.timestamp() + 30 * steps)


def enrol(person: Person) -> tuple[str, list[str]]:
    """Set up a second factor, using up the present code; return (secret, recovery codes)."""
    secret = person.post("/v1/auth/mfa", {"current_password": PASSWORD}).json["secret"]
    response = person.post("/v1/auth/mfa/confirm", {"code": code_of(secret)})
    assert response.status_code == 200, response.json
    return secret, response.json["recovery_codes"]


def refresh(client: FlaskClient, token: str) -> TestResponse:
    """Exchange a refresh token, and return the answer."""
    return client.post("/v1/auth/refresh", json={"refresh_token": token})


def by_token(token: str) -> dict[str, str]:
    """Return the header that presents an access token."""
    return {"Authorization": f"Bearer {token}"}


def by_key(key: str) -> dict[str, str]:
    """Return the header that presents an API key."""
    return {"X-API-Key": key}


def assert_problem(response: TestResponse, status: int, code: str, *fields: str) -> None:
    """Check that the response is a problem document of this status, code and fields.

    Fields are written `json.email`.
    """
    assert (response.status_code, response.json.get("code")) == (status, code), response.json
    assert response.content_type == "application/problem+json"
    assert response.json["status"] == status
    assert response.json["request_id"] == response.headers["X-Request-ID"]
    found = {
        f"{place}.{name}"
        for place, names in response.json.get("errors", {}).items()
        for name in names
    }
    assert found == set(fields), response.json


class Relay:
    """A TCP relay in front of a server, which can be frozen, slowed and cut."""

    def __init__(self, host: str, port: int, own_port: int = 0) -> None:
        self._target = (host, port)
        self._flowing = threading.Event()
        self._flowing.set()
        self._ends: list[socket.socket] = []
        self._is_cut = False
        self._lock = threading.Lock()  # no connection is made while all are being ended
        self.delay = 0.0  # seconds before each piece is passed on
        self._listener = socket.create_server(("127.0.0.1", own_port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self) -> None:
        """Accept data, and pass nothing on."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Pass on what has arrived meanwhile, and all that follows."""
        self._flowing.set()

    def cut(self) -> None:
        """End all connections, and each new one immediately, until `mend` is called."""
        with self._lock:
            self._is_cut = True
            for end in self._ends:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            self._ends.clear()

    def mend(self) -> None:
        """Accept connections again."""
        self._is_cut = False

    def close(self) -> None:
        """Accept no further connections."""
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                with self._lock:
                    if self._is_cut:
                        client.close()
                        continue
                    server = socket.create_connection(self._target)
                    self._ends += [client, server]
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=ends, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError), source, sink:
            while data := source.recv(65536):
                time.sleep(self.delay)
                self._flowing.wait()
                sink.sendall(data)


def mails_of(client: FlaskClient) -> list[EmailMessage]:
    """Return all mail that the client's app has sent so far, in order."""
    settle(client.application)
    return list(service_of(client.application).mailer.outbox)


def settle(app: Flask) -> None:
    """Wait until all that requests started is done: jobs, look-ups, mail that is due."""
    service = service_of(app)
    assert all(lane.join(30) for lane in (service.tasks, service.lookups, service.sender))


def token_in(message: EmailMessage) -> str:
    """Return the token of the only link in a mail."""
    text = message.get_body(("plain",)).get_content()
    [token] = re.findall(r"#token=(\S+)", text)
    return token
