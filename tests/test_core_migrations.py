"""Migrations: forwards, backwards, from several processes, over rows, and against the models."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID

import peewee as pw
import pytest
from flask import Flask

from backend.app import create_app
from backend.audit_chain import service as chain
from backend.db import migrations
from backend.db.database import release
from backend.mail import outbox
from backend.mfa.models import RecoveryCode
from backend.notices import service as notices
from backend.users.models import HeldUsername, User

from .support.apps import client_of, service_of
from .support.mfa import enrol
from .support.openapi import make_others
from .support.people import PASSWORD, add_user, by_key, sign_in
from .support.processes import copy_tree, run
from .support.settings import make_settings


@pytest.fixture
def app(empty_database: str) -> Iterator[Flask]:
    """An app on a database that no migration has seen; the test runs as part of its service."""
    app = create_app(make_settings(database_url=empty_database))
    service = service_of(app)
    service.sender.close()  # what waits in the outbox stays there
    service.periodic_tasks.stop()  # nor is anything sealed while rows are compared
    with service.active():
        yield app
        release(service.database)
    service.database.close_all()


@pytest.fixture
def database(app: Flask) -> pw.Database:
    """The database of `app`."""
    return service_of(app).database


def seed(app: Flask) -> None:
    """Add rows to all tables: for Alice a session, a key and a recovery code more, for all else."""
    client = client_of(app)
    service = service_of(app)
    count = service.database.execute_sql("SELECT COUNT(*) FROM users").fetchone()[0]
    release(service.database)
    if not count:
        add_user(client, "alice")
    alice = sign_in(client, "alice")
    client.get("/v1/auth/me", headers=by_key(alice.new_key(scopes=[])["key"]))
    assert alice.get("/v1/users").status_code == 403
    # Begun, not confirmed: she signs in again, and without a code.
    assert alice.post("/v1/auth/mfa", {"current_password": PASSWORD}).status_code == 201
    service.flush()
    service.flush()
    with service.active():
        make_others(alice, {"user_id": alice.id, "session_id": alice.id, "key_id": alice.id})
        RecoveryCode.create(user=alice.id, digest=secrets.token_hex(32))
        HeldUsername.create(username_folded=secrets.token_hex(8), user_id=alice.id)
        notices.note_forwarded()
        outbox.put("alice@example.com", "mfa_enabled", UUID(alice.id), {"username": "alice"})
        chain.seal()
    release(service.database)


def tables(database: pw.Database) -> list[str]:
    """The names of all tables but the history of migrations."""
    return sorted(set(database.get_tables()) - {migrations.HISTORY})


def rows(database: pw.Database) -> dict[str, list[dict[str, str]]]:
    """All rows of all tables as text, in order."""
    found = {}
    for table in tables(database):
        cursor = database.execute_sql(f'SELECT * FROM "{table}"')
        names = [column[0] for column in cursor.description]
        lines = [dict(zip(names, map(str, line), strict=True)) for line in cursor.fetchall()]
        found[table] = sorted(lines, key=lambda line: list(line.values()))
    release(database)
    return found


def assert_kept(
    before: dict[str, list[dict[str, str]]], after: dict[str, list[dict[str, str]]]
) -> None:
    """Tables that stand before and after hold the same rows, in the columns they have in common."""
    for table in before.keys() & after.keys():
        assert len(after[table]) == len(before[table]), table
        for old, new in zip(before[table], after[table], strict=True):
            same = old.keys() & new.keys()
            assert {name: new[name] for name in same} == {name: old[name] for name in same}, table


def structure(database: pw.Database) -> dict[str, Any]:
    """All that the engine knows of its tables: columns, indexes, foreign keys, checks."""
    sqlite = isinstance(database, pw.SqliteDatabase)
    describe = sqlite_table if sqlite else postgres_table
    found = {table: describe(database, table) for table in tables(database)}
    release(database)
    return found


def sqlite_table(database: pw.Database, table: str) -> dict[str, Any]:
    """A table's columns (name, type, not null, default, key), indexes, foreign keys, checks."""

    def ask(statement: str) -> list[Any]:
        return database.execute_sql(statement).fetchall()

    [(text,)] = ask(f"SELECT sql FROM sqlite_master WHERE type = 'table' AND name = '{table}'")
    indexes = {
        name: (bool(unique), [column for *_, column in ask(f'PRAGMA index_info("{name}")')], where)
        for _, name, unique, _, where in ask(f'PRAGMA index_list("{table}")')
        if not name.startswith("sqlite_autoindex")
    }
    return {
        "columns": sorted(line[1:] for line in ask(f'PRAGMA table_info("{table}")')),
        "indexes": indexes,
        "foreign_keys": sorted(line[2:] for line in ask(f'PRAGMA foreign_key_list("{table}")')),
        "checks": sorted(re.findall(r"CHECK \((?:[^()]|\([^()]*\))*\)", text)),
    }


