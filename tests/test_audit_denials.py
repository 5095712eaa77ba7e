"""Repeated denials to a credential: a few events an hour, and one that counts the rest."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from backend.audit import denials
from backend.audit_chain import verification
from backend.db.database import release

from .support.apps import client_of, service_of, statements, url_of
from .support.people import Person, add_user, by_key, sign_in
from .support.problems import assert_problem

PATH = "/v1/audit-events?action=access.denied&limit=100"


def denied(person: Person, times: int) -> None:
    """Call a route for administrators this many times."""
    for _ in range(times):
        assert person.get("/v1/users").status_code == 403


def events(root: Person) -> list[dict[str, Any]]:
    """The denials in the trail, newest first."""
    return root.again().get(PATH).json["items"]


def counted(root: Person) -> list[int]:
    """The counts in the events that have one, newest first."""
    return [event["detail"]["count"] for event in events(root) if "count" in event["detail"]]


def run_chores(app: Flask) -> None:
    """Run the periodic tasks, and the maintenance."""
    service_of(app).periodic_tasks.run()
    with service_of(app).active():
        denials.prune(100)
        release(service_of(app).database)


def test_denials_beyond_five_an_hour_are_counted_in_one_event(
    app: Flask,
    root: Person,
    alice: Person,
    travel: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    key = alice.new_key()
    denied(alice.with_key(key), 40)
    assert [line.getMessage() for line in caplog.records].count("access.denied") == 40
    run_chores(app)
    assert len(events(root)) == 5
    assert {event["detail"]["code"] for event in events(root)} == {"insufficient_scope"}
    travel(hours=1)
    run_chores(app)
    newest, *others = events(root)
    assert len(others) == 5
    assert (newest["outcome"], newest["actor_id"]) == ("failure", alice.id)
    assert (newest["ip"], newest["request_id"]) == (None, None)
    assert newest["detail"].pop("since")[:19] == others[-1]["at"][:19]
    assert newest["detail"] == {"key_id": key["id"], "count": 35}
    run_chores(app)
    assert len(events(root)) == 6


def test_each_credential_and_each_hour_has_its_own_events(
    app: Flask, root: Person, alice: Person, travel: Callable[..., None]
) -> None:
    one, other = (alice.with_key(alice.new_key()) for _ in range(2))
    for _ in range(2):
        for person in (one, other, alice.again()):
            denied(person, 7)
        run_chores(app)
        travel(hours=1)
    denied(one, 1)
    assert len(events(root)) == 2 * 3 * 5 + 1 + 4
    run_chores(app)
    assert counted(root) == [2] * 6


def test_five_denials_an_hour_cause_no_counting_event(
    app: Flask, root: Person, alice: Person, travel: Callable[..., None]
) -> None:
    denied(alice, 5)
    travel(hours=1)
    run_chores(app)
    assert len(events(root)) == 5


def test_a_flood_of_denials_is_written_periodically_in_one_statement(
    app: Flask, root: Person, alice: Person
) -> None:
    keys = [alice.with_key(alice.new_key()) for _ in range(3)]
    for key in keys:
        denied(key, 5)
    service_of(app).periodic_tasks.run()
    with statements(app) as ran:
        for key in keys:
            denied(key, 20)
    assert not [sql for sql in ran if not sql.startswith("SELECT")]
    with statements(app) as ran:
        service_of(app).flush()
    assert len([sql for sql in ran if "INTO denials" in sql]) == 1


def test_many_threads_and_processes_together_write_five_events(
    make_app: Callable[..., Flask], travel: Callable[..., None]
) -> None:
    first = make_app(secret_key="k" * 40)
    second = make_app(secret_key="k" * 40, database_url=url_of(first))
    client, other = client_of(first), client_of(second)
    add_user(client, "root", role="admin")
    add_user(client, "alice")
    root, alice = sign_in(client, "root"), sign_in(client, "alice")
    key = alice.new_key()["key"]

    def ask(app: Flask) -> int:
        return client_of(app).get("/v1/users", headers=by_key(key)).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, [first, second] * 40)) == {403}
    assert len(events(root)) == 5
    for app in (first, second):  # as they do when they end
        service_of(app).periodic_tasks.close()
    travel(hours=1)
    assert other.get("/v1/users", headers=by_key(key)).status_code == 403
    assert counted(root) == [75]


def test_denials_counted_after_their_hour_was_closed_are_not_lost(
    app: Flask, root: Person, alice: Person, travel: Callable[..., None]
) -> None:
    denied(alice, 9)
    travel(hours=1)
    with service_of(app).active():
        denials.prune(100)  # of another process; these are still in memory
        release(service_of(app).database)
    assert counted(root) == []
    run_chores(app)
    assert counted(root) == [4]


def test_denials_are_still_counted_while_the_database_is_down(
    app: Flask, root: Person, alice: Person, travel: Callable[..., None]
) -> None:
    denied(alice, 9)
    database = service_of(app).database
    database.execute_sql("ALTER TABLE denials RENAME TO elsewhere")
    release(database)
    assert_problem(alice.get("/v1/users"), 503, "unavailable")
    service_of(app).periodic_tasks.run()
    database.execute_sql("ALTER TABLE elsewhere RENAME TO denials")
    release(database)
    travel(hours=1)
    run_chores(app)
    assert counted(root) == [4]


def test_counting_events_are_sealed_like_others(
    app: Flask, root: Person, alice: Person, travel: Callable[..., None]
) -> None:
    denied(alice, 9)
    travel(hours=1)
    run_chores(app)
    run_chores(app)
    with service_of(app).active():
        report = verification.verify()
        release(service_of(app).database)
    assert (report.faults, report.unsealed) == ([], 0)


def test_a_denial_leaves_the_log_with_its_code_and_route(
    client: FlaskClient, alice: Person, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "backend.audit"):
        denied(alice.with_key(alice.new_key()), 6)
    lines = [line for line in caplog.records if line.getMessage() == "access.denied"]
    first, last = lines[0], lines[-1]
    assert (first.detail, first.ip, first.outcome) == (last.detail, last.ip, last.outcome)
    assert str(first.actor_id) == str(last.actor_id) == alice.id
