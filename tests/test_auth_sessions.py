"""Sessions: signing in and out, refreshing, what ends a session."""

from collections.abc import Callable

import pytest
from flask.testing import FlaskClient

from .conftest import PASSWORD, Person, assert_problem, sign_in


def test_login_answers_tokens_and_the_user(client: FlaskClient, alice: Person) -> None:
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


@pytest.mark.parametrize("name", ["ALICE", "alice@example.com", "Alice@EXAMPLE.com"])
def test_login_takes_username_or_email_in_any_case(
    client: FlaskClient, alice: Person, name: str
) -> None:
    assert sign_in(client, name).id == alice.id


def test_unknown_wrong_and_disabled_are_told_alike(
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


def test_a_refreshed_session_goes_on(client: FlaskClient, alice: Person) -> None:
    response = client.post("/v1/auth/refresh", json={"refresh_token": alice.refresh_token})
    assert response.status_code == 200
    assert response.json["refresh_token"] != alice.refresh_token
    headers = {"Authorization": f"Bearer {response.json['access_token']}"}
    assert client.get("/v1/auth/me", headers=headers).json["id"] == alice.id


def test_an_old_refresh_token_ends_the_session_and_that_outlives_the_refusal(
    client: FlaskClient, alice: Person, travel: Callable[..., None]
) -> None:
    newer = client.post("/v1/auth/refresh", json={"refresh_token": alice.refresh_token}).json
    travel(seconds=11)
    replay = client.post("/v1/auth/refresh", json={"refresh_token": alice.refresh_token})
    assert_problem(replay, 401, "invalid_credentials")
    ended = client.post("/v1/auth/refresh", json={"refresh_token": newer["refresh_token"]})
    assert_problem(ended, 401, "invalid_credentials")
    assert_problem(alice.get("/v1/auth/me"), 401, "invalid_credentials")
