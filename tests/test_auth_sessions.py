"""Sessions: signing in and out, refreshing, what ends a session."""

from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from .support.apps import client_of
from .support.people import PASSWORD, Person, add_user, by_token, sign_in
from .support.problems import assert_problem
from .support.tokens import refresh


def assert_goes_on(person: Person) -> None:
    """Assert that the person's access token works."""
    assert person.get("/v1/auth/me").status_code == 200


def assert_ended(person: Person) -> None:
    """Assert that neither of the person's tokens works."""
    assert_problem(person.get("/v1/auth/me"), 401, "invalid_credentials")
    assert_problem(refresh(person.client, person.refresh_token), 401, "invalid_credentials")


def newer(response: TestResponse) -> str:
    """The refresh token of an answer that went well."""
    assert response.status_code == 200, response.json
    return response.json["refresh_token"]


# --- signing in ---


def test_login_returns_tokens_and_the_user(client: FlaskClient, alice: Person) -> None:
    response = client.post("/v1/auth/login", json={"username": "alice", "password": PASSWORD})
    assert response.status_code == 200
    assert set(response.json) == {
        "access_token",
        "refresh_token",
        "token_type",
        "expires_in",
        "user",
    }
    assert response.json["token_type"] == "Bearer"
    assert response.json["expires_in"] == 600
    assert response.json["user"]["id"] == alice.id
    assert response.json["user"]["last_login_at"].endswith("Z")
    assert "Set-Cookie" not in response.headers


def test_login_takes_username_or_email_in_any_case(client: FlaskClient, alice: Person) -> None:
    for name in ("alice", "ALICE", "alice@example.com", "Alice@EXAMPLE.com"):
        assert sign_in(client, name).id == alice.id


def test_unknown_wrong_and_disabled_get_the_same_answer(
    client: FlaskClient, root: Person, alice: Person, bob: Person
) -> None:
    assert root.patch(f"/v1/users/{bob.id}", {"is_active": False}).status_code == 200
    tries = [("nobody", PASSWORD), ("alice", PASSWORD + "!"), ("bob", PASSWORD)]
    answers = []
    for username, password in tries:
        response = client.post("/v1/auth/login", json={"username": username, "password": password})
        assert_problem(response, 401, "invalid_credentials")
        assert response.headers["WWW-Authenticate"] == "Bearer"
        answers.append(response.json | {"request_id": ""})
    assert answers[0] == answers[1] == answers[2]


def test_login_reports_each_faulty_field(client: FlaskClient) -> None:
    good = {"username": "alice", "password": PASSWORD}
    for name in good:
        for value in (None, 1, True, [], {}, "", "nul\0", "lone \ud800"):
            response = client.post("/v1/auth/login", json=good | {name: value})
            assert_problem(response, 422, "validation_error", f"json.{name}")
        response = client.post("/v1/auth/login", json={name: good[name]})
        assert_problem(response, 422, "validation_error", f"json.{({*good} - {name}).pop()}")
    response = client.post("/v1/auth/login", json=good | {"username": "a" * 255})
    assert_problem(response, 422, "validation_error", "json.username")
    response = client.post("/v1/auth/login", json=good | {"remember": True})
    assert_problem(response, 422, "validation_error", "json.remember")


def test_login_takes_no_other_spelling(client: FlaskClient, alice: Person) -> None:
    for name in ("alice ", " alice", "alice@", "@example.com", "alice@b@example.com", "%", "\\"):
        response = client.post("/v1/auth/login", json={"username": name, "password": PASSWORD})
        assert_problem(response, 401, "invalid_credentials")


def test_login_never_repeats_the_password(client: FlaskClient, alice: Person) -> None:
    secret = "a password that nobody should ever see again"
    body = {"username": "alice", "password": secret}
    answers = [
        client.post("/v1/auth/login", json=body),
        client.post("/v1/auth/login", json=body | {"password": [secret]}),
        client.post("/v1/auth/login", json=body | {"password": secret * 40}),
    ]
    assert all(secret not in answer.text for answer in answers)


def test_login_reads_no_credentials(client: FlaskClient, alice: Person) -> None:
    headers = {"Authorization": "Bearer rubbish", "X-API-Key": "other rubbish"}
    body = {"username": "alice", "password": PASSWORD}
    assert client.post("/v1/auth/login", json=body, headers=headers).status_code == 200


