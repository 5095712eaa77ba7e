"""Expired rows are deleted: by a command, and in small batches by the servers."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from backend.background import maintenance
from backend.core import clock
from backend.db.database import release
from backend.throttling.models import Throttle

from .support.apps import client_of, service_of
from .support.databases import ON_POSTGRES
from .support.people import PASSWORD, Person, add_user, sign_in

Travel = Callable[..., None]


def counts(app: Flask) -> dict[str, int]:
    """How many rows each table has that is pruned."""
    database = service_of(app).database
    tables = ("sessions", "throttles", "known_addresses", "audit_events")
    result = {
        table: database.execute_sql(f"SELECT COUNT(*) FROM {table}").fetchone()[0]
        for table in tables
    }
    release(database)
    return result


def command(app: Flask) -> Any:
    """What `flask prune` reports."""
    return app.test_cli_runner().invoke(args=["prune"])


def test_expired_rows_are_deleted_and_no_others(app: Flask, alice: Person, travel: Travel) -> None:
    travel(days=6)
    later = alice.again()
    before = counts(app)
    assert before == {"sessions": 2, "throttles": 3, "known_addresses": 1, "audit_events": 3}
    travel(days=2)  # the first session was not used for 8 days, the second for 2
    result = command(app)
    assert (result.exit_code, result.output) == (0, "4 rows deleted.\n")
    assert counts(app) == before | {"sessions": 1, "throttles": 0}
    assert later.client.get("/v1/auth/sessions", headers=later.headers).status_code == 401
    assert command(app).output == "0 rows deleted.\n"


def test_addresses_are_forgotten_and_events_are_kept_as_long_as_settings_say(
    make_app: Callable[..., Flask], travel: Travel
) -> None:
    app = make_app(audit_retention_days=90)
    client = client_of(app)
    add_user(client, "alice")
    sign_in(client, "alice")
    travel(days=31)
    command(app)
    assert counts(app) == {"sessions": 0, "throttles": 0, "known_addresses": 0, "audit_events": 2}
    travel(days=60)
    command(app)
    assert counts(app)["audit_events"] == 0
    verified = app.test_cli_runner().invoke(args=["audit", "verify"])
    assert verified.exit_code == 0, verified.output


@ON_POSTGRES  # on SQLite one writes at a time
def test_rows_that_are_used_again_at_the_same_time_stay(
    app: Flask, alice: Person, travel: Travel
) -> None:
    travel(days=2)
    service, before = service_of(app), counts(app)["throttles"]
    with service.active(), service.database.atomic():
        later = clock.now() + timedelta(days=1)
        Throttle.update(expires_at=later, used=1).execute()
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(command, app).result(30).output == "0 rows deleted.\n"
    assert counts(app)["throttles"] == before
    travel(days=4)
    assert command(app).exit_code == 0
    assert counts(app)["throttles"] == 0


@pytest.mark.slow
def test_the_command_deletes_more_than_one_batch(app: Flask, travel: Travel) -> None:
    client = client_of(app)
    for number in range(maintenance.BATCH // 2 + 10):
        body = {"username": f"name{number}", "password": PASSWORD}
        client.post(
            "/v1/auth/login", json=body, environ_overrides={"REMOTE_ADDR": f"10.0.0.{number % 200}"}
        )
    assert counts(app)["throttles"] > maintenance.BATCH
    travel(days=2)
    assert command(app).exit_code == 0
    assert counts(app)["throttles"] == 0


def test_servers_delete_expired_rows_after_a_write(
    client: FlaskClient, alice: Person, travel: Travel
) -> None:
    travel(days=8)
    service = service_of(client.application)
    add_user(client, "bob")
    service.periodic_tasks.run()
    assert counts(client.application)["sessions"] == 0
    sign_in(client, "bob")
    travel(days=8)
    service.periodic_tasks.run()  # maintenance ran a moment ago, and pauses between runs
    assert counts(client.application)["sessions"] == 1


def test_the_command_refuses_in_a_sentence(tmp_path: Path, make_bare_app: Any) -> None:
    result = command(make_bare_app())
    assert result.exit_code == 1
    assert "the database does not answer" in result.stderr