def postgres_table(database: pw.Database, table: str) -> dict[str, Any]:
    """A table's columns (name, type, not null, default), indexes, constraints."""

    def ask(statement: str) -> list[Any]:
        return sorted(database.execute_sql(statement, (table,)).fetchall())

    return {
        "columns": ask(
            "SELECT attname, format_type(atttypid, atttypmod), attnotnull,"
            " pg_get_expr(adbin, adrelid) FROM pg_attribute"
            " LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum"
            " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped"
        ),
        "indexes": dict(ask("SELECT indexname, indexdef FROM pg_indexes WHERE tablename = %s")),
        "constraints": ask(
            "SELECT contype::text, pg_get_constraintdef(oid) FROM pg_constraint"
            " WHERE conrelid = %s::regclass AND contype IN ('c', 'f', 'p', 'u')"
        ),
    }


# --- the verbs ---


def test_upgrade_applies_what_is_pending_and_then_nothing(database: pw.Database) -> None:
    names = migrations.known()
    assert names == sorted(names)
    assert migrations.applied(database) == []
    assert migrations.pending(database) == names
    assert migrations.upgrade(database) == names
    assert migrations.applied(database) == names
    assert migrations.pending(database) == []
    assert migrations.upgrade(database) == []


def test_downgrade_undoes_one_or_all_above_a_name(database: pw.Database) -> None:
    names = migrations.upgrade(database)
    assert migrations.downgrade(database, "-1") == names[-1:]
    assert migrations.applied(database) == names[:-1]
    migrations.upgrade(database)
    assert migrations.downgrade(database, names[0]) == names[:0:-1]
    assert tables(database) == ["users"]
    assert migrations.downgrade(database, "-1") == names[:1]
    assert tables(database) == []


def test_downgrade_refuses_what_it_cannot_do_and_changes_nothing(database: pw.Database) -> None:
    with pytest.raises(migrations.MigrationError, match="nothing to undo"):
        migrations.downgrade(database, "-1")
    names = migrations.upgrade(database)
    with pytest.raises(migrations.MigrationError, match="nonsense is not among the applied"):
        migrations.downgrade(database, "nonsense")
    with pytest.raises(migrations.MigrationError, match="nothing to undo"):
        migrations.downgrade(database, names[-1])
    assert migrations.applied(database) == names


def test_stamp_records_without_running(database: pw.Database) -> None:
    names = migrations.known()
    migrations.stamp(database, names[1])
    assert migrations.applied(database) == names[:2]
    assert migrations.pending(database) == names[2:]
    assert tables(database) == []
    migrations.stamp(database, names[-1])
    migrations.stamp(database, names[0])
    assert migrations.applied(database) == names[:1]
    with pytest.raises(migrations.MigrationError, match="There is no migration nonsense"):
        migrations.stamp(database, "nonsense")


def test_looking_writes_nothing(database: pw.Database) -> None:
    migrations.applied(database)
    migrations.pending(database)
    assert migrations.drift(database) == ""
    assert migrations.revision(database, "nothing") is None
    assert database.get_tables() == []


