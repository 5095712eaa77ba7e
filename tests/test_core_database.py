"""The database: ids, times, transactions, connections, and what is written behind."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import peewee as pw
import psycopg
import pytest
from flask import Flask

from backend.background.write_behind import WriteBehind
from backend.core import clock
from backend.db import migrations
from backend.db.database import current, new_id, release
from backend.services import Services
from backend.users.models import User

from .support.apps import client_of, service_of, url_of
from .support.commands import flask_of
from .support.concurrency import until
from .support.databases import migrate, scratch_postgres
from .support.people import PASSWORD, Person, add_user, by_key, sign_in
from .support.problems import assert_problem
from .support.processes import run


@pytest.fixture
def service(app: Flask) -> Iterator[Services]:
    """The service of `app`; the test runs as part of it."""
    service = service_of(app)
    with service.active():
        yield service
        release(service.database)


@pytest.fixture
def sqlite_app(app_on: Callable[..., Flask], tmp_path: Path) -> Flask:
    """An app on a SQLite file."""
    url = f"sqlite:///{tmp_path / 'test.db'}"
    migrate(url)
    return app_on(url)


@pytest.fixture
def new_york(postgres_url: str) -> Iterator[str]:
    """The URL of a PostgreSQL database of its own, whose sessions begin in New York."""
    with scratch_postgres() as url:
        migrate(url)
        with psycopg.connect(url, autocommit=True) as connection:
            name = connection.info.dbname
            connection.execute(f"ALTER DATABASE {name} SET timezone TO 'America/New_York'")
        yield url


@pytest.fixture
def postgres_app(new_york: str, app_on: Callable[..., Flask]) -> Flask:
    """An app on that database."""
    return app_on(new_york)


def new_user(name: str, **values: Any) -> User:
    """A row of the users table."""
    return User.create(username=name, username_folded=name, role="user", kind="person", **values)


# --- ids ---


def test_an_id_is_a_uuid_of_version_7_that_tells_its_time() -> None:
    before = time.time()
    made = new_id()
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert before - 0.001 <= (made.int >> 80) / 1000 <= time.time()
    assert len({new_id().int & (1 << 62) - 1 for _ in range(1000)}) == 1000


def test_ids_are_in_the_order_in_which_they_were_made_also_across_threads() -> None:
    made: list[list[uuid.UUID]] = [[] for _ in range(4)]
    barrier = threading.Barrier(4)

    def make(mine: list[uuid.UUID]) -> None:
        barrier.wait()
        for _ in range(2000):
            mine.append(new_id())

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(make, made))
    for mine in made:
        assert mine == sorted(mine)
    times = [each.int >> 64 for mine in made for each in mine]
    assert len(set(times)) == 8000
    assert new_id() > max(each for mine in made for each in mine)


def test_ids_stay_in_order_when_the_clock_is_set_back_a_little(
    travel: Callable[..., None],
) -> None:
    first = new_id()
    travel(seconds=-2)
    second = new_id()
    assert second > first
    travel(days=-2)
    assert new_id() < first  # a clock that was badly wrong does not spoil all later ids


# --- times ---

MOMENT = datetime(2026, 11, 23, 10, 30, 15, 123456, tzinfo=UTC)
ABROAD = MOMENT.astimezone(timezone(timedelta(hours=5, minutes=30)))


def test_a_time_comes_back_as_the_same_instant_in_utc(service: Services) -> None:
    for given in (MOMENT, ABROAD):
        row = new_user(f"at-{given.hour}", created_at=given)
        found = User.get_by_id(row.id)
        assert found.created_at == MOMENT
        assert found.created_at.utcoffset() == timedelta(0)
        assert found.last_login_at is None
    assert User.select().where(User.created_at == ABROAD).count() == 2
    assert User.select().where(User.created_at < ABROAD).count() == 0


def test_times_of_different_zones_sort_as_instants(service: Services) -> None:
    later = (MOMENT + timedelta(minutes=1)).astimezone(timezone(timedelta(hours=-8)))
    new_user("second", created_at=later)
    new_user("first", created_at=ABROAD)
    new_user("third", created_at=later.replace(microsecond=0) + timedelta(seconds=1))
    found = [user.username for user in User.select().order_by(User.created_at)]
    assert found == ["first", "second", "third"]


def test_a_time_without_a_zone_is_refused(service: Services) -> None:
    with pytest.raises(ValueError, match="without a time zone"):
        new_user("naive", created_at=MOMENT.replace(tzinfo=None))
    assert User.select().count() == 0


def test_times_are_right_whatever_zone_postgresql_speaks(postgres_app: Flask) -> None:
    service = service_of(postgres_app)
    with service.active():
        assert current.execute_sql("SHOW timezone").fetchone() == ("UTC",)
        row = new_user("ours", created_at=MOMENT)
        current.execute_sql("SET timezone TO 'America/New_York'")
        other = new_user("theirs", created_at=ABROAD, last_login_at=MOMENT)
        found = [User.get_by_id(each.id).created_at for each in (row, other)]
        assert found == [MOMENT, MOMENT]
        assert {each.utcoffset() for each in found} == {timedelta(0)}
        assert User.select().where(User.created_at == MOMENT).count() == 2
        release(service.database)
    with psycopg.connect(url_of(postgres_app)) as connection:
        stored = connection.execute("SELECT DISTINCT created_at AT TIME ZONE 'UTC' FROM users")
        assert stored.fetchall() == [(MOMENT.replace(tzinfo=None),)]


def test_now_is_aware_and_in_utc() -> None:
    assert clock.now().tzinfo is UTC
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(seconds=5)


# --- SQLite ---


def test_each_connection_to_sqlite_is_set_up_for_service(sqlite_app: Flask) -> None:
    database = service_of(sqlite_app).database

    def pragmas() -> dict[str, Any]:
        names = ("journal_mode", "foreign_keys", "busy_timeout", "synchronous")
        found = {name: database.execute_sql(f"PRAGMA {name}").fetchone()[0] for name in names}
        release(database)
        return found

    wanted = {"journal_mode": "wal", "foreign_keys": 1, "busy_timeout": 3000, "synchronous": 2}
    with ThreadPoolExecutor(2) as pool:
        assert [pool.submit(pragmas).result() for _ in range(2)] == [wanted, wanted]
    assert pragmas() == wanted


OPENERS = {
    "a request": lambda app: client_of(app).get("/readyz"),
    "a command": lambda app: flask_of(app)("users", "list"),
    "doctor": lambda app: flask_of(app)("doctor"),
    "db current": lambda app: flask_of(app)("db", "current"),
    "db verify": lambda app: flask_of(app)("db", "verify"),
    "db backup": lambda app: flask_of(app)("db", "backup", f"{url_of(app)[10:]}.copy"),
    "db upgrade": lambda app: flask_of(app)("db", "upgrade"),
}


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize("opener", OPENERS)
def test_only_its_owner_reads_a_sqlite_file_whoever_opens_it_first(
    opener: str, umask: int, app_on: Callable[..., Flask], tmp_path: Path
) -> None:
    app = app_on(f"sqlite:///{tmp_path / 'test.db'}")
    before = os.umask(umask)
    try:
        OPENERS[opener](app)
        migrations.upgrade(service_of(app).database)
        database = service_of(app).database
        with database.atomic():  # now there are -wal and -shm
            modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
        release(database)
    finally:
        os.umask(before)
    assert {"test.db", "test.db-wal", "test.db-shm", "test.db.migrate"} <= modes.keys()
    assert set(modes.values()) == {0o600}, modes


def test_transactions_that_read_and_then_write_wait_for_each_other(sqlite_app: Flask) -> None:
    database = service_of(sqlite_app).database
    database.execute_sql("CREATE TABLE counter (value INTEGER)")
    database.execute_sql("INSERT INTO counter VALUES (0)")
    release(database)
    barrier = threading.Barrier(4)

    def count() -> None:
        barrier.wait()
        for _ in range(100):
            with database.atomic():
                (value,) = database.execute_sql("SELECT value FROM counter").fetchone()
                database.execute_sql("UPDATE counter SET value = ?", (value + 1,))
            release(database)

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(count) for _ in range(4)]:
            done.result()
    assert database.execute_sql("SELECT value FROM counter").fetchone() == (400,)
    release(database)


# --- connections ---

FORK = """
import os
from backend.db.database import open_database
from backend.core.settings import Settings

