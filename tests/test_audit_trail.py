"""The audit trail: what is recorded, who may read it, and that no action lacks its event."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from flask.testing import FlaskClient

from backend.audit.service import ACTIONS, record
from backend.core.context import Call, call
from backend.core.errors import Unavailable
from backend.core.identity import CONSOLE, Identity
from backend.db.database import atomic, current, new_id, release
from backend.services import Services
from backend.users.models import User

from .support.apps import service_of
from .support.commands import Flasks, assert_done, assert_misused, assert_refused, flask_of
from .support.people import Person, by_key
from .support.problems import assert_problem

PATH = "/v1/audit-events"


@pytest.fixture
def service(app: Flask) -> Iterator[Services]:
    """The service of `app`; the test runs as part of it."""
    service = service_of(app)
    with service.active():
        yield service
    release(service.database)


@pytest.fixture
def called() -> Iterator[None]:
    """The test runs as part of a request."""
    token = call.set(Call("request-1", "192.0.2.1", "POST", "test"))
    yield
    call.reset(token)


def identity_of(person: Person, **members: Any) -> Identity:
    """The person as the first argument of a service."""
    members = {"role": "user", "method": "session", **members}
    return Identity(UUID(person.id), person.username, **members)


def note(action: str = "user.update", target: UUID | None = None, **kwargs: Any) -> str:
    """Record an event about a target of our own, and return its id."""
    target = target or new_id()
    record(kwargs.pop("actor", None), action, target=("test", target), **kwargs)
    return str(target)


@atomic
def note_and_fail() -> None:
    """Record an event, and fail before the transaction ends."""
    note("user.create")
    raise ZeroDivisionError


@atomic
def rename(person: Person, name: str) -> None:
    """Change a user, and record it."""
    User.update(username=name).where(User.id == person.id).execute()
    note()


def listed(root: Person, query: str = "") -> list[dict[str, Any]]:
    """Our own events, newest first."""
    response = root.get(f"{PATH}{query}")
    assert response.status_code == 200, response.json
    return [event for event in response.json["items"] if event["target_type"] == "test"]


def targets(root: Person, query: str = "") -> list[str]:
    """The targets of our own events, newest first."""
    return [event["target_id"] for event in listed(root, query)]


# --- what is recorded ---


def test_an_event_says_who_did_what_to_whom_from_where(
    service: Services, called: None, root: Person, alice: Person
) -> None:
    target = new_id()
    actor = identity_of(root, role="admin")
    record(actor, "user.update", target=("test", target), fields=["role", "email"], count=2)
    [event] = listed(root)
    assert re.fullmatch(r"[0-9a-f-]{36}", event.pop("id"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", event.pop("at"))
    assert event == {
        "action": "user.update",
        "outcome": "success",
        "actor_id": root.id,
        "target_type": "test",
        "target_id": str(target),
        "ip": "192.0.2.1",
        "request_id": "request-1",
        "detail": {"fields": ["role", "email"], "count": 2},
    }


def test_an_event_by_an_unknown_actor_outside_a_request_has_nulls(
    service: Services, root: Person
) -> None:
    note("login", outcome="failure")
    [event] = listed(root)
    assert (event["outcome"], event["detail"]) == ("failure", {})
    assert {event[name] for name in ("actor_id", "ip", "request_id")} == {None}


def test_actions_of_the_console_and_of_keys_are_marked(
    service: Services, root: Person, alice: Person
) -> None:
    key_id = new_id()
    note(actor=CONSOLE, reason="test")
    note(actor=identity_of(alice, method="api_key", key_id=key_id))
    by_key, by_console = listed(root)
    assert by_console["actor_id"] is None
    assert by_console["detail"] == {"actor": "console", "reason": "test"}
    assert (by_key["actor_id"], by_key["detail"]) == (alice.id, {"key_id": str(key_id)})


def test_an_unknown_action_is_a_bug(service: Services, root: Person) -> None:
    with pytest.raises(ValueError, match=r"not an audit action: user\.explode"):
        note("user.explode")
    assert listed(root) == []


def test_an_event_outlives_its_user(service: Services, root: Person, alice: Person) -> None:
    record(identity_of(alice), "user.update", target=("user", UUID(alice.id)), fields=["name"])
    assert root.delete(f"/v1/users/{alice.id}").status_code == 204
    found = root.get(f"{PATH}?actor_id={alice.id}&action=user.update").json["items"]
    assert [event["target_id"] for event in found] == [alice.id]


def test_an_event_and_its_log_line_appear_only_with_the_commit(
    service: Services, called: None, root: Person, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "backend.audit"):
        with pytest.raises(ZeroDivisionError):
            note_and_fail()
        assert listed(root) == []
        assert caplog.records == []
        with current.atomic():
            target = note("user.create", fields=["role"])
            assert caplog.records == []
        assert targets(root) == [target]
        note("login", outcome="failure")
    done, failed = caplog.records
    assert (done.levelname, done.getMessage()) == ("INFO", "user.create")
    assert (failed.levelname, failed.getMessage()) == ("WARNING", "login")
    assert (str(done.target_id), done.ip, done.detail) == (
        target,
        "192.0.2.1",
        {"fields": ["role"]},
    )
    assert str(done.event_id) == listed(root)[1]["id"]


def test_names_of_details_do_not_clash_with_the_log(service: Services, root: Person) -> None:
    """Names such as `name` and `args` are taken by the records of Python's logging."""
    note(name="x", args=1, message="y", module="z")
    assert listed(root)[0]["detail"] == {"name": "x", "args": 1, "message": "y", "module": "z"}


