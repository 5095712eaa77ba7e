"""PostgreSQL as it is set up elsewhere, and one that falls silent: refusals, and healing."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from flask import Flask

from backend.app import create_app
from backend.db.database import current, release, require_usable

from .support.apps import client_of, service_of
from .support.commands import assert_done, assert_refused, flask_of
from .support.concurrency import until
from .support.databases import NEEDS_POSTGRES, migrate, scratch_postgres
from .support.people import PASSWORD, add_user, by_key, sign_in
from .support.problems import assert_problem
from .support.processes import run
from .support.relay import Relay
from .support.settings import make_settings
from .support.tokens import refresh


@contextmanager
def database_of(options: str = "", *statements: str) -> Iterator[str]:
    """The URL of a database made with these options, after these statements on DATABASE."""
    with scratch_postgres(options) as url:
        name = url.rpartition("/")[2]
        with psycopg.connect(url, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.replace("DATABASE", f"DATABASE {name}"))
        yield url


DEFAULTS = {
    "datestyle": ["'SQL, DMY'", "German", "'Postgres, MDY'"],
    "intervalstyle": ["sql_standard"],
    "timezone": ["'Asia/Kathmandu'"],
    "standard_conforming_strings": ["off"],
    "bytea_output": ["escape"],
    "client_encoding": ["LATIN1", "SQL_ASCII"],
    "default_transaction_isolation": ["serializable", "'repeatable read'"],
}


@NEEDS_POSTGRES
@pytest.mark.parametrize(
    ("setting", "value"), [(name, each) for name, values in DEFAULTS.items() for each in values]
)
def test_the_defaults_of_a_database_change_nothing_for_the_service(
    setting: str, value: str, app_on: Callable[..., Flask]
) -> None:
    with database_of("", f"ALTER DATABASE SET {setting} TO {value}") as url:
        migrate(url)
        app = app_on(url)
        client = client_of(app)
        add_user(client, "root", role="admin")
        root = sign_in(client, "root")
        key = root.new_key(name="日本語 \\ 'é'", expires_in_days=1)
        assert root.get("/v1/api-keys?search=本").json["items"][0]["name"] == key["name"]
        assert root.get("/v1/api-keys?search=\\").json["items"][0]["name"] == key["name"]
        assert client.get("/v1/auth/me", headers=by_key(key["key"])).status_code == 200
        assert refresh(client, root.refresh_token).status_code == 200
        assert len(root.get("/v1/audit-events").json["items"]) >= 2
        with service_of(app).active():
            isolation = current.execute_sql("SHOW transaction_isolation").fetchone()
            release(service_of(app).database)
        assert isolation == ("read committed",)
        assert flask_of(app)("audit", "verify").exit_code == 0
        assert_done(flask_of(app)("db", "verify"), "The database is sound.")


@pytest.mark.slow
@NEEDS_POSTGRES
@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_of_another_encoding_is_refused_at_start_by_db_upgrade_and_by_doctor(
    encoding: str, app_on: Callable[..., Flask], tree: Path, logged: Callable[[], list[str]]
) -> None:
    options = f"ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
    sentence = (
        f"server_encoding is {encoding}, but the service needs UTF8:"
        " create a database with ENCODING 'UTF8' TEMPLATE template0."
    )
    with database_of(options) as url:
        app = app_on(url)
        assert_refused(flask_of(app)("db", "upgrade"), sentence)
        told = flask_of(app)("doctor")
        assert (told.exit_code, told.stderr) == (1, f"fatal: DATABASE_URL: {sentence}\n")
        assert_problem(client_of(app).get("/readyz"), 503, "unavailable")
        assert [line for line in logged() if sentence in line]
        started = run(tree, "python", "wsgi.py", database_url=url)
        assert started.returncode == 4, started
        assert f"DATABASE_URL: {sentence}" in started.stderr


@NEEDS_POSTGRES
def test_a_session_that_options_in_the_url_spoil_is_refused_in_a_sentence(
    app_on: Callable[..., Flask],
) -> None:
    with database_of() as url:
        told = flask_of(app_on(f"{url}?options=-cdatestyle%3DSQL"))("doctor")
        assert told.stderr.startswith("fatal: DATABASE_URL: DateStyle is SQL, MDY, but the service")


@NEEDS_POSTGRES
def test_doctor_warns_of_a_database_whose_locale_folds_no_case_beyond_ascii(
    app_on: Callable[..., Flask],
) -> None:
    with database_of("ENCODING 'UTF8' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'") as url:
        migrate(url)
        told = flask_of(app_on(url))("doctor")
        assert told.exit_code == 0
        assert (
            "warning: LC_CTYPE ignores case only for a to z, and so does `?search=`" in told.stdout
        )


@NEEDS_POSTGRES
def test_options_in_the_url_choose_the_schema(app_on: Callable[..., Flask]) -> None:
    with database_of("", "CREATE SCHEMA mine", "CREATE TABLE users (id int)") as url:
        app = app_on(f"{url}?options=-csearch_path%3Dmine")
        assert flask_of(app)("db", "upgrade").exit_code == 0
        client = client_of(app)
        add_user(client, "alice")
        assert sign_in(client, "alice").get("/v1/auth/me").status_code == 200
        assert client.get("/readyz").status_code == 200
        assert_done(flask_of(app)("db", "verify"), "The database is sound.")
        assert_done(flask_of(app)("doctor"), "0 warnings, nothing fatal.")


def test_a_database_that_is_down_does_not_keep_the_service_from_starting(
    app_on: Callable[..., Flask],
) -> None:
    require_usable(service_of(app_on("postgresql://nobody@127.0.0.1:1/nowhere")).database)


@pytest.fixture
def stranger(postgres_url: str) -> Iterator[str]:
    """A role of this test, which may do no more than sign in."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN")
        yield name
        connection.execute(f"DROP ROLE {name}")