database = open_database(Settings.load())
sqlite = Settings.load().database_url.startswith("sqlite:")


def who():
    if sqlite:
        return id(database.connection())
    return database.execute_sql("SELECT pg_backend_pid()").fetchone()[0]


mine = who()
kept = database.connection()
read, write = os.pipe()
child = os.fork()
if child == 0:
    closed = database.is_closed()
    os.write(write, f"{closed} {who() == mine}".encode())
    os._exit(0)
os.close(write)
os.waitpid(child, 0)
print(os.read(read, 100).decode(), who() == mine)
"""


@pytest.mark.slow
def test_a_forked_process_does_not_share_its_parents_connection(app: Flask, tree: Path) -> None:
    told = run(tree, "python", "-c", FORK, database_url=url_of(app))
    assert told.stdout == "True False True\n", told.stderr


def test_release_gives_up_what_a_transaction_left_open(service: Services) -> None:
    database = service.database
    open_transaction = database.atomic()
    open_transaction.__enter__()
    new_user("alice")
    release(database)
    assert database.is_closed()
    release(database)
    assert User.select().count() == 0
    with database.atomic():
        new_user("bob")
    release(database)
    assert [user.username for user in User.select()] == ["bob"]


def test_requests_hold_no_connection_when_they_are_over(alice: Person) -> None:
    database = service_of(alice.client.application).database
    for path in ("/v1/auth/me", "/v1/api-keys", "/v1/users", "/nowhere", "/readyz"):
        alice.get(path)
        assert database.is_closed()
    until(lambda: not database._in_use)  # by the thread that /readyz asked in


def test_nobody_waits_for_connections_that_do_not_come_back(make_app: Callable[..., Flask]) -> None:
    app = make_app(threads=3)  # and two connections, so that a thread is left
    client, service = client_of(app), service_of(app)
    add_user(client, "alice")
    alice = sign_in(client, "alice")
    held, over = threading.Barrier(3), threading.Event()

    def hold() -> None:
        with service.active():
            service.database.connect()
            held.wait(30)
            over.wait(30)
            release(service.database)

    with ThreadPoolExecutor(2) as pool:
        holding = [pool.submit(hold) for _ in range(2)]
        held.wait(30)
        assert_problem(alice.get("/v1/auth/me"), 503, "unavailable")  # who waited in vain
        began = time.monotonic()
        for _ in range(5):
            assert_problem(alice.get("/v1/auth/me"), 503, "unavailable")
        assert time.monotonic() - began < 2
        assert client.get("/healthz").status_code == 200
        over.set()
    assert [each.result() for each in holding] == [None, None]
    assert alice.get("/v1/auth/me").status_code == 200


def kill_connections(url: str) -> int:
    """Terminate the sessions of all other connections to the database; how many there were."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return len(cursor.fetchall())