def test_making_an_app_and_asking_it_migrates_nothing(app: Flask, database: pw.Database) -> None:
    client = client_of(app)
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == 503
    assert database.get_tables() == []
    release(database)
    migrations.upgrade(database)
    assert client.get("/readyz").status_code == 200
    migrations.downgrade(database, "-1")
    assert client.get("/readyz").status_code == 503


# --- the models ---


@pytest.mark.slow
def test_the_migrations_lead_to_the_models(database: pw.Database) -> None:
    assert migrations.drift(database) == ""
    migrations.upgrade(database)
    built = structure(database)
    assert migrations.drift(database) == ""
    while migrations.applied(database):
        migrations.downgrade(database, "-1")
    assert tables(database) == []
    database.create_tables(migrations.models())
    assert structure(database) == built
    assert set(built) == {model._meta.table_name for model in migrations.models()}


def test_the_models_of_every_subject_are_found() -> None:
    package = Path(migrations.__file__).parents[1]
    found = {model.__module__.split(".")[1] for model in migrations.models()}
    assert found == {path.parent.name for path in package.glob("*/models.py")}


def test_every_migration_says_why_and_can_be_undone() -> None:
    for name in migrations.known():
        text = (migrations.FOLDER / f"{name}.py").read_text("utf-8")
        assert re.match(r'"""\S', text), name
        assert re.search(r"^def rollback\(.+\n +migrator\.", text, re.MULTILINE), name
    numbers = [re.match(r"\d{3}_", name)[0] for name in migrations.known()]
    assert len(set(numbers)) == len(numbers)


# --- rows ---


@pytest.mark.slow
def test_each_migration_goes_back_and_forth_over_rows_and_loses_no_others(
    app: Flask, database: pw.Database
) -> None:
    names = migrations.upgrade(database)
    built = structure(database)
    for target in names[-2::-1]:
        seed(app)
        before = rows(database)
        assert before.keys() == built.keys()
        assert sum(map(bool, before.values())) >= 15  # all but those of subjects without an example
        migrations.downgrade(database, target)
        below = rows(database)
        assert_kept(before, below)
        migrations.upgrade(database)
        assert structure(database) == built
        above = rows(database)
        assert_kept(below, {table: above[table] for table in below})


def test_nobody_is_asked_for_a_second_factor_that_a_downgrade_took_away(
    app: Flask, database: pw.Database
) -> None:
    migrations.upgrade(database)
    client = client_of(app)
    add_user(client, "alice")
    alice = sign_in(client, "alice")
    enrol(alice)
    names = migrations.known()
    migrations.downgrade(database, names[names.index("008_second_factors") - 1])
    migrations.upgrade(database)
    assert alice.get("/v1/auth/me").json["mfa_enabled"] is False


@pytest.mark.slow
def test_keys_outlive_the_columns_of_their_limits_with_the_secret_that_is_current(
    app: Flask, database: pw.Database
) -> None:
    names = migrations.upgrade(database)
    client = client_of(app)
    add_user(client, "alice")
    alice = sign_in(client, "alice")
    plain, waiting, taken = (alice.new_key(quota={"remaining": 0}) for _ in range(3))
    never_used, used = (
        alice.post(f"/v1/api-keys/{key['id']}/rotate").json for key in (waiting, taken)
    )
    alice.patch(f"/v1/api-keys/{taken['id']}", {"quota": None})
    assert client.get("/v1/auth/me", headers=by_key(used["key"])).status_code == 200
    migrations.downgrade(database, names[names.index("011_key_limits") - 1])
    migrations.upgrade(database)
    good = [
        client.get("/v1/auth/me", headers=by_key(secret["key"])).status_code
        for secret in (plain, waiting, never_used, taken, used)
    ]
    assert good == [200, 200, 401, 401, 200]
    assert {each["rotation"] for each in alice.get("/v1/api-keys").json["items"]} == {None}


SCRATCH = '''"""Rebuild the users table."""

import peewee as pw


def migrate(migrator, database, *, fake=False):
    migrator.add_fields("users", age=pw.IntegerField(default=5))
    migrator.change_fields("users", username=pw.CharField(max_length=80))


def rollback(migrator, database, *, fake=False):
    migrator.change_fields("users", username=pw.CharField(max_length=64))
    migrator.remove_fields("users", "age")
'''


