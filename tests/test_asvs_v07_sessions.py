"""ASVS 5.0 chapter 7: sessions, how they begin, and how they end."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace

import jwt
from flask import Flask
from flask.testing import FlaskClient

from backend.core.settings import ROOT

from .support.apps import client_of
from .support.passwords import link_for, reset
from .support.people import NEW_PASSWORD, PASSWORD, Person, add_user, by_key, sign_in
from .support.problems import assert_problem
from .support.settings import make_settings
from .support.tokens import refresh

Travel = Callable[..., None]


def assert_over(*people: Person) -> None:
    """Neither token of these sessions is good any more."""
    for person in people:
        assert_problem(person.get("/v1/auth/me"), 401, "invalid_credentials")
        answer = refresh(person.client, person.refresh_token)
        assert_problem(answer, 401, "invalid_credentials")


def test_7_1_1_lifetimes_are_documented_and_so_is_the_number_of_sessions(
    make_app: Callable[..., Flask],
) -> None:
    settings, page = make_settings(), (ROOT / "docs" / "settings.md").read_text("utf-8")
    for name, value in {
        "JWT_ACCESS_TOKEN_EXPIRE_MINUTES": 10,
        "JWT_REFRESH_TOKEN_EXPIRE_DAYS": 7,
        "SESSION_ABSOLUTE_DAYS": 30,
        "MAX_SESSIONS_PER_USER": 20,
    }.items():
        assert getattr(settings, name.lower()) == value
        [row] = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        assert row.endswith(f"| `{value}` |")
    client = client_of(make_app(max_sessions_per_user=2))
    add_user(client, "alice")
    first, second, third = (sign_in(client, "alice") for _ in range(3))
    assert_over(first)
    assert [each.get("/v1/auth/me").status_code for each in (second, third)] == [200, 200]


def test_7_2_2_a_key_is_no_session(client: FlaskClient, root: Person) -> None:
    scopes = ["keys:*", "users:*", "audit:*", "tokens:*"]
    text = root.new_key(scopes=scopes)["key"]
    key = replace(root, access_token=text)
    session = root.get("/v1/auth/me").json["auth"]["session_id"]
    for refused in (
        key.post("/v1/auth/password", {"current_password": PASSWORD, "new_password": NEW_PASSWORD}),
        key.patch("/v1/auth/me", {"username": "mallory", "current_password": PASSWORD}),
        key.post("/v1/auth/logout"),
        key.post("/v1/auth/logout-all"),
        key.get("/v1/auth/sessions"),
        key.delete(f"/v1/auth/sessions/{session}"),
        key.get("/v1/auth/mfa"),
        key.post("/v1/auth/mfa", {"current_password": PASSWORD}),
        key.patch(f"/v1/users/{root.id}", {"username": "mallory"}),
    ):
        assert_problem(refused, 403, "session_required")
    assert_problem(refresh(client, text), 401, "invalid_credentials")


def test_7_2_3_tokens_are_unguessable_and_alike_in_nothing_but_their_kind(
    client: FlaskClient,
) -> None:
    add_user(client, "alice")
    tokens = [sign_in(client, "alice").refresh_token for _ in range(32)]
    parts = [token.removeprefix("btr_").split(".") for token in tokens]
    signatures = [base64.urlsafe_b64decode(f"{signature}=") for _, signature in parts]
    assert {len(signature) for signature in signatures} == {32}  # bytes
    assert len({signature[:4] for signature in signatures}) == len(tokens)


def test_7_2_4_each_sign_in_is_a_session_of_its_own(client: FlaskClient, alice: Person) -> None:
    again = alice.again()
    claims = [
        jwt.decode(each.access_token, options={"verify_signature": False})
        for each in (alice, again)
    ]
    for name in ("sid", "jti"):
        assert claims[0][name] != claims[1][name]
    assert alice.refresh_token != again.refresh_token
    body = {"username": "alice", "password": PASSWORD, "refresh_token": alice.refresh_token}
    chosen = client.post("/v1/auth/login", json=body)
    assert_problem(chosen, 422, "validation_error", "json.refresh_token")


def test_7_3_1_an_idle_session_ends_after_a_week(alice: Person, travel: Travel) -> None:
    other = alice.again()
    travel(days=6, hours=23)
    assert refresh(alice.client, other.refresh_token).status_code == 200
    travel(days=1)
    assert_over(alice)


def test_7_3_2_a_session_in_use_ends_after_thirty_days(
    client: FlaskClient, alice: Person, travel: Travel
) -> None:
    token = alice.refresh_token
    for _ in range(30):
        fresh = refresh(client, token)
        assert fresh.status_code == 200
        token = fresh.json["refresh_token"]
        travel(days=1)
    assert_problem(refresh(client, token), 401, "invalid_credentials")


def test_7_4_1_a_session_is_over_once_its_user_signs_out(alice: Person) -> None:
    other = alice.again()
    assert alice.post("/v1/auth/logout").status_code == 204
    assert_over(alice)
    assert other.get("/v1/auth/me").status_code == 200


def test_7_4_2_who_is_disabled_or_deleted_has_no_session(
    root: Person, alice: Person, bob: Person
) -> None:
    keys = [person.new_key()["key"] for person in (alice, bob)]
    assert root.patch(f"/v1/users/{alice.id}", {"is_active": False}).status_code == 200
    assert root.delete(f"/v1/users/{bob.id}").status_code == 204
    for key in keys:
        answer = root.client.get("/v1/auth/me", headers=by_key(key))
        assert_problem(answer, 401, "invalid_credentials")
    assert_over(alice, bob)
    assert root.patch(f"/v1/users/{alice.id}", {"is_active": True}).status_code == 200
    assert_over(alice)


def test_7_4_3_a_new_password_ends_the_other_sessions(client: FlaskClient, alice: Person) -> None:
    other = alice.again()
    body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    assert alice.post("/v1/auth/password", body).status_code == 204
    assert_over(other)
    assert alice.get("/v1/auth/me").status_code == 200
    assert refresh(client, alice.refresh_token).status_code == 200
    assert reset(client, link_for(client, "alice@example.com"), PASSWORD).status_code == 204
    assert_over(alice)


def test_7_4_5_an_administrator_ends_all_sessions_of_a_user(
    root: Person, alice: Person, bob: Person
) -> None:
    other = alice.again()
    assert root.delete(f"/v1/users/{alice.id}/sessions").status_code == 204
    assert_over(alice, other)
    assert bob.get("/v1/auth/me").status_code == 200


def test_7_5_1_what_matters_takes_the_password_again(alice: Person) -> None:
    for change in ({"email": "new@example.com"}, {"username": "alicia"}):
        missing = alice.patch("/v1/auth/me", change)
        assert_problem(missing, 422, "validation_error", "json.current_password")
        wrong = alice.patch("/v1/auth/me", {**change, "current_password": "wrong"})
        assert_problem(wrong, 403, "wrong_password")
    wrong = alice.post("/v1/auth/mfa", {"current_password": "wrong"})
    assert_problem(wrong, 403, "wrong_password")
    me = alice.get("/v1/auth/me").json
    assert (me["username"], me["pending_email"]) == ("alice", None)


def test_7_5_2_users_see_and_end_their_own_sessions(alice: Person, bob: Person) -> None:
    other = alice.again()
    listed = alice.get("/v1/auth/sessions").json["items"]
    assert [each["current"] for each in listed] == [False, True]
    assert alice.delete(f"/v1/auth/sessions/{listed[0]['id']}").status_code == 204
    assert_over(other)
    assert alice.get("/v1/auth/me").status_code == 200
    [theirs] = bob.get("/v1/auth/sessions").json["items"]
    assert_problem(alice.delete(f"/v1/auth/sessions/{theirs['id']}"), 404, "not_found")
    assert bob.get("/v1/auth/me").status_code == 200
