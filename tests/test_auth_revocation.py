"""Revocation (RFC 7009): whoever has a token can end it, and learns nothing from that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from .support.apps import statements
from .support.people import Person, by_key, by_token
from .support.problems import assert_problem
from .support.tokens import refresh

PATH = "/v1/auth/revoke"
Travel = Callable[..., None]


def revoke(client: FlaskClient, token: str, **more: str) -> None:
    """Revoke the token; the answer is always the same."""
    answer = client.post(PATH, data={"token": token, **more})
    assert (answer.status_code, answer.data) == (200, b"")
    assert "Content-Type" not in answer.headers


def me(client: FlaskClient, headers: dict[str, str]) -> int:
    """The status of asking who one is."""
    return client.get("/v1/auth/me", headers=headers).status_code


def events(root: Person, action: str) -> list[dict[str, Any]]:
    """The events of this kind in the audit trail."""
    return root.get(f"/v1/audit-events?action={action}").json["items"]


# --- what each kind ends ---


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
def test_a_token_of_a_session_ends_it_and_no_other(
    client: FlaskClient, root: Person, alice: Person, kind: str
) -> None:
    other = alice.again()
    session = alice.get("/v1/auth/sessions").json["items"][1]
    assert session["current"]
    revoke(client, getattr(alice, kind), token_type_hint=kind)
    assert me(client, alice.headers) == 401
    assert refresh(client, alice.refresh_token).status_code == 401
    assert me(client, other.headers) == 200
    [event] = events(root, "session.end")
    assert (event["target_id"], event["actor_id"]) == (session["id"], None)
    assert event["detail"] == {"user_id": alice.id}
    revoke(client, getattr(alice, kind))
    assert len(events(root, "session.end")) == 1


def test_a_key_is_revoked(client: FlaskClient, root: Person, alice: Person) -> None:
    key = alice.new_key()
    revoke(client, key["key"], token_type_hint="access_token")
    assert me(client, by_key(key["key"])) == 401
    assert alice.get(f"/v1/api-keys/{key['id']}").json["status"] == "revoked"
    assert me(client, alice.headers) == 200
    revoke(client, key["key"])
    [event] = events(root, "key.revoke")
    assert (event["target_id"], event["actor_id"]) == (key["id"], None)


def test_each_secret_of_a_key_under_rotation_revokes_it(client: FlaskClient, alice: Person) -> None:
    for which in ("old", "pending", "grace"):
        key = alice.new_key()
        new = alice.post(f"/v1/api-keys/{key['id']}/rotate", {}).json["key"]
        if which == "grace":
            assert me(client, by_key(new)) == 200
        revoke(client, new if which == "pending" else key["key"])
        assert me(client, by_key(new)) == me(client, by_key(key["key"])) == 401


def test_a_key_may_be_revoked_from_anywhere_and_when_disabled(
    client: FlaskClient, alice: Person
) -> None:
    key = alice.new_key(allowed_ips=["192.0.2.0/24"])
    path = f"/v1/api-keys/{key['id']}"
    alice.patch(path, {"disabled": True})
    revoke(client, key["key"])
    assert alice.get(path).json["status"] == "revoked"


def test_the_key_of_a_service_account_is_revoked(client: FlaskClient, root: Person) -> None:
    account = {"username": "shop", "kind": "service"}
    shop = root.post("/v1/auth/register", account).json["id"]
    key = root.post("/v1/api-keys", {"name": "x", "owner_id": shop}).json
    revoke(client, key["key"])
    assert root.get(f"/v1/api-keys/{key['id']}").json["status"] == "revoked"


# --- tokens that are not the newest ---


def test_a_replaced_refresh_token_ends_the_session(
    client: FlaskClient, root: Person, alice: Person, travel: Travel
) -> None:
    tokens = refresh(client, alice.refresh_token).json
    tokens = refresh(client, tokens["refresh_token"]).json
    travel(seconds=60)
    revoke(client, alice.refresh_token)
    assert me(client, by_token(tokens["access_token"])) == 401
    assert refresh(client, tokens["refresh_token"]).status_code == 401
    assert len(events(root, "session.end")) == 1
    assert events(root, "session.reuse") == []


def test_an_access_token_that_has_expired_ends_nothing(
    client: FlaskClient, alice: Person, travel: Travel
) -> None:
    travel(minutes=11)
    revoke(client, alice.access_token)
    assert refresh(client, alice.refresh_token).status_code == 200


def test_a_session_that_has_ended_is_not_ended_again(
    client: FlaskClient, root: Person, alice: Person, bob: Person, travel: Travel
) -> None:
    root.patch(f"/v1/users/{alice.id}", {"is_active": False})
    bob.post("/v1/auth/logout-all")
    for person in (alice, bob):
        revoke(client, person.access_token)
        revoke(client, person.refresh_token)
    assert events(root, "session.end") == []
    travel(days=8)
    revoke(client, root.refresh_token)
    assert events(root.again(), "session.end") == []


# --- what is no token ---


@pytest.mark.parametrize("text", ["bt_" + "0" * 38, "ü" * 5000, "x" * 513])
def test_other_text_changes_nothing_and_needs_no_query(bare: FlaskClient, text: str) -> None:
    revoke(bare, text)


def test_an_altered_token_changes_nothing(client: FlaskClient, alice: Person) -> None:
    key = alice.new_key()["key"]
    for token in (alice.access_token, alice.refresh_token, key):
        other = "B" if token[-1] != "B" else "C"
        for altered in (token[:-1] + other, token[:-1], token + "A", f" {token}", token.upper()):
            with statements(client.application) as ran:
                revoke(client, altered)
            assert all(statement.startswith("SELECT") for statement in ran)
    assert me(client, alice.headers) == me(client, by_key(key)) == 200


def test_a_token_of_another_purpose_changes_nothing(client: FlaskClient, alice: Person) -> None:
    for letter in "pem":
        revoke(client, alice.refresh_token.replace("btr_", f"bt{letter}_"))
    assert me(client, alice.headers) == 200


def test_a_refresh_token_does_not_work_at_the_route_for_keys(
    client: FlaskClient, alice: Person
) -> None:
    answer = client.post("/v1/api-keys/revoke", json={"key": alice.refresh_token})
    assert answer.status_code == 204
    assert me(client, alice.headers) == 200


# --- the form, and who may call ---


def test_no_credential_is_read(client: FlaskClient, alice: Person, bob: Person) -> None:
    answer = bob.post(PATH, data={"token": alice.refresh_token})
    assert answer.status_code == 200
    assert me(client, alice.headers) == 401
    headers = {"Authorization": "Bearer nonsense", "X-API-Key": "other nonsense"}
    assert client.post(PATH, data={"token": "x"}, headers=headers).status_code == 200


def test_a_form_without_the_token_is_refused(bare: FlaskClient) -> None:
    for body in ({}, {"token": ""}, {"token_type_hint": "api_key"}):
        answer = bare.post(PATH, data=body)
        assert_problem(answer, 400, "bad_request")
        assert answer.json["error"] == "invalid_request"
    assert_problem(bare.post(PATH), 400, "bad_request")


def test_parameters_that_nobody_knows_are_ignored(client: FlaskClient, alice: Person) -> None:
    revoke(client, alice.refresh_token, client_id="reports")
    assert me(client, alice.headers) == 401


def test_json_is_not_a_form(bare: FlaskClient) -> None:
    def post(**kwargs: Any) -> TestResponse:
        return bare.post(PATH, **kwargs)

    assert_problem(post(json={"token": "x"}), 415, "unsupported_media_type")
    assert_problem(post(data={"token": "a\nb"}), 422, "validation_error", "form.token")


def test_a_revocation_that_cannot_be_recorded_is_not_done(
    client: FlaskClient, alice: Person, audit_refused: None
) -> None:
    answer = client.post(PATH, data={"token": alice.refresh_token})
    assert_problem(answer, 503, "unavailable")
    assert me(client, alice.headers) == 200