def test_an_action_that_cannot_be_recorded_does_not_happen(
    service: Services, alice: Person, audit_refused: None, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Unavailable):
        rename(alice, "mallory")
    [line] = [line for line in caplog.records if line.levelname == "ERROR"]
    assert "not recorded, so not done: user.update" in line.getMessage()
    assert User.get_by_id(alice.id).username == "alice"


# --- who may read it, and how ---


def test_pages_go_through_all_events_newest_first(service: Services, root: Person) -> None:
    noted = [note() for _ in range(25)]
    found: list[str] = []
    query = "?action=user.update&limit=10"
    answer = root.get(PATH + query).json
    while True:
        found += [event["target_id"] for event in answer["items"]]
        if answer["next"] is None:
            break
        answer = root.get(f"{PATH}{query}&cursor={answer['next']}").json
    assert [target for target in found if target in noted] == noted[::-1]


def test_filters_select_by_actor_action_target_and_time(
    service: Services, root: Person, alice: Person, travel: Callable[..., None]
) -> None:
    first = note("login", actor=identity_of(alice))
    travel(hours=1)
    second = note("logout", actor=identity_of(alice))
    travel(hours=1)
    root = root.again()
    third = note("logout")
    assert targets(root, f"?actor_id={alice.id}") == [second, first]
    assert targets(root, "?action=logout") == [third, second]
    assert targets(root, f"?target_id={first}") == [first]
    assert targets(root, f"?action=logout&actor_id={alice.id}") == [second]
    at = listed(root, f"?target_id={second}")[0]["at"]
    assert targets(root, f"?since={at}") == [third, second]
    assert targets(root, f"?until={at}") == [first]
    assert targets(root, f"?since={at}&until={at}") == []
    assert targets(root, f"?target_id={new_id()}") == []


def test_malformed_filters_are_refused(root: Person) -> None:
    for name, values in {
        "actor_id": ["x", "", "any", str(new_id()).upper()],
        "target_id": ["x"],
        "action": ["user.explode", "", "LOGIN"],
        "since": ["yesterday", "2026-01-01", "2026-01-01T00:00:00"],
        "until": ["0"],
        "outcome": ["success"],
        "limit": ["0", "101"],
    }.items():
        for value in values:
            response = root.get(f"{PATH}?{name}={value}")
            assert_problem(response, 422, "validation_error", f"query.{name}")


def test_only_administrators_and_keys_with_the_scope_read_it(root: Person, alice: Person) -> None:
    assert_problem(alice.get(PATH), 403, "forbidden")
    reader, other = (
        root.new_key(scopes=scopes)["key"] for scopes in (["audit:read"], ["users:read"])
    )
    assert root.client.get(PATH, headers=by_key(reader)).status_code == 200
    assert_problem(root.client.get(PATH, headers=by_key(other)), 403, "insufficient_scope")
    assert_problem(root.client.get(PATH), 401, "unauthenticated")