def test_a_pool_whose_connections_were_all_cut_heals_by_itself(postgres_app: Flask) -> None:
    client = client_of(postgres_app)
    add_user(client, "alice")
    login = {"username": "alice", "password": PASSWORD}
    for _ in range(3):
        assert client.post("/v1/auth/login", json=login).status_code == 200
        assert kill_connections(url_of(postgres_app)) > 0
        first = client.post("/v1/auth/login", json=login)
        assert first.status_code in {200, 503}
        assert client.post("/v1/auth/login", json=login).status_code == 200
        assert client.get("/readyz").status_code == 200


def test_requests_that_are_cut_off_from_the_database_are_told_503_and_never_500(
    new_york: str, app_on: Callable[..., Flask]
) -> None:
    # An attempt is booked first: where the link is cut before that is taken back, it counts.
    postgres_app = app_on(new_york, login_attempts="100/300")
    add_user(client_of(postgres_app), "alice")
    login = {"username": "alice", "password": PASSWORD}
    over = threading.Event()

    def sign_in_and_on() -> set[int]:
        client = client_of(postgres_app)
        told = set()
        while not over.is_set():
            told.add(client.post("/v1/auth/login", json=login).status_code)
        return told

    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(sign_in_and_on) for _ in range(3)]
        cut = sum(kill_connections(url_of(postgres_app)) for _ in range(6))
        over.set()
        told = set().union(*[each.result() for each in asked])
    assert cut > 6
    assert told <= {200, 503}
    client = client_of(postgres_app)
    client.post("/v1/auth/login", json=login)
    assert client.post("/v1/auth/login", json=login).status_code == 200


