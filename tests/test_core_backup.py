"""Backups: of a database in use, restored, and told sound or not, on both databases."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from flask import Flask

from .support.apps import client_of, service_of, url_of
from .support.commands import assert_done, assert_refused, flask_of
from .support.databases import ON_POSTGRES, ON_SQLITE, migrate, scratch_postgres
from .support.people import add_user, by_key, sign_in
from .support.processes import run


@pytest.mark.slow
def test_a_backup_is_restored_with_all_that_was_in_it(
    app: Flask, app_on: Callable[..., Flask], tmp_path: Path
) -> None:
    client = client_of(app)
    add_user(client, "alice")
    alice = sign_in(client, "alice")
    key, kept = alice.new_key()["key"], tmp_path / "kept"
    assert_done(flask_of(app)("db", "backup", str(kept)), f"written {kept}")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir() if "kept" in path.name] == ["kept"]
    later = alice.new_key()["key"]

    def holds(url: str) -> None:
        other = app_on(url, secret_key=service_of(app).settings.secret_key)
        restored = client_of(other)
        assert restored.get("/v1/auth/me", headers=by_key(key)).status_code == 200
        assert restored.get("/v1/auth/me", headers=by_key(later)).status_code == 401
        assert restored.get("/v1/auth/me", headers=alice.headers).status_code == 200
        assert_done(flask_of(other)("db", "verify"), "The database is sound.")

    if url_of(app).startswith("sqlite:"):
        holds(f"sqlite:///{kept}")
    else:
        with scratch_postgres() as url:
            restore = ["pg_restore", "--no-owner", "--exit-on-error", f"--dbname={url}", kept]
            subprocess.run(restore, check=True)
            holds(url)


def test_a_backup_never_replaces_a_file(app: Flask, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("precious", "utf-8")
    assert_refused(flask_of(app)("db", "backup", str(kept)), f"{kept} exists; nothing was written.")
    assert kept.read_text("utf-8") == "precious"


def test_a_backup_that_cannot_be_written_leaves_nothing(app: Flask, tmp_path: Path) -> None:
    kept = tmp_path / "no" / "such" / "folder"
    sentence = f"{kept} cannot be written: No such file or directory."
    assert_refused(flask_of(app)("db", "backup", str(kept)), sentence)


def test_a_sound_database_is_told_so(app: Flask) -> None:
    assert_done(flask_of(app)("db", "verify"), "The database is sound.")


def test_rows_that_point_to_nothing_are_told(app: Flask) -> None:
    client, url = client_of(app), url_of(app)
    add_user(client, "alice")
    sign_in(client, "alice").new_key()
    if url.startswith("sqlite:"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
            connection.execute("DELETE FROM users")
    else:
        with psycopg.connect(url) as connection:
            connection.execute("SET session_replication_role = replica")
            connection.execute("DELETE FROM users")
    result = flask_of(app)("db", "verify")
    assert result.exit_code == 1
    assert "sessions" in result.stderr
    assert "api_keys" in result.stderr


@ON_SQLITE  # PostgreSQL tells by its checksums and amcheck
def test_a_page_that_was_overwritten_is_told(
    make_app: Callable[..., Flask], tmp_path: Path
) -> None:
    app = make_app()
    client = client_of(app)
    add_user(client, "alice")
    kept = tmp_path / "kept"
    flask_of(app)("db", "backup", str(kept))
    with kept.open("r+b") as broken:
        broken.seek(4096 * 3)
        broken.write(b"\xff" * 4096 * 3)
    told = flask_of(make_app(database_url=f"sqlite:///{kept}"))("db", "verify")
    assert told.exit_code == 1


def test_migrations_that_are_pending_are_told(
    empty_database: str, app_on: Callable[..., Flask]
) -> None:
    migrate(empty_database)
    app = app_on(empty_database)
    flask_of(app)("db", "downgrade")
    result = flask_of(app)("db", "verify")
    assert result.exit_code == 1
    assert "Migrations are pending: 0" in result.stderr


PG_DUMP = """#!{python}
import json, os, subprocess, sys
with open("{folder}/seen", "w") as seen:
    json.dump([sys.argv, dict(os.environ)], seen)
os.environ["PATH"] = os.environ["PATH"].partition(os.pathsep)[2]
sys.exit(subprocess.run(["pg_dump", *sys.argv[1:]]).returncode)
"""


@pytest.mark.slow
@ON_POSTGRES
def test_a_backup_shows_no_secret_in_the_arguments_or_the_environment_of_pg_dump(
    app: Flask, tree: Path, tmp_path: Path
) -> None:
    program = tmp_path / "pg_dump"
    program.write_text(PG_DUMP.format(python=sys.executable, folder=tmp_path), "utf-8")
    program.chmod(0o755)
    secrets = "password=hunter2%3A&sslpassword=hunter3"
    done = run(
        tree,
        *("flask", "--app", "wsgi", "db", "backup", str(tmp_path / "kept")),
        database_url=f"{url_of(app)}?{secrets}&application_name=mine",
        path=f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        secret_key="hunter4-Jx7k-q2Wd" * 3,
        mail_url="smtp://someone:hunter5@127.0.0.1",
    )
    assert done.returncode == 0, done.stderr
    seen = (tmp_path / "seen").read_text("utf-8")
    assert "application_name=mine" in seen
    assert "hunter" not in seen
    assert {path.name for path in tmp_path.iterdir()} == {"pg_dump", "seen", "kept"}


@ON_POSTGRES
def test_a_backup_leaves_secrets_beside_a_service_to_its_file(
    app: Flask, make_app: Callable[..., Flask], tmp_path: Path
) -> None:
    other = make_app(database_url=f"{url_of(app)}?service=mine&sslpassword=hunter2")
    sentence = "DATABASE_URL names a service: move sslpassword into the service file."
    assert_refused(flask_of(other)("db", "backup", str(tmp_path / "kept")), sentence)
    assert list(tmp_path.iterdir()) == []