def test_a_role_without_privileges_is_told_so_in_a_sentence(
    stranger: str, app_on: Callable[..., Flask], logged: Callable[[], list[str]]
) -> None:
    with database_of("", "REVOKE ALL ON SCHEMA public FROM PUBLIC") as url:
        app = app_on(f"{url}?user={stranger}")
        refused = flask_of(app)("db", "upgrade")
        assert isinstance(refused.exception, SystemExit), repr(refused.exception)
        assert refused.stderr.startswith("Error: the database refuses: no schema has been selected")
        assert logged() == []
    with database_of("", "REVOKE CREATE ON SCHEMA public FROM PUBLIC") as url:
        app = app_on(f"{url}?user={stranger}")
        sentence = (
            "the database refuses: permission denied for schema public;"
            " check the role of DATABASE_URL"
        )
        assert_refused(flask_of(app)("db", "upgrade"), sentence)
        assert logged() == []
        migrate(url)
        denied = "the database refuses: permission denied for table migratehistory"
        told = flask_of(app)("doctor")
        assert told.stderr.startswith(f"fatal: DATABASE_URL: {denied}")
        login = {"username": "alice", "password": PASSWORD}
        assert_problem(client_of(app).post("/v1/auth/login", json=login), 503, "unavailable")
        assert [line for line in logged() if "permission denied for table" in line]


@NEEDS_POSTGRES
def test_a_database_that_takes_no_writes_is_told_503(
    app_on: Callable[..., Flask], logged: Callable[[], list[str]]
) -> None:
    with database_of() as url:
        migrate(url)
        with psycopg.connect(url, autocommit=True) as connection:
            name = connection.info.dbname
            connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        login = {"username": "alice", "password": PASSWORD}
        refused = client_of(app_on(url)).post("/v1/auth/login", json=login)
        assert_problem(refused, 503, "unavailable")
        assert [line for line in logged() if "read-only transaction" in line]


@pytest.fixture
def relayed(postgres_url: str) -> Iterator[tuple[Flask, Relay]]:
    """An app whose way to PostgreSQL leads through a relay."""
    with scratch_postgres() as direct:
        migrate(direct)
        url = urlsplit(direct)
        relay = Relay(url.hostname or "127.0.0.1", url.port or 5432)
        credentials = url.netloc.rpartition("@")[0]
        through = f"postgresql://{credentials}@127.0.0.1:{relay.port}{url.path}"
        app = create_app(make_settings(database_url=through, database_timeout=1, threads=4))
        yield app, relay
        relay.thaw()
        service_of(app).database.close_all()
        relay.close()


def test_a_frozen_database_is_told_in_bounded_time_and_heals(
    relayed: tuple[Flask, Relay],
) -> None:
    app, relay = relayed
    client = client_of(app)
    add_user(client, "alice")
    alice = sign_in(client, "alice")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: alice.get("/v1/auth/me"), range(8)))  # fills the pool

        relay.freeze()
        started = time.monotonic()
        answers = list(
            pool.map(lambda _: client_of(app).get("/v1/auth/me", headers=alice.headers), range(16))
        )
        assert time.monotonic() - started < 8
        assert {answer.status_code for answer in answers} == {503}
        assert answers[0].headers["Retry-After"]
        assert client.get("/healthz").status_code == 200

    relay.thaw()
    until(lambda: alice.get("/v1/auth/me").status_code == 200)