def test_a_pool_that_is_empty_is_told_503(make_app: Callable[..., Flask]) -> None:
    app = make_app(database_pool_size=1, database_timeout=1)
    database = service_of(app).database
    database.connect()
    with ThreadPoolExecutor(1) as pool:
        login = {"username": "alice", "password": PASSWORD}
        ask = pool.submit(client_of(app).post, "/v1/auth/login", json=login)
        assert ask.result().status_code == 503
        release(database)
        ask = pool.submit(client_of(app).post, "/v1/auth/login", json=login)
        assert ask.result().status_code == 401


def test_a_connection_that_was_just_taken_is_waited_for_however_quiet_it_was_before(
    make_app: Callable[..., Flask],
) -> None:
    app = make_app(database_pool_size=1)
    database = service_of(app).database
    database.connect()
    release(database)
    database._moved_at -= 60  # a minute in which nobody came
    database.connect()
    with ThreadPoolExecutor(1) as pool:
        login = {"username": "alice", "password": PASSWORD}
        ask = pool.submit(client_of(app).post, "/v1/auth/login", json=login)
        while not (ask.done() or database._pool_available._waiters):
            pass
        release(database)
        assert ask.result().status_code == 401


def test_a_database_without_our_tables_is_told_503(
    empty_database: str, app_on: Callable[..., Flask]
) -> None:
    client = client_of(app_on(empty_database))
    login = {"username": "alice", "password": PASSWORD}
    assert_problem(client.post("/v1/auth/login", json=login), 503, "unavailable")
    assert_problem(client.get("/readyz"), 503, "unavailable")


PENDING = "migrations are pending: run `flask db upgrade`"


@pytest.mark.parametrize(
    "statement",
    ["DROP TABLE throttles", "ALTER TABLE users RENAME COLUMN email_folded TO other"],
    ids=["a table", "a column"],
)
def test_a_table_or_a_column_that_is_missing_is_503_and_the_log_and_the_console_name_the_remedy(
    statement: str, empty_database: str, app_on: Callable[..., Flask], logged: Any
) -> None:
    migrate(empty_database)
    app = app_on(empty_database)
    database = service_of(app).database
    database.execute_sql(statement)
    release(database)
    login = {"username": "alice@example.com", "password": PASSWORD}
    refused = client_of(app).post("/v1/auth/login", json=login)
    assert_problem(refused, 503, "unavailable")
    assert refused.headers["Retry-After"]
    missing = statement.split()[-3 if "COLUMN" in statement else -1]
    assert [line for line in logged() if PENDING in line and missing in line]
    if "COLUMN" in statement:
        assert_refused_because(flask_of(app)("users", "list"), PENDING, missing)


def assert_refused_because(told: Any, *words: str) -> None:
    """The command failed with one sentence that holds these words."""
    assert isinstance(told.exception, SystemExit), repr(told.exception)
    assert (told.exit_code, told.stdout) == (1, "")
    [sentence] = told.stderr.splitlines()
    for word in words:
        assert word in sentence


