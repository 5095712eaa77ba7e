"""The second step of signing in: a code, for those who have a second factor."""

from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient

from .support.apps import client_of, url_of
from .support.mail import mails_of, token_in
from .support.mfa import code_of, enrol, first, halfway, second
from .support.people import PASSWORD, Person, by_token
from .support.problems import assert_problem
from .support.tokens import refresh

Travel = Callable[..., None]
NEW = "purple elephants drink tea"


@pytest.fixture
def secret(alice: Person, travel: Travel) -> str:
    """The secret in Alice's app; the code that switched it on is of a step that is over."""
    secret, _ = enrol(alice)
    travel(seconds=60)
    return secret


def test_the_password_alone_is_not_enough(client: FlaskClient, secret: str) -> None:
    answer = first(client)
    assert_problem(answer, 401, "mfa_required")
    assert set(answer.json) == {
        *("type", "title", "status", "code", "detail", "request_id", "mfa_token")
    }
    assert not {"access_token", "refresh_token"} & set(answer.json)
    token = answer.json["mfa_token"]
    assert_problem(client.get("/v1/auth/me", headers=by_token(token)), 401, "invalid_credentials")
    assert_problem(refresh(client, token), 401, "invalid_credentials")
    reset = {"token": token, "new_password": NEW}
    assert_problem(client.post("/v1/auth/password/reset", json=reset), 400, "invalid_token")


def test_a_wrong_password_does_not_reveal_the_second_factor(
    client: FlaskClient, secret: str
) -> None:
    answer = first(client, "wrong")
    assert_problem(answer, 401, "invalid_credentials")
    assert "mfa_token" not in answer.json


def test_a_code_completes_the_sign_in(client: FlaskClient, alice: Person, secret: str) -> None:
    answer = second(client, halfway(client), code_of(secret))
    assert answer.status_code == 200
    assert set(answer.json) == {
        *("access_token", "refresh_token", "token_type", "expires_in", "user")
    }
    assert answer.json["user"]["mfa_enabled"] is True
    me = client.get("/v1/auth/me", headers=by_token(answer.json["access_token"])).json
    assert me["id"] == alice.id
    assert refresh(client, answer.json["refresh_token"]).status_code == 200


def test_a_code_works_once(client: FlaskClient, secret: str) -> None:
    token, code = halfway(client), code_of(secret)
    assert second(client, token, code).status_code == 200
    for each in (token, halfway(client)):
        assert_problem(second(client, each, code), 401, "invalid_credentials")


def test_a_recovery_code_completes_the_sign_in_once(client: FlaskClient, alice: Person) -> None:
    _, codes = enrol(alice)
    assert second(client, halfway(client), codes[0]).status_code == 200
    assert_problem(second(client, halfway(client), codes[0]), 401, "invalid_credentials")
    assert second(client, halfway(client), codes[1].lower().replace("-", " ")).status_code == 200


def test_a_token_works_once_even_with_another_code(client: FlaskClient, alice: Person) -> None:
    _, codes = enrol(alice)
    token = halfway(client)
    assert second(client, token, codes[0]).status_code == 200
    assert_problem(second(client, token, codes[1]), 401, "invalid_credentials")
    assert second(client, halfway(client), codes[2]).status_code == 200


def test_after_five_wrong_codes_the_token_is_void(client: FlaskClient, secret: str) -> None:
    token = halfway(client)
    for _ in range(5):
        assert_problem(second(client, token, "000000"), 401, "invalid_credentials")
    assert_problem(second(client, token, code_of(secret)), 401, "invalid_credentials")
    assert second(client, halfway(client), code_of(secret)).status_code == 200


def test_wrong_codes_count_like_wrong_passwords(client: FlaskClient, secret: str) -> None:
    for _ in range(2):
        token = halfway(client)
        for _ in range(5):
            second(client, token, "000000")
    assert_problem(first(client), 429, "rate_limited")
    assert_problem(second(client, token, code_of(secret)), 429, "rate_limited")


def test_the_token_lasts_five_minutes(client: FlaskClient, secret: str, travel: Travel) -> None:
    token = halfway(client)
    travel(minutes=5, seconds=1)
    assert_problem(second(client, token, code_of(secret)), 401, "invalid_credentials")


def test_changes_of_the_account_void_the_token(
    client: FlaskClient, root: Person, alice: Person, secret: str
) -> None:
    def change_password() -> None:
        body = {"current_password": PASSWORD, "new_password": NEW}
        assert alice.post("/v1/auth/password", body).status_code == 204

    def disable() -> None:
        for active in (False, True):
            root.patch(f"/v1/users/{alice.id}", {"is_active": active})

    def end_sessions() -> None:
        assert root.delete(f"/v1/users/{alice.id}/sessions").status_code == 204

    for act, password in ((change_password, PASSWORD), (disable, NEW), (end_sessions, NEW)):
        token = first(client, password).json["mfa_token"]
        act()
        assert_problem(second(client, token, code_of(secret)), 401, "invalid_credentials")


def test_without_a_second_factor_the_token_does_not_work(
    client: FlaskClient, root: Person, alice: Person, secret: str
) -> None:
    token = halfway(client)
    root.delete(f"/v1/users/{alice.id}/mfa")
    assert_problem(second(client, token, code_of(secret)), 401, "invalid_credentials")
    assert first(client).status_code == 200


def test_a_reset_does_not_remove_the_second_factor(client: FlaskClient, secret: str) -> None:
    client.post("/v1/auth/password/forgot", json={"email": "alice@example.com"})
    token = token_in(mails_of(client)[-1])
    reset = {"token": token, "new_password": NEW}
    assert client.post("/v1/auth/password/reset", json=reset).status_code == 204
    answer = first(client, NEW)
    assert_problem(answer, 401, "mfa_required")
    assert second(client, answer.json["mfa_token"], code_of(secret)).status_code == 200


def test_both_steps_are_recorded(
    client: FlaskClient, root: Person, alice: Person, secret: str
) -> None:
    token = halfway(client)
    second(client, token, "000000")
    second(client, token, code_of(secret))
    items = root.get("/v1/audit-events?action=login.mfa").json["items"]
    assert [event["outcome"] for event in items] == ["success", "failure"]
    assert (items[0]["actor_id"], items[0]["target_type"]) == (alice.id, "session")
    assert (items[1]["actor_id"], items[1]["target_id"]) == (None, alice.id)


def test_the_secret_may_be_rotated_between_the_steps(
    make_app: Callable[..., Flask], client: FlaskClient, secret: str
) -> None:
    token = halfway(client)
    old = "a-secret-for-testing-that-everybody-knows"
    url = url_of(client.application)
    after = client_of(make_app(secret_key="n" * 32, secret_key_fallbacks=old, database_url=url))
    assert second(after, token, code_of(secret)).status_code == 200


def test_a_wrong_or_missing_member_is_reported(client: FlaskClient) -> None:
    body = {"mfa_token": "x", "code": "123456"}
    assert_problem(client.post("/v1/auth/login/mfa", json=body), 401, "invalid_credentials")
    for code in (None, 123456, "12345", "1" * 41):
        answer = client.post("/v1/auth/login/mfa", json={**body, "code": code})
        assert_problem(answer, 422, "validation_error", "json.code")
    assert_problem(
        client.post("/v1/auth/login/mfa", json={"code": "123456"}),
        422,
        "validation_error",
        "json.mfa_token",
    )
