"""The fixtures: a client, and Alice, Bob and Root who use it, on both databases.

Every test that asks for `client` (or for one of them) runs on SQLite, and again on PostgreSQL if
TEST_POSTGRES_URL names a server on which databases may be created; tests of Redis run if
TEST_REDIS_URL names one. Otherwise these are not collected, and a line at the end counts them. With
CI=true both must be set.
"""

from __future__ import annotations

import gc
import io
import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from aiosmtpd.controller import Controller
from flask import Flask
from flask.testing import FlaskClient

from backend.app import create_app
from backend.core import clock, logs
from backend.db import migrations
from backend.db.database import release
from backend.services import Services

pytest.register_assert_rewrite("tests.support")  # before it is imported

from .support.apps import client_of, close, service_of
from .support.audit import SECRET, assert_clean, record_some, seal
from .support.certificates import self_signed
from .support.commands import Flasks, flask_of
from .support.databases import ENGINES, MEMORY, POSTGRES_URL, REDIS_URL, migrate, scratch_postgres
from .support.long_runs import FULL, Site
from .support.mail import Inbox
from .support.people import Person, add_user, sign_in
from .support.processes import copy_tree
from .support.servers import Server, serving_an_admin
from .support.settings import make_settings

# Servers under test are sent it, even if the tests themselves run under nohup.
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

if os.environ.get("CI") == "true" and not (POSTGRES_URL and REDIS_URL):
    raise pytest.UsageError("CI=true: set TEST_POSTGRES_URL and TEST_REDIS_URL, no test is skipped")


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
    with scratch_postgres() as url:
        migrate(url)
        yield url


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

    tables = ", ".join(model._meta.table_name for model in migrations.models())

    def empty() -> str:
        with psycopg.connect(template) as connection:
            connection.execute(f"TRUNCATE {tables} CASCADE")
        return template

    yield empty


@pytest.fixture(params=ENGINES)
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a new database that no migration has seen."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'test.db'}"
        return
    with scratch_postgres() as url:
        yield url


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of all that runs: processes find no `.env` of ours there and write nothing here."""
    return copy_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture
def postgres_url() -> str:
    """The URL of a PostgreSQL server on which databases may be created."""
    return POSTGRES_URL


@pytest.fixture
def redis_url() -> str:
    """The URL of a Redis. Use unique names for what you write there, and let it expire."""
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


@pytest.fixture
def inbox() -> Inbox:
    """What the server of this test has taken."""
    return Inbox()


@pytest.fixture
def smtp(inbox: Inbox) -> Iterator[Callable[..., int]]:
    """A function that starts an SMTP server on this machine, at a port or any; its port."""
    started: list[Controller] = []

    def start(port: int = 0, **options: Any) -> int:
        with socket.create_server(("127.0.0.1", port)) as probe:
            port = probe.getsockname()[1]
        started.append(Controller(inbox, hostname="127.0.0.1", port=port, **options))
        started[-1].start()
        return port

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def site_on(app_on: Callable[..., Any], tree: Path) -> Iterator[Callable[..., Site]]:
    """A function that starts server processes on the database of a URL, with the settings given.

    `site_on(url, "waitress", 2, bcrypt_rounds=10)` returns two, and a client of a third application
    on the database, in this process: for what an attack or a fault leaves there. `first` has
    settings of the first process alone.
    """
    started: list[Server] = []

    def make(
        url: str,
        kind: str = "waitress",
        processes: int = 1,
        *,
        first: dict[str, Any] | None = None,
        **settings: Any,
    ) -> Site:
        settings = {
            "secret_key": secrets.token_urlsafe(48),
            "public_url": "http://127.0.0.1:8000",
            "mail_url": "memory:",
            "bcrypt_rounds": 10,
            **settings,
        }
        client = client_of(app_on(url, **settings))
        each = {"database_url": url, **settings}
        own = [first or {}] + [{}] * (processes - 1)
        servers = [Server(kind, tree, Path(logs), **each | more) for more in own]
        started.extend(servers)
        return client, [server.wait_until_it_serves() for server in servers]

    # In memory: a line of the log waits for a disk that others keep busy, and all with it.
    with tempfile.TemporaryDirectory(dir=MEMORY) as logs:
        yield make
        for server in started:
            server.end()


@pytest.fixture
def make_site(
    fresh_database: Callable[[], str], site_on: Callable[..., Site]
) -> Callable[..., Site]:
    """As site_on, on an empty database."""
    return lambda *args, **settings: site_on(fresh_database(), *args, **settings)


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """A function that puts a line into the table at the end: figure("p99", "31 ms")."""

    def note(what: str, found: str) -> None:
        request.node.user_properties.append((what, found))

    return note


@pytest.fixture
def service(make_app: Callable[..., Flask]) -> Services:
    """A service on an empty database."""
    return service_of(make_app(secret_key=SECRET))


@pytest.fixture
def sealed(service: Services) -> Services:
    """The service, with five sealed events."""
    record_some(service)
    seal(service)
    assert_clean(service, 5)
    return service


@pytest.fixture
def with_secret(service: Services, make_app: Callable[..., Flask]) -> Callable[..., Flask]:
    """A function that gives another app on the same database, with other secrets."""

    def make(secret: str, fallbacks: str = "") -> Flask:
        url = service.settings.database_url
        return make_app(database_url=url, secret_key=secret, secret_key_fallbacks=fallbacks)

    return make


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 and 0.0.0.0, by itself, and its key, in one file."""
    return self_signed(tmp_path_factory.mktemp("certificate") / "mail.pem")