@pytest.mark.slow
def test_new_code_on_any_older_schema_answers_503_and_never_500(
    empty_database: str, app_on: Callable[..., Flask]
) -> None:
    migrate(empty_database)
    app = app_on(empty_database)
    client = client_of(app)
    add_user(client, "root", role="admin")
    root = sign_in(client, "root")
    key = root.new_key(scopes=["users:read"])["key"]
    login = {"username": "root", "password": PASSWORD}
    for target in migrations.known()[-2::-1]:
        migrations.downgrade(service_of(app).database, target)
        answers = [
            client.post("/v1/auth/login", json=login),
            client.post("/v1/auth/refresh", json={"refresh_token": root.refresh_token}),
            client.get("/v1/auth/me", headers=by_key(key)),
            root.post("/v1/api-keys", {"name": "new"}),
            root.post("/v1/api-keys/verify", {"key": key}),
            *[root.get(f"/v1/{path}") for path in ("auth/me", "api-keys", "users", "audit-events")],
        ]
        assert {each.status_code for each in answers} <= {200, 201, 503}, target
        assert_problem(client.get("/readyz"), 503, "unavailable")


def test_two_apps_in_one_process_use_two_databases(
    make_app: Callable[..., Flask], sqlite_app: Flask
) -> None:
    other = client_of(make_app())
    add_user(other, "alice")
    login = {"username": "alice", "password": PASSWORD}
    assert other.post("/v1/auth/login", json=login).status_code == 200
    assert client_of(sqlite_app).post("/v1/auth/login", json=login).status_code == 401


def test_opening_a_database_connects_to_nothing(app_on: Callable[..., Flask]) -> None:
    app = app_on("postgresql://nobody@127.0.0.1:1/nowhere")
    assert service_of(app).database.is_closed()
    client = client_of(app)
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == 503


# --- writing behind ---


class Written:
    """Where notes are written to: a list that refuses as long as `fault` is set."""

    def __init__(self) -> None:
        self.fault: Exception | None = None
        self.notes: list[dict[Any, Any]] = []

    def write(self, notes: dict[Any, Any]) -> None:
        if self.fault:
            raise self.fault
        self.notes.append(notes)


def test_the_newest_note_of_a_key_is_written_together_with_the_others() -> None:
    written = Written()
    gathered = WriteBehind(written.write)
    gathered.add("a", 1)
    gathered.add("b", 2)
    gathered.add("a", 3)
    assert written.notes == []
    gathered.flush()
    gathered.flush()
    assert written.notes == [{"a": 3, "b": 2}]


def test_notes_are_kept_while_the_database_is_down_and_newer_ones_win() -> None:
    written = Written()
    written.fault = pw.OperationalError("down")
    gathered = WriteBehind(written.write)
    gathered.add("a", 1)
    gathered.add("b", 2)
    with pytest.raises(pw.OperationalError):
        gathered.flush()
    gathered.add("a", 3)
    with pytest.raises(pw.OperationalError):
        gathered.flush()
    written.fault = None
    gathered.flush()
    assert written.notes == [{"a": 3, "b": 2}]


def test_notes_can_be_merged_also_with_those_kept_while_the_database_is_down() -> None:
    written = Written()
    gathered = WriteBehind(written.write, lambda earlier, later: earlier + later)
    for value in ("x", "y"):
        gathered.add("a", value)
    written.fault = pw.OperationalError("down")
    with pytest.raises(pw.OperationalError):
        gathered.flush()
    gathered.add("a", "z")
    gathered.add("b", "x")
    written.fault = None
    gathered.flush()
    gathered.flush()
    assert written.notes == [{"a": "xyz", "b": "x"}]


def test_notes_that_can_never_be_written_do_not_stop_later_ones() -> None:
    written = Written()
    written.fault = ValueError("a note that no database takes")
    gathered = WriteBehind(written.write)
    gathered.add("bad", 1)
    with pytest.raises(ValueError, match="no database"):
        gathered.flush()
    written.fault = None
    gathered.add("good", 2)
    gathered.flush()
    assert written.notes == [{"good": 2}]