def test_events_cannot_be_written_or_removed_over_http(service: Services, root: Person) -> None:
    note()
    [event] = listed(root)
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        response = root.client.open(PATH, method=method, headers=root.headers, json={})
        assert_problem(response, 405, "method_not_allowed")
        one = f"{PATH}/{event['id']}"
        response = root.client.open(one, method=method, headers=root.headers, json={})
        assert_problem(response, 404, "not_found")
    assert listed(root) == [event]


def test_a_corrupted_event_does_not_hide_the_others(service: Services, root: Person) -> None:
    kept, spoiled = note(), note()
    for text in ("not JSON", "[]", '"text"'):
        service.database.execute_sql(
            f"UPDATE audit_events SET detail = '{text}' WHERE target_id = '{UUID(spoiled).hex}'"
        )
        assert targets(root) == [spoiled, kept]
        assert listed(root)[0]["detail"] == {"unreadable": text}


def test_every_action_fits_its_column(service: Services, root: Person) -> None:
    for action in ACTIONS:
        note(action)
    assert [event["action"] for event in listed(root)] == list(ACTIONS[::-1])


# --- the commands ---


@pytest.fixture
def flask(app: Flask) -> Flasks:
    """The `flask` command for `app`."""
    return flask_of(app)


def test_audit_list_shows_and_filters_events(
    flask: Flasks, service: Services, client: FlaskClient, alice: Person, root: Person
) -> None:
    note("user.create", actor=CONSOLE)
    second = note("user.update", actor=identity_of(alice))
    release(service.database)
    [line] = flask("audit", "list", "--actor", "alice", "--action", "user.update").stdout.split(
        "\n"
    )[:-1]
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  user\.update +success  by ", line)
    assert line.endswith(f"by {alice.id} (alice)  from -  to test {second}")
    rows = [json.loads(line) for line in flask("audit", "list", "--json").stdout.splitlines()]
    assert [row for row in rows if row["target_type"] == "test"] == listed(root)
    for name in (alice.id, "alice@example.com"):
        assert second in flask("audit", "list", "--actor", name).stdout
    assert_done(flask("audit", "list", "--actor", str(new_id())))
    assert_done(flask("audit", "list", "--since", "2999-01-01"))
    assert second in flask("audit", "list", "--since", "2020-01-01").stdout
    assert_refused(flask("audit", "list", "--actor", "nobody"), "There is no such user.")
    assert_misused(flask("audit", "list", "--action", "nonsense"), "is not one of")


def test_audit_list_shows_names_beside_ids(
    flask: Flasks, service: Services, client: FlaskClient, alice: Person, root: Person
) -> None:
    key = alice.with_key(alice.new_key(name="backups"))
    assert key.get("/v1/users").status_code == 403
    root.delete(f"/v1/users/{alice.id}/sessions")
    assert_done(flask("users", "disable", "alice"))
    [denied] = flask("audit", "list", "--action", "access.denied").stdout.splitlines()
    assert f"by {alice.id} (alice)  from" in denied
    [created] = flask("audit", "list", "--action", "key.create").stdout.splitlines()
    assert re.search(r"to api_key [0-9a-f-]{36} \(backups\)$", created)
    [ended] = flask("audit", "list", "--action", "session.end").stdout.splitlines()
    assert f"by {root.id} (root)  from" in ended
    assert ended.endswith(f"to user {alice.id} (alice)")
    [disabled] = flask("audit", "list", "--action", "user.update").stdout.splitlines()
    assert "  by console  from -" in disabled
    root.delete(f"/v1/users/{alice.id}")
    [ended] = flask("audit", "list", "--action", "session.end").stdout.splitlines()
    assert ended.endswith(f"to user {alice.id}")


def test_audit_export_prints_all_events_oldest_first_with_their_seals(
    app: Flask, flask: Flasks, service: Services, root: Person
) -> None:
    noted = [note() for _ in range(3)]
    service.periodic_tasks.run()
    last = note()
    release(service.database)
    done = flask("audit", "export")
    assert (done.exit_code, done.stderr) == (0, "")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["id"] for row in rows] == sorted(row["id"] for row in rows)
    rows = [row for row in rows if row["target_type"] == "test"]
    assert [row["target_id"] for row in rows] == [*noted, last]
    assert [row["seal"] is None for row in rows] == [False, False, False, True]
    ours = [
        {name: value for name, value in row.items() if name not in ("sequence", "seal")}
        for row in rows
    ]
    assert ours == listed(root)[::-1]