def test_a_table_that_is_rebuilt_keeps_its_rows_their_children_and_its_indexes(
    app: Flask, database: pw.Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = migrations.upgrade(database)
    seed(app)
    built, before = structure(database), rows(database)
    folder = shutil.copytree(migrations.FOLDER, tmp_path / "migrations")
    (folder / "900_scratch.py").write_text(SCRATCH, "utf-8")
    monkeypatch.setattr(migrations, "FOLDER", folder)

    assert migrations.upgrade(database) == ["900_scratch"]
    after = rows(database)
    assert after.keys() == before.keys()
    assert_kept(before, after)
    assert {line["age"] for line in after["users"]} == {"5"}
    changed = structure(database)
    for part in built["users"].keys() - {"columns"}:
        assert changed["users"][part] == built["users"][part]

    assert migrations.downgrade(database, names[-1]) == ["900_scratch"]
    assert rows(database) == before
    assert structure(database) == built


def of_users() -> set[str]:
    """The tables whose rows go with their user."""
    found, before = {User}, set()
    while found != before:
        before = set(found)
        found |= {
            model
            for model in migrations.models()
            for key, parent in model._meta.refs.items()
            if parent in found and key.on_delete == "CASCADE"
        }
    return {model._meta.table_name for model in found}


def test_foreign_keys_hold_again_after_migrating(app: Flask, database: pw.Database) -> None:
    migrations.upgrade(database)
    seed(app)
    database.execute_sql("DELETE FROM users")
    release(database)
    left = {table for table, found in rows(database).items() if found}
    assert {"audit_events", "held_usernames", "mails"} <= left
    assert left & of_users() == set()


def test_downgrading_sqlite_leaves_a_copy_for_the_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    app = create_app(make_settings(database_url=f"sqlite:///{path}"))
    database = service_of(app).database
    names = migrations.upgrade(database)
    assert path.stat().st_mode & 0o777 == 0o600
    seed(app)
    migrations.downgrade(database, names[0])
    database.close_all()
    [copy] = tmp_path.glob("test.db.before-*")
    assert copy.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(copy)) as kept:
        for table in ("users", "sessions", "api_keys", "api_key_secrets"):
            assert kept.execute(f"SELECT COUNT(*) FROM {table}").fetchone() == (1,)
        assert kept.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        recorded = kept.execute(f"SELECT name FROM {migrations.HISTORY} ORDER BY id").fetchall()
    assert [name for (name,) in recorded] == names


# --- several processes, and one that is killed ---

UPGRADE = """
from backend.db import migrations
from backend.mail import outbox
from backend.db.database import open_database
from backend.core.settings import Settings

print(*migrations.upgrade(open_database(Settings.load())), flush=True)
"""

# Everything is imported before the processes part, so that all of them upgrade at the same moment.
UPGRADE_AT_ONCE = f"""
import os

import peewee_migrate.router

start, go = os.pipe()
children = []
for _ in range(8):
    if (child := os.fork()) == 0:
        os.close(go)
        os.read(start, 1)
        break
    children.append(child)
else:
    os.close(go)
    raise SystemExit(any([os.waitpid(child, 0)[1] for child in children]))
{UPGRADE}
"""


@pytest.mark.slow
def test_processes_that_upgrade_at_once_take_turns(
    empty_database: str, database: pw.Database, tree: Path
) -> None:
    done = run(tree, "python", "-c", UPGRADE_AT_ONCE, database_url=empty_database)
    assert done.returncode == 0, done.stderr
    names = migrations.known()
    assert sorted(done.stdout.splitlines()) == [""] * 7 + [" ".join(names)]
    assert migrations.applied(database) == names


DOOMED = '''"""Killed in the middle, the first time."""

import os
import signal
from pathlib import Path

import peewee as pw


def die():
    marker = Path(__file__).with_suffix(".tried")
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def migrate(migrator, database, *, fake=False):
    @migrator.create_model
    class Scrap(pw.Model):
        class Meta:
            table_name = "scraps"

    migrator.sql("UPDATE users SET role = 'admin'")
    migrator.run(die)


def rollback(migrator, database, *, fake=False):
    migrator.remove_model("scraps")
'''