# --- refreshing ---


def test_a_refreshed_session_continues(client: FlaskClient, alice: Person) -> None:
    response = refresh(client, alice.refresh_token)
    assert response.status_code == 200
    assert set(response.json) == {
        "access_token",
        "refresh_token",
        "token_type",
        "expires_in",
        "user",
    }
    assert response.json["refresh_token"] != alice.refresh_token
    headers = by_token(response.json["access_token"])
    assert client.get("/v1/auth/me", headers=headers).json["id"] == alice.id


def test_a_refresh_keeps_the_session(client: FlaskClient, alice: Person) -> None:
    before = alice.get("/v1/auth/me").json["auth"]
    headers = by_token(refresh(client, alice.refresh_token).json["access_token"])
    assert client.get("/v1/auth/me", headers=headers).json["auth"] == before
    assert_goes_on(alice)


def test_the_token_before_the_newest_gets_the_newest_again_for_ten_seconds(
    client: FlaskClient, alice: Person, travel: Callable[..., None]
) -> None:
    second = newer(refresh(client, alice.refresh_token))
    assert newer(refresh(client, alice.refresh_token)) == second
    travel(seconds=9)
    assert newer(refresh(client, alice.refresh_token)) == second
    assert newer(refresh(client, second)) not in {alice.refresh_token, second}


def test_an_old_refresh_token_ends_the_session_and_that_outlives_the_refusal(
    client: FlaskClient, alice: Person, travel: Callable[..., None]
) -> None:
    second = newer(refresh(client, alice.refresh_token))
    travel(seconds=11)
    assert_problem(refresh(client, alice.refresh_token), 401, "invalid_credentials")
    assert_problem(refresh(client, second), 401, "invalid_credentials")
    assert_problem(alice.get("/v1/auth/me"), 401, "invalid_credentials")


def test_a_token_two_rotations_old_ends_the_session_at_once(
    client: FlaskClient, alice: Person
) -> None:
    third = newer(refresh(client, newer(refresh(client, alice.refresh_token))))
    assert_problem(refresh(client, alice.refresh_token), 401, "invalid_credentials")
    assert_problem(refresh(client, third), 401, "invalid_credentials")
    assert_ended(alice)


def test_the_reuse_of_one_session_ends_no_other(client: FlaskClient, alice: Person) -> None:
    other = alice.again()
    newer(refresh(client, newer(refresh(client, alice.refresh_token))))
    assert_problem(refresh(client, alice.refresh_token), 401, "invalid_credentials")
    assert_ended(alice)
    assert_goes_on(other)


def test_without_grace_the_token_before_the_newest_ends_the_session(
    make_app: Callable[..., Flask],
) -> None:
    client = client_of(make_app(refresh_grace_seconds=0))
    add_user(client, "alice")
    alice = sign_in(client, "alice")
    second = newer(refresh(client, alice.refresh_token))
    assert_problem(refresh(client, alice.refresh_token), 401, "invalid_credentials")
    assert_problem(refresh(client, second), 401, "invalid_credentials")


def test_a_session_ends_after_seven_days_without_a_refresh(
    client: FlaskClient, alice: Person, travel: Callable[..., None]
) -> None:
    idle = alice.again()
    travel(days=6, hours=23)
    second = newer(refresh(client, alice.refresh_token))
    travel(hours=2)
    assert_problem(refresh(client, idle.refresh_token), 401, "invalid_credentials")
    assert newer(refresh(client, second))


def test_a_session_ends_after_thirty_days_however_busy(
    client: FlaskClient, alice: Person, travel: Callable[..., None]
) -> None:
    token = alice.refresh_token
    for _ in range(5):
        travel(days=5, hours=23)
        token = newer(refresh(client, token))
    travel(hours=4, minutes=58)
    last = refresh(client, token)
    token = newer(last)
    travel(minutes=4)  # the access token is younger than ten minutes
    headers = by_token(last.json["access_token"])
    assert_problem(client.get("/v1/auth/me", headers=headers), 401, "invalid_credentials")
    assert_problem(refresh(client, token), 401, "invalid_credentials")


def test_refresh_accepts_only_text(client: FlaskClient) -> None:
    for value in (None, 1, True, [], {}, "", "a\nb", "lone \ud800"):
        response = client.post("/v1/auth/refresh", json={"refresh_token": value})
        assert_problem(response, 422, "validation_error", "json.refresh_token")


