"""ASVS 5.0 chapter 16: what is recorded of whom, what never is, and how it fails."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from backend.audit.service import ACTIONS
from backend.db.database import release
from backend.web.access import public

from .support.apps import service_of
from .support.passwords import guess, guesses
from .support.people import NEW_PASSWORD, PASSWORD, Person, by_key, by_token
from .support.problems import assert_problem
from .support.tokens import refresh

Logged = Callable[[], list[str]]
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
INJECTION = 'a\r\n{"level": "INFO"}\x1b[31m\x00b\u2028c'


def lines(logged: Logged) -> list[dict[str, Any]]:
    """The lines of the log so far."""
    return [json.loads(line) for line in logged()]


def recorded(root: Person) -> list[tuple[str, str, str | None]]:
    """(action, outcome, code) of all events, oldest first."""
    items = root.get("/v1/audit-events?limit=100").json["items"]
    return [(each["action"], each["outcome"], each["detail"].get("code")) for each in items[::-1]]


def test_16_2_1_each_line_says_when_where_who_and_what(
    alice: Person, root: Person, logged: Logged
) -> None:
    alice.get("/v1/users")
    guess(alice.client, "alice", "wrong")
    found = lines(logged)
    requests = [line for line in found if "status" in line]
    assert [line["status"] for line in requests[-2:]] == [403, 401]
    for line in found:
        assert {"ts", "level", "logger", "msg"} <= set(line)
        assert line["level"] in {"DEBUG", "INFO", "WARNING", "ERROR"}
    for line in requests:
        assert {"request_id", "method", "route", "ms", "ip"} <= set(line)
    assert requests[-2]["who"] == f"user:{alice.id}"
    events = [line for line in found if line["msg"] in ACTIONS]
    assert [line["msg"] for line in events[-2:]] == ["access.denied", "login"]
    for line in events[-2:]:
        assert {"event_id", "outcome", "request_id", "ip"} <= set(line)
    assert events[-2]["actor_id"] == alice.id
    assert events[-2]["request_id"] == requests[-2]["request_id"]


def test_16_2_2_times_are_utc(root: Person, logged: Logged) -> None:
    before = datetime.now(UTC) - timedelta(seconds=60)
    root.again()
    for line in lines(logged):
        assert TIME.fullmatch(line["ts"])
        assert before < datetime.fromisoformat(line["ts"]) < before + timedelta(minutes=2)
    [event, *_] = root.get("/v1/audit-events").json["items"]
    assert event["at"].endswith("Z")
    assert before < datetime.fromisoformat(event["at"]) < before + timedelta(minutes=2)


def test_16_3_1_who_signs_in_and_who_does_not_is_recorded(root: Person, logged: Logged) -> None:
    guess(root.client, "root", "wrong")
    guess(root.client, "nobody", "wrong")
    root.post("/v1/auth/password", {"current_password": "wrong", "new_password": NEW_PASSWORD})
    root.again().post("/v1/auth/logout")
    assert recorded(root)[-5:] == [
        ("login", "failure", "invalid_credentials"),
        ("login", "failure", "invalid_credentials"),
        ("password.change", "failure", "wrong_password"),
        ("login", "success", None),
        ("logout", "success", None),
    ]
    levels = {line["msg"]: line["level"] for line in lines(logged) if "outcome" in line}
    assert (levels["password.change"], levels["logout"]) == ("WARNING", "INFO")


def test_16_3_2_who_may_not_is_recorded(root: Person, alice: Person) -> None:
    key = alice.with_key(alice.new_key())
    bound = alice.with_key(alice.new_key(allowed_ips=["192.0.2.0/24"]))
    alice.get("/v1/users")
    key.get("/v1/api-keys")
    key.post("/v1/auth/logout")
    bound.get("/v1/auth/me")
    assert recorded(root)[-4:] == [
        ("access.denied", "failure", code)
        for code in ("forbidden", "insufficient_scope", "session_required", "ip_not_allowed")
    ]
    [event] = root.get("/v1/audit-events?limit=1").json["items"]
    assert (event["actor_id"], event["detail"]["route"]) == (alice.id, "/v1/auth/me")


def test_16_3_3_who_tries_to_get_around_is_recorded(
    root: Person, alice: Person, logged: Logged, travel: Callable[..., None]
) -> None:
    refresh(alice.client, alice.refresh_token)
    travel(seconds=11)
    refresh(alice.client, alice.refresh_token)
    assert recorded(root)[-1] == ("session.reuse", "failure", None)
    guesses(alice.client, "alice", 11)
    for headers in (by_token("a.b.c"), by_token(alice.refresh_token), by_key("bt_guess")):
        alice.client.get("/v1/auth/me", headers=headers)
    statuses = [line["status"] for line in lines(logged) if "status" in line]
    assert statuses[-4:] == [429, 401, 401, 401]  # these are in the log alone
    assert ("login", "failure", "rate_limited") not in recorded(root)


@pytest.fixture
def faulty(make_bare_app: Callable[..., Flask]) -> FlaskClient:
    """A client of an app with a route that fails."""
    app = make_bare_app()

    @app.get("/fault")
    @public
    def fault() -> None:
        raise RuntimeError("canary of a fault")

    return app.test_client()


def test_16_3_4_a_fault_is_logged(faulty: FlaskClient, logged: Logged) -> None:
    answer = faulty.get("/fault")
    [line] = [line for line in lines(logged) if line["level"] == "ERROR"]
    assert "canary of a fault" in line["exc"]
    assert line["request_id"] == answer.headers["X-Request-ID"]


@pytest.mark.parametrize("text", [INJECTION, "\x1b]0;owned\x07", "x" * 1_000_000])
def test_16_4_1_what_is_sent_makes_no_line_of_its_own(
    client: FlaskClient, root: Person, logged: Logged, text: str
) -> None:
    before = len(logged())
    browser = {"HTTP_USER_AGENT": text, "HTTP_X_REQUEST_ID": text, "HTTP_REFERER": text}
    body = {"username": "root", "password": PASSWORD}
    for name in ("root", text[:30_000]):
        answer = client.post(
            "/v1/auth/login", json={**body, "username": name}, environ_overrides=browser
        )
        assert answer.status_code == (200 if name == "root" else 422)
    added = logged()[before:]
    for line in added:
        assert json.loads(line)
        assert line.isascii()
        assert line.isprintable()
        assert len(line) < 10_000
    assert len([line for line in added if '"status"' in line]) == 2
    [newest, *_] = root.get("/v1/auth/sessions").json["items"]
    assert newest["user_agent"].isprintable()
    assert len(newest["user_agent"]) <= 200


def test_16_4_2_nothing_changes_what_is_recorded(app: Flask, root: Person) -> None:
    [event, *_] = root.get("/v1/audit-events").json["items"]
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        answer = root.client.open("/v1/audit-events", method=method, headers=root.headers)
        assert_problem(answer, 405, "method_not_allowed")
        answer = root.client.open(
            f"/v1/audit-events/{event['id']}", method=method, headers=root.headers
        )
        assert_problem(answer, 404, "not_found")
    service_of(app).periodic_tasks.run()  # seals
    verify = lambda: app.test_cli_runner().invoke(args=["audit", "verify"])  # noqa: E731
    assert verify().exit_code == 0
    database = service_of(app).database
    database.execute_sql("UPDATE audit_events SET outcome = 'failure' WHERE action = 'login'")
    release(database)
    assert verify().exit_code == 1


def test_16_5_1_a_fault_is_told_without_what_it_was(faulty: FlaskClient) -> None:
    answer = faulty.get("/fault")
    assert_problem(answer, 500, "internal_error")
    assert set(answer.json) == {"type", "title", "status", "code", "detail", "request_id"}
    for word in ("canary", "RuntimeError", "Traceback", "backend/", "line "):
        assert word not in answer.text


def test_16_5_2_without_a_database_nobody_is_let_in(
    make_bare_app: Callable[..., Flask], bare: FlaskClient, alice: Person
) -> None:
    key = alice.new_key()["key"]
    for headers in (alice.headers, by_key(key), by_token(key)):
        for path in ("/v1/auth/me", "/v1/users", "/v1/api-keys"):
            answer = bare.get(path, headers=headers)
            assert_problem(answer, 503, "unavailable")
            assert "Retry-After" in answer.headers
    assert_problem(guess(bare, "alice", PASSWORD), 503, "unavailable")
    assert_problem(refresh(bare, alice.refresh_token), 503, "unavailable")


def test_16_5_3_what_cannot_be_recorded_is_not_done(
    client: FlaskClient, root: Person, audit_refused: None
) -> None:
    body = {"username": "root", "password": PASSWORD}
    assert_problem(client.post("/v1/auth/login", json=body), 503, "unavailable")
    assert_problem(root.post("/v1/api-keys", {"name": "x"}), 503, "unavailable")
    assert root.get("/v1/api-keys").json["items"] == []
    assert len(root.get("/v1/auth/sessions").json["items"]) == 1


@pytest.mark.slow
def test_16_5_4_a_thousand_faults_are_survived(faulty: FlaskClient) -> None:
    assert {faulty.get("/fault").status_code for _ in range(1000)} == {500}
    assert faulty.get("/healthz").status_code == 200
