"""The caller's own account: who is calling, and changing the username."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from flask.testing import FlaskClient

from backend.users.rows import UserRow

from .support.people import PASSWORD, Person, add_user, sign_in
from .support.problems import assert_problem

USER = set(UserRow._fields)


def test_me_is_the_user_and_the_session(alice: Person) -> None:
    me = alice.get("/v1/auth/me").json
    auth = me.pop("auth")
    assert set(me) == USER
    assert me["id"] == alice.id
    assert (me["username"], me["email"]) == ("alice", "alice@example.com")
    assert (me["role"], me["kind"], me["is_active"]) == ("user", "person", True)
    assert (me["pending_email"], me["mfa_enabled"]) == (None, False)
    for name in ("created_at", "updated_at", "last_login_at"):
        assert me[name].endswith("Z")
        assert datetime.fromisoformat(me[name]).tzinfo
    assert set(auth) == {"method", "session_id", "scopes"}
    assert (auth["method"], auth["scopes"]) == ("session", None)


def test_each_sign_in_is_a_session_of_its_own(alice: Person) -> None:
    ids = {who.get("/v1/auth/me").json["auth"]["session_id"] for who in (alice, alice.again())}
    assert len(ids) == 2


def test_me_is_the_owner_and_the_key(alice: Person) -> None:
    key = alice.new_key(scopes=["reports:read", "keys:read"])
    me = alice.with_key(key).get("/v1/auth/me").json
    auth = me.pop("auth")
    assert set(me) == USER
    assert me["id"] == alice.id
    assert auth == {
        "method": "api_key",
        "key_id": key["id"],
        "scopes": ["keys:read", "reports:read"],
    }


def test_a_key_without_scopes_still_identifies_its_owner(alice: Person) -> None:
    me = alice.with_key(alice.new_key()).get("/v1/auth/me")
    assert me.status_code == 200
    assert me.json["auth"]["scopes"] == []


def test_me_requires_a_credential(client: FlaskClient) -> None:
    for response in (client.get("/v1/auth/me"), client.patch("/v1/auth/me", json={})):
        assert_problem(response, 401, "unauthenticated")
        assert response.headers["WWW-Authenticate"] == "Bearer"


def test_last_login_is_the_latest_sign_in(alice: Person, travel: Callable[..., None]) -> None:
    first = alice.get("/v1/auth/me").json["last_login_at"]
    travel(hours=1)
    second = alice.again().get("/v1/auth/me").json["last_login_at"]
    passed = datetime.fromisoformat(second) - datetime.fromisoformat(first)
    assert 3600 <= passed.total_seconds() < 3660


def test_a_new_username_counts_at_once(client: FlaskClient, alice: Person) -> None:
    wanted = {"username": "Alice-2", "current_password": PASSWORD}
    response = alice.patch("/v1/auth/me", wanted)
    assert response.status_code == 200
    assert set(response.json) == USER
    assert response.json["username"] == "Alice-2"
    assert alice.get("/v1/auth/me").json["username"] == "Alice-2"
    assert sign_in(client, "alice-2").id == alice.id
    former = client.post("/v1/auth/login", json={"username": "alice", "password": PASSWORD})
    assert_problem(former, 401, "invalid_credentials")
    add_user(client, "alice", email="somebody.else@example.com")


def test_only_the_case_of_the_username_may_change(alice: Person) -> None:
    response = alice.patch("/v1/auth/me", {"username": "ALICE", "current_password": PASSWORD})
    assert (response.status_code, response.json["username"]) == (200, "ALICE")


def test_a_username_that_is_taken_in_any_case_is_refused(alice: Person, bob: Person) -> None:
    response = alice.patch("/v1/auth/me", {"username": "BOB", "current_password": PASSWORD})
    assert_problem(response, 409, "username_taken")
    assert alice.get("/v1/auth/me").json["username"] == "alice"


def test_changing_your_account_requires_the_password_and_does_not_end_the_session(
    alice: Person,
) -> None:
    response = alice.patch("/v1/auth/me", {"username": "alicia", "current_password": "x" * 15})
    assert_problem(response, 403, "wrong_password")
    assert alice.get("/v1/auth/me").json["username"] == "alice"


def test_changing_nothing_changes_nothing(alice: Person, travel: Callable[..., None]) -> None:
    before = alice.get("/v1/auth/me").json
    travel(seconds=60)
    response = alice.patch("/v1/auth/me", {"current_password": PASSWORD})
    assert response.status_code == 200
    assert alice.get("/v1/auth/me").json == before


def test_the_password_is_required_whatever_is_changed(alice: Person) -> None:
    response = alice.patch("/v1/auth/me", {"username": "alicia"})
    assert_problem(response, 422, "validation_error", "json.current_password")


def test_users_cannot_set_the_rest_of_their_account(alice: Person) -> None:
    before = alice.get("/v1/auth/me").json
    rest: dict[str, Any] = {
        "id": "0192d3a4-5b6c-7d8e-9f01-23456789abcd",
        "role": "admin",
        "kind": "service",
        "is_active": True,
        "mfa_enabled": False,
        "password": "another battery staple",
        "password_hash": "$2b$04$",
        "session_epoch": 1,
        "pending_email": "alice@example.org",
        "username_folded": "root",
    }
    for name, value in rest.items():
        response = alice.patch("/v1/auth/me", {name: value, "current_password": PASSWORD})
        assert_problem(response, 422, "validation_error", f"json.{name}")
    assert alice.get("/v1/auth/me").json == before


def test_an_invalid_username_is_refused(alice: Person) -> None:
    for username in ("ab", "a" * 65, "a b c", "\u00e4lice", "", None, 7, True, ["alice"], {}):
        wanted = {"username": username, "current_password": PASSWORD}
        response = alice.patch("/v1/auth/me", wanted)
        assert_problem(response, 422, "validation_error", "json.username")


def test_a_key_cannot_change_its_owner(alice: Person) -> None:
    key = alice.with_key(alice.new_key(scopes=["keys:write"]))
    response = key.patch("/v1/auth/me", {"username": "alicia", "current_password": PASSWORD})
    assert_problem(response, 403, "session_required")
