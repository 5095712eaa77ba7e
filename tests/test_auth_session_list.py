"""The list of your sessions: which there are, from where, and ending one of them."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from .support.apps import client_of
from .support.people import PASSWORD, Person, add_user, by_token, sign_in
from .support.problems import assert_problem
from .support.tokens import refresh

PATH = "/v1/auth/sessions"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"


def test_sessions_are_listed_with_where_they_come_from(client: FlaskClient, alice: Person) -> None:
    login = {"username": "alice", "password": PASSWORD}
    client.post(
        "/v1/auth/login", json=login, headers={"User-Agent": FIREFOX + "\x9b\t" + "x" * 500}
    )
    newest, first = alice.get("/v1/auth/sessions").json["items"]
    assert set(first) == {
        *("id", "created_at", "last_used_at", "ip", "user_agent", "grace_used_at", "current")
    }
    assert first["grace_used_at"] is None
    assert (first["ip"], first["current"], newest["current"]) == ("127.0.0.1", True, False)
    assert newest["user_agent"].startswith(FIREFOX + "x")
    assert len(newest["user_agent"]) == 200


def test_a_page_of_sessions_leads_to_the_next(client: FlaskClient, alice: Person) -> None:
    alice.again()
    alice.again()
    page = alice.get("/v1/auth/sessions?limit=2").json
    rest = alice.get(f"/v1/auth/sessions?limit=2&cursor={page['next']}").json
    assert [len(page["items"]), len(rest["items"]), rest["next"]] == [2, 1, None]


def test_a_refresh_is_a_use(
    client: FlaskClient, alice: Person, travel: Callable[..., None]
) -> None:
    [before] = alice.get("/v1/auth/sessions").json["items"]
    travel(minutes=5)
    answer = client.post(
        "/v1/auth/refresh",
        json={"refresh_token": alice.refresh_token},
        headers={"User-Agent": FIREFOX},
    )
    token = answer.json["access_token"]
    [after] = client.get("/v1/auth/sessions", headers=by_token(token)).json["items"]
    assert after["last_used_at"] > before["last_used_at"]
    assert (after["id"], after["user_agent"]) == (before["id"], FIREFOX)


def test_a_session_is_never_used_before_it_was_created(
    client: FlaskClient, alice: Person, travel: Callable[..., None]
) -> None:
    def times(person: Person) -> tuple[str, str]:
        [current] = [each for each in person.get(PATH).json["items"] if each["current"]]
        return current["created_at"], current["last_used_at"]

    for person in (alice, alice.again(), alice.again()):
        created, used = times(person)
        assert used == created
    travel(seconds=-4)  # within what a token's times may differ by
    assert refresh(client, alice.refresh_token).status_code == 200
    created, used = times(alice)
    assert used == created


def refresh_as(client: FlaskClient, token: str, address: str, agent: str) -> TestResponse:
    """The answer to exchanging a refresh token from an address, with a user agent."""
    return client.post(
        "/v1/auth/refresh",
        json={"refresh_token": token},
        headers={"User-Agent": agent},
        environ_overrides={"REMOTE_ADDR": address},
    )


def grace_of(person: Person, root: Person) -> tuple[str | None, list[dict[str, Any]]]:
    """What the person's list shows of the calling session, and the events about it."""
    [current] = [each for each in person.get(PATH).json["items"] if each["current"]]
    events = root.get(f"/v1/audit-events?action=session.grace&target_id={current['id']}").json
    return current["grace_used_at"], events["items"]


@pytest.mark.parametrize(
    ("address", "agent", "differing"),
    [
        ("198.51.100.7", FIREFOX, ["ip"]),
        ("192.0.2.1", "curl/8.11", ["user_agent"]),
        ("198.51.100.7", "", ["ip", "user_agent"]),
    ],
)
def test_a_replaced_refresh_token_that_is_used_from_elsewhere_leaves_one_trace_for_each_rotation(
    client: FlaskClient,
    root: Person,
    alice: Person,
    travel: Callable[..., None],
    address: str,
    agent: str,
    differing: list[str],
) -> None:
    token, seen = alice.refresh_token, []
    for rotation in (1, 2):
        travel(seconds=30)
        newest = refresh_as(client, token, "192.0.2.1", FIREFOX).json["refresh_token"]
        for _ in range(3):
            copied = refresh_as(client, token, address, agent)
            assert copied.json["refresh_token"] == newest
        used_at, events = grace_of(alice, root)
        assert len(events) == rotation
        assert events[0]["ip"] == address
        assert events[0]["detail"] == {
            "user_id": alice.id,
            "differing": differing,
            "rotated_ip": "192.0.2.1",
        }
        seen.append(used_at)
        token = newest
    assert None not in seen
    assert seen[0] < seen[1]