@pytest.mark.slow
def test_a_migration_that_is_killed_leaves_nothing_and_is_done_the_next_time(
    empty_database: str, app: Flask, database: pw.Database, tmp_path: Path
) -> None:
    migrations.upgrade(database)
    seed(app)
    before = rows(database)
    tree = copy_tree(tmp_path / "tree")
    doomed = tree / "migrations" / "900_doomed.py"
    doomed.write_text(DOOMED.replace("__file__", repr(str(doomed))), "utf-8")

    killed = run(tree, "python", "-c", UPGRADE, database_url=empty_database)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert rows(database) == before
    assert migrations.applied(database) == migrations.known()

    again = run(tree, "python", "-c", UPGRADE, database_url=empty_database)
    assert (again.returncode, again.stdout) == (0, "900_doomed\n"), again.stderr
    after = rows(database)
    assert after.keys() == before.keys() | {"scraps"}
    assert {line["role"] for line in after["users"]} == {"admin"}
    assert migrations.applied(database) == [*migrations.known(), "900_doomed"]


# --- a new subject ---

JOTTINGS = '''"""The jottings table."""

import peewee as pw

from ..db.database import Model, UTCDateTimeField
from ..users.models import User


class Jotting(Model):
    """Something that somebody wrote down."""

    author = pw.ForeignKeyField(User, on_delete="CASCADE", backref="jottings")
    slug = pw.CharField(max_length=40, unique=True)
    text = pw.TextField(index=True)
    read_at = UTCDateTimeField(null=True)
    stars = pw.IntegerField(default=0)

    class Meta:
        table_name = "jottings"
        indexes = ((("author", "slug"), False),)
'''

THERE_AND_BACK = """
import json
import sys
from backend.db import migrations
from backend.mail import outbox
from backend.db.database import open_database
from backend.core.settings import Settings

database = open_database(Settings.load())
steps = [migrations.upgrade(database)]
steps.append(migrations.downgrade(database, "-1"))
steps.append("jottings" in database.get_tables())
steps.append(migrations.upgrade(database))
steps.append([field.data_type for field in database.get_columns("jottings")])
steps.append([sorted(index.name for index in database.get_indexes("jottings"))])
steps.append(migrations.drift(database))
steps.append(migrations.revision(database, "again"))
json.dump(steps, sys.stdout)
"""


@pytest.mark.slow
def test_a_revision_finds_the_models_of_a_new_subject_by_itself(
    empty_database: str, tmp_path: Path
) -> None:
    tree = copy_tree(tmp_path / "tree")
    names = migrations.known()
    new = f"{int(names[-1][:3]) + 1:03}_what_people_jotted"
    (tree / "backend" / "jottings").mkdir()
    (tree / "backend" / "jottings" / "__init__.py").write_text('"""Jottings."""\n', "utf-8")
    (tree / "backend" / "jottings" / "models.py").write_text(JOTTINGS, "utf-8")

    message = "What people jotted"
    written = run(tree, "flask", "--app", "wsgi", "db", "revision", "-m", message)
    assert written.returncode == 0, written.stderr
    assert written.stdout == f"written {tree / 'migrations' / new}.py\n"
    text = (tree / "migrations" / f"{new}.py").read_text("utf-8")
    assert text.startswith('"""What people jotted"""\n')

    done = run(tree, "python", "-c", THERE_AND_BACK, database_url=empty_database)
    assert done.returncode == 0, done.stderr
    up, down, left, again, types, [indexes], drift, more = json.loads(done.stdout)
    assert (up, down, again) == ([*names, new], [new], [new])
    assert (left, drift, more) == (False, "", None)
    if empty_database.startswith("postgresql:"):
        assert types.count("timestamp with time zone") == 2
    wanted = {"jottings_author_id", "jottings_slug", "jottings_text", "jottings_author_id_slug"}
    assert wanted <= set(indexes)