# --- how many ---


def test_of_too_many_sessions_the_longest_unused_ends(
    make_app: Callable[..., Flask], travel: Callable[..., None]
) -> None:
    client = client_of(make_app(max_sessions_per_user=3))
    add_user(client, "alice")
    sessions = []
    for _ in range(3):
        sessions.append(sign_in(client, "alice"))
        travel(minutes=1)
    newer(refresh(client, sessions[0].refresh_token))
    travel(minutes=1)
    newest = sign_in(client, "alice")
    assert_ended(sessions[1])
    for survivor in (sessions[0], sessions[2], newest):
        assert_goes_on(survivor)


def test_the_sessions_of_others_do_not_count(make_app: Callable[..., Flask]) -> None:
    client = client_of(make_app(max_sessions_per_user=1))
    add_user(client, "alice")
    add_user(client, "bob")
    alice, bob = sign_in(client, "alice"), sign_in(client, "bob")
    assert_goes_on(alice)
    assert_goes_on(bob)
    assert_goes_on(alice.again())
    assert_ended(alice)


# --- signing out ---


def test_logout_ends_only_the_calling_session(client: FlaskClient, alice: Person) -> None:
    other = alice.again()
    response = alice.post("/v1/auth/logout")
    assert (response.status_code, response.data) == (204, b"")
    assert_ended(alice)
    assert_goes_on(other)
    assert newer(refresh(client, other.refresh_token))


def test_logout_all_ends_only_the_sessions_of_the_caller(alice: Person, bob: Person) -> None:
    other = alice.again()
    response = alice.post("/v1/auth/logout-all")
    assert (response.status_code, response.data) == (204, b"")
    assert_ended(alice)
    assert_ended(other)
    assert_goes_on(bob)
    assert_goes_on(alice.again())


@pytest.mark.parametrize("path", ["/v1/auth/logout", "/v1/auth/logout-all"])
def test_signing_out_twice_is_refused(client: FlaskClient, alice: Person, path: str) -> None:
    assert alice.post(path).status_code == 204
    assert_problem(alice.post(path), 401, "invalid_credentials")
    assert_problem(client.post(path), 401, "unauthenticated")


@pytest.mark.parametrize("path", ["/v1/auth/logout", "/v1/auth/logout-all"])
def test_a_key_cannot_sign_anyone_out(alice: Person, path: str) -> None:
    key = alice.with_key(alice.new_key(scopes=["keys:read"]))
    assert_problem(key.post(path), 403, "session_required")
    assert_goes_on(alice)


def test_signing_out_leaves_keys_alone(alice: Person) -> None:
    key = alice.with_key(alice.new_key())
    assert alice.post("/v1/auth/logout-all").status_code == 204
    assert_goes_on(key)


# --- what counts at the next request ---


def test_a_disabled_user_is_out_at_the_next_request(root: Person, alice: Person) -> None:
    key = alice.with_key(alice.new_key())
    assert root.patch(f"/v1/users/{alice.id}", {"is_active": False}).status_code == 200
    assert_ended(alice)
    assert_problem(key.get("/v1/auth/me"), 401, "invalid_credentials")


def test_enabling_a_user_again_revives_keys_but_no_session(root: Person, alice: Person) -> None:
    key = alice.with_key(alice.new_key())
    for is_active in (False, True):
        changed = root.patch(f"/v1/users/{alice.id}", {"is_active": is_active})
        assert changed.json["is_active"] is is_active
    assert_ended(alice)
    assert_goes_on(key)
    assert_goes_on(alice.again())


def test_a_changed_role_counts_at_the_next_request(root: Person, alice: Person) -> None:
    assert_problem(alice.get("/v1/users"), 403, "forbidden")
    assert root.patch(f"/v1/users/{alice.id}", {"role": "admin"}).status_code == 200
    assert alice.get("/v1/users").status_code == 200
    assert root.patch(f"/v1/users/{alice.id}", {"role": "user"}).status_code == 200
    assert_problem(alice.get("/v1/users"), 403, "forbidden")


def test_a_deleted_user_is_out_at_the_next_request(root: Person, alice: Person) -> None:
    assert root.delete(f"/v1/users/{alice.id}").status_code == 204
    assert_ended(alice)