def test_of_many_concurrent_uses_of_a_replaced_refresh_token_one_leaves_a_trace(
    client: FlaskClient, root: Person, alice: Person
) -> None:
    refresh_as(client, alice.refresh_token, "192.0.2.1", FIREFOX)

    def copy(number: int) -> int:
        other = client_of(client.application)
        return refresh_as(other, alice.refresh_token, f"198.51.100.{number}", "curl").status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(copy, range(16))) == {200}
    assert len(grace_of(alice, root)[1]) == 1


def test_the_tabs_of_one_browser_leave_no_trace(
    client: FlaskClient, root: Person, alice: Person
) -> None:
    for _ in range(3):
        refresh_as(client, alice.refresh_token, "192.0.2.1", FIREFOX)
    assert grace_of(alice, root) == (None, [])


def test_a_session_that_a_new_one_pushes_out_is_recorded(
    make_app: Callable[..., Flask],
) -> None:
    client = client_of(make_app(max_sessions_per_user=1))
    add_user(client, "root", role="admin")
    root = sign_in(client, "root")
    first = root.get("/v1/auth/me").json["auth"]["session_id"]
    root = root.again()
    [event] = root.get("/v1/audit-events?action=session.end").json["items"]
    assert (event["actor_id"], event["target_id"]) == (root.id, first)
    assert event["detail"] == {"reason": "limit_reached"}


def test_one_session_is_ended_and_only_that(client: FlaskClient, alice: Person) -> None:
    other = alice.again()
    [there] = [each for each in alice.get("/v1/auth/sessions").json["items"] if not each["current"]]
    assert alice.delete(f"/v1/auth/sessions/{there['id']}").status_code == 204
    assert_problem(other.get("/v1/auth/me"), 401, "invalid_credentials")
    assert refresh(client, other.refresh_token).status_code == 401
    assert alice.get("/v1/auth/me").status_code == 200
    assert_problem(alice.delete(f"/v1/auth/sessions/{there['id']}"), 404, "not_found")


def test_sessions_that_have_ended_are_not_listed(
    alice: Person, travel: Callable[..., None]
) -> None:
    travel(days=8)
    again = alice.again()
    [only] = again.get("/v1/auth/sessions").json["items"]
    assert only["current"]


def test_the_session_of_another_user_is_not_found(alice: Person, bob: Person) -> None:
    [session] = bob.get("/v1/auth/sessions").json["items"]
    assert_problem(alice.delete(f"/v1/auth/sessions/{session['id']}"), 404, "not_found")
    assert bob.get("/v1/auth/me").status_code == 200


def test_an_administrator_ends_all_sessions_of_a_user(root: Person, alice: Person) -> None:
    other = alice.again()
    assert root.delete(f"/v1/users/{alice.id}/sessions").status_code == 204
    for ended in (alice, other):
        assert_problem(ended.get("/v1/auth/me"), 401, "invalid_credentials")
    assert sign_in(alice.client, "alice").get("/v1/auth/me").status_code == 200
    assert_problem(root.delete(f"/v1/users/{root.id[:-4]}0000/sessions"), 404, "not_found")


def test_a_key_ends_the_sessions_of_users_but_not_of_administrators(
    root: Person, alice: Person
) -> None:
    headers = {"X-API-Key": root.new_key(scopes=["users:write"])["key"]}
    answer = root.client.delete(f"/v1/users/{alice.id}/sessions", headers=headers)
    assert answer.status_code == 204
    refused = root.client.delete(f"/v1/users/{root.id}/sessions", headers=headers)
    assert_problem(refused, 403, "session_required")