@pytest.fixture
def stored_hash() -> Callable[[Flask], str]:
    """A function that reads the one password hash of an app's database."""

    def read(app: Flask) -> str:
        database = app.extensions["backend"].database
        [(text,)] = database.execute_sql("SELECT password_hash FROM users").fetchall()
        database.close()
        return str(text)

    return read


LEFT_OUT = pytest.StashKey[dict[str, int]]()


@pytest.hookimpl(trylast=True)  # counts what -k and -m have selected
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that need a server of which there is no URL."""
    fixtures = {"postgres_url": "TEST_POSTGRES_URL", "redis_url": "TEST_REDIS_URL"}
    missing = {}
    for item in items:
        needed = {name for fixture, name in fixtures.items() if fixture in item.fixturenames}
        needed |= {name for mark in item.iter_markers("needs") for name in mark.args}
        missing[item] = {name for name in needed if not os.environ.get(name)}
    config.stash[LEFT_OUT] = Counter(name for names in missing.values() for name in names)
    items[:] = [item for item in items if not missing[item]]
    config.hook.pytest_deselected(items=[item for item, names in missing.items() if names])


def pytest_collection_finish() -> None:
    """Keep the garbage collector from walking through all tests again and again."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the controller of pytest-xdist what its workers have left out, and end quietly."""
    logging.root.addHandler(logging.NullHandler())  # apps whose database is gone would say so
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = dict(session.config.stash[LEFT_OUT])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Hear what a worker has left out; all of them collect the same."""
    node.config.stash[LEFT_OUT] = getattr(node, "workeroutput", {}).get("left_out", {})


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print how many tests were left out, and the table of what was measured."""
    for name, count in sorted(config.stash.get(LEFT_OUT, {}).items()):
        terminalreporter.write_line(f"{count:,} tests need {name}, which is not set")
    reports = [
        report
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, [])
        if report.when == "call" and report.user_properties
    ]
    if reports:
        form = "full" if FULL else "short"
        terminalreporter.section(f"measured, {form} form, on {os.cpu_count()} cores")
    for report in reports:
        terminalreporter.write_line(report.nodeid.rpartition("::")[2])
        for what, found in report.user_properties:
            terminalreporter.write_line(f"    {what:<44} {found}")


@pytest.fixture
def flask(app: Flask) -> Flasks:
    """The `flask` command for `app`."""
    return flask_of(app)


@pytest.fixture
def migrated(tmp_path: Path) -> str:
    """The URL of a migrated SQLite database, for processes."""
    url = f"sqlite:///{tmp_path / 'test.db'}"
    migrate(url)
    return url
