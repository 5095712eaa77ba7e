"""`flask doctor`: the errors and risks that it finds in an installation."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from backend.db import migrations
from backend.doctor import service as doctor

from .support.apps import client_of, service_of, url_of
from .support.commands import Flasks, assert_done, flask_of
from .support.databases import ON_POSTGRES
from .support.people import add_user, by_key, sign_in
from .support.processes import free_port, run
from .support.tokens import refresh

PRODUCTION = {"environment": "production", "secret_key": "k7Jx-q2Wd" * 5}


def test_doctor_finds_nothing_wrong_with_a_good_installation(flask: Flasks) -> None:
    assert_done(flask("doctor"), "0 warnings, nothing fatal.")


def test_doctor_reports_warnings_and_still_succeeds(
    tmp_path: Path, migrated: str, app_on: Callable[..., Flask]
) -> None:
    (tmp_path / "test.db").chmod(0o644)
    values = {"workers": 2, "threads": 8, "database_pool_size": 2, "secret_key": "short"}
    app = app_on(migrated, **values)
    outcome = flask_of(app)("doctor")
    assert (outcome.exit_code, outcome.stderr) == (0, "")
    lines = outcome.stdout.splitlines()
    assert lines.pop() == "5 warnings, nothing fatal."
    assert all(re.fullmatch(r"warning: .+\.", line) for line in lines)
    for word in ("chmod 600", "SQLite", "SECRET_KEY", "DATABASE_POOL_SIZE", "REDIS_URL"):
        assert sum(word in line for line in lines) == 1, word


def test_doctor_warns_of_metrics_that_anyone_can_read(
    migrated: str, app_on: Callable[..., Flask]
) -> None:
    for values, warnings in [
        ({"metrics_enabled": "true"}, 1),
        ({"metrics_enabled": "true", "metrics_token": "t" * 40}, 0),
        ({}, 0),
    ]:
        outcome = flask_of(app_on(migrated, **PRODUCTION, **values))("doctor")
        assert outcome.exit_code == 0
        assert outcome.stdout.count("warning: METRICS_ENABLED without METRICS_TOKEN") == warnings


def test_doctor_warns_of_database_files_that_others_can_read(
    tmp_path: Path, migrated: str, app_on: Callable[..., Flask]
) -> None:
    app = app_on(migrated)
    for name in ("test.db", "test.db-wal", "test.db-shm"):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(0o640)
    outcome = flask_of(app)("doctor").stdout
    names = ", ".join(f"{tmp_path}/test.db{end}" for end in ("", "-wal", "-shm"))
    assert f"warning: {names} can be read by other users" in outcome


def test_doctor_warns_of_mail_that_production_does_not_send(
    migrated: str, app_on: Callable[..., Flask]
) -> None:
    for mail, warnings in [
        ({"mail_url": "console:"}, 1),
        ({"mail_url": "smtp://[::1]"}, 0),
        ({}, 0),
    ]:
        outcome = flask_of(app_on(migrated, **PRODUCTION, **mail))("doctor")
        assert outcome.exit_code == 0
        assert outcome.stdout.count("warning: MAIL_URL sends no mail") == warnings


def test_doctor_reports_fatal_errors_and_fails(
    empty_database: str, app_on: Callable[..., Flask]
) -> None:
    app = app_on(empty_database)
    outcome = flask_of(app)("doctor")
    assert outcome.exit_code == 1
    pending = ", ".join(migrations.known())
    assert outcome.stderr == f"fatal: Migrations are pending: {pending}; run `flask db upgrade`.\n"
    assert service_of(app).database.get_tables() == []


def test_doctor_reports_a_database_that_does_not_answer(app_on: Callable[..., Flask]) -> None:
    url = "postgresql://nobody:hunter2@127.0.0.1:1/nowhere"
    outcome = flask_of(app_on(url))("doctor")
    assert outcome.exit_code == 1
    assert outcome.stderr.startswith("fatal: DATABASE_URL: the database does not answer: ")
    assert "hunter2" not in outcome.output


@pytest.mark.slow
def test_doctor_reports_names_in_dotenv_that_are_not_settings(tree: Path, migrated: str) -> None:
    dotenv = tree / ".env"
    dotenv.write_text("LOG_LEVLE=DEBUG\nSECRET_KEY_FILE=\nLOG_LEVEL=ERROR\n", "utf-8")
    try:
        outcome = run(tree, "flask", "--app", "wsgi", "doctor", database_url=migrated)
    finally:
        dotenv.unlink()
    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert outcome.stdout == (
        "warning: .env: there is no setting LOG_LEVLE.\n1 warning, nothing fatal.\n"
    )


@pytest.mark.slow
def test_doctor_and_all_other_commands_report_why_the_settings_are_refused(tree: Path) -> None:
    unsafe: dict[str, Any] = {"secret_key": None, "public_url": "http://id.example"}
    outcome = run(tree, "flask", "--app", "wsgi", "doctor", bcrypt_rounds=4, **unsafe)
    assert (outcome.returncode, outcome.stdout) == (1, "")
    lines = outcome.stderr.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["fatal:", "SECRET_KEY"],
        ["fatal:", "BCRYPT_ROUNDS"],
        ["fatal:", "PUBLIC_URL"],
    ]
    url = "postgresql://u:100%hunter2@127.0.0.1/db"
    listed = run(tree, "flask", "--app", "wsgi", "users", "list", "--json", database_url=url)
    assert (listed.returncode, listed.stdout) == (1, "")
    assert listed.stderr.startswith("fatal: DATABASE_URL is invalid; expected")
    assert "hunter2" not in listed.stderr


def test_doctor_counts_what_still_needs_each_earlier_secret(make_app: Callable[..., Flask]) -> None:
    old, new = "o" * 20 + "ld-Zr8Qm2N4pX7vB9", "n" * 20 + "ew-Ca5Sd3Gh6Yt1Lw"
    before = make_app(secret_key=old)
    client = client_of(before)
    add_user(client, "alice")
    alice = sign_in(client, "alice")
    key = alice.new_key()["key"]

    without = make_app(secret_key=new, database_url=url_of(before))
    outcome = flask_of(without)("doctor").output
    assert "1 API key cannot be used without a SECRET_KEY that is no longer set" in outcome
    between = make_app(secret_key=new, secret_key_fallbacks=old, database_url=url_of(before))
    needed = "number 1 is still needed by 1 API key, 1 session;"
    assert needed in flask_of(between)("doctor").output
    assert client_of(between).get("/v1/auth/me", headers=by_key(key)).status_code == 200
    assert "number 1 is still needed by 1 session;" in flask_of(between)("doctor").output
    assert refresh(client_of(between), alice.refresh_token).status_code == 200
    outcome = flask_of(between)("doctor").output
    assert "number 1" not in outcome
    more = make_app(
        secret_key="z" * 40, secret_key_fallbacks=f"{old},{new}", database_url=url_of(before)
    )
    assert "number 2 is still needed by 1 API key, 1 session;" in flask_of(more)("doctor").output


@ON_POSTGRES
def test_doctor_asks_for_a_timeout_that_works_behind_a_pooler(app: Flask, app_on: Any) -> None:
    pooled = app_on(url_of(app), database_prepared_statements="false")
    assert "no statement_timeout" in flask_of(pooled)("doctor").output
    assert "no statement_timeout" not in flask_of(app)("doctor").output


@pytest.mark.filterwarnings("ignore:::aiosmtpd")
def test_doctor_tries_redis_and_the_mail_server(
    app_on: Callable[..., Flask], migrated: str, smtp: Callable[..., int], redis_url: str
) -> None:
    urls = {"mail_url": f"smtp://127.0.0.1:{smtp()}", "redis_url": redis_url}
    good = flask_of(app_on(migrated, **urls))("doctor").stdout
    assert "MAIL_URL" not in good
    assert "REDIS_URL" not in good
    closed = free_port()
    urls = {"mail_url": f"smtp://127.0.0.1:{closed}", "redis_url": f"redis://127.0.0.1:{closed}"}
    bad = flask_of(app_on(migrated, **urls))("doctor")
    assert bad.exit_code == 0
    assert "warning: MAIL_URL: ConnectionRefusedError; mail waits for up to 24 hours." in bad.stdout
    assert re.search("warning: REDIS_URL: .*refused; each process counts", bad.stdout)


def test_doctor_waits_three_seconds_for_a_server_that_does_not_answer(
    app_on: Callable[..., Flask], migrated: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert doctor.PROBE_SECONDS == 3
    monkeypatch.setattr(doctor, "PROBE_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the system takes connections
        where = f"127.0.0.1:{silent.getsockname()[1]}"
        app = app_on(migrated, mail_url=f"smtp://{where}", redis_url=f"redis://{where}")
        started = time.monotonic()
        said = flask_of(app)("doctor").stdout
    assert time.monotonic() - started < 5
    assert "warning: REDIS_URL: " in said
    assert "warning: MAIL_URL: " in said
