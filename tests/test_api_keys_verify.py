"""Verifying a key that was presented: the answer is 200, and contains the decision."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient

from backend.db.database import release

from .support.apps import service_of, statements
from .support.keys import flush, verify
from .support.people import Person, add_user
from .support.problems import assert_problem

Travel = Callable[..., None]


def test_a_valid_key_is_described(root: Person, alice: Person) -> None:
    key = alice.new_key(scopes=["reports:read"], metadata={"team": "search", "n": [1, None]})
    answer = verify(root, key["key"])
    assert answer == {
        "valid": True,
        "code": "valid",
        "key_id": key["id"],
        "owner": {"id": alice.id, "username": "alice", "role": "user", "kind": "person"},
        "name": "test",
        "scopes": ["reports:read"],
        "metadata": {"team": "search", "n": [1, None]},
        "expires_at": None,
    }


@pytest.mark.parametrize("text", ["", "x", "bt_" + "0" * 38, "a" * 5000, "schön"])
def test_text_that_is_not_a_key_is_not_found(root: Person, text: str) -> None:
    assert verify(root, text) == {"valid": False, "code": "not_found"}


def test_a_refresh_or_access_token_is_not_a_key(root: Person, alice: Person) -> None:
    for token in (alice.access_token, alice.refresh_token):
        assert verify(root, token) == {"valid": False, "code": "not_found"}


def test_the_first_check_that_fails_is_the_answer(
    root: Person, alice: Person, travel: Travel
) -> None:
    key = alice.new_key(scopes=["a:b"], allowed_ips=["192.0.2.0/24"], expires_in_days=1)
    asked = {"scopes": ["a:c"], "ip": "198.51.100.1"}

    def code() -> str:
        answer = verify(root, key["key"], **asked)
        assert answer["valid"] is (answer["code"] == "valid")
        return answer["code"]

    assert code() == "ip_not_allowed"
    asked["ip"] = "192.0.2.9"
    assert code() == "insufficient_scope"
    asked["scopes"] = ["a:b"]
    assert code() == "valid"
    asked |= {"scopes": ["a:c"], "ip": "198.51.100.1"}
    root.patch(f"/v1/users/{alice.id}", {"is_active": False})
    assert code() == "owner_inactive"
    travel(days=1)
    root = root.again()
    assert code() == "expired"
    root.patch(f"/v1/api-keys/{key['id']}", {"disabled": True})
    assert code() == "disabled"
    root.post(f"/v1/api-keys/{key['id']}/revoke")
    assert code() == "revoked"
    root.delete(f"/v1/api-keys/{key['id']}")
    assert code() == "not_found"


def test_a_key_bound_to_addresses_is_refused_without_an_address(
    root: Person, alice: Person
) -> None:
    bound = alice.new_key(allowed_ips=["192.0.2.0/24"])["key"]
    assert verify(root, bound)["code"] == "ip_not_allowed"
    assert verify(root, bound, ip="::ffff:192.0.2.1")["code"] == "valid"
    assert verify(root, alice.new_key()["key"])["code"] == "valid"


def test_scopes_are_those_that_the_owner_may_hold_now(root: Person, alice: Person) -> None:
    path = f"/v1/users/{alice.id}"
    root.patch(path, {"role": "admin"})
    key = alice.new_key(scopes=["users:read", "reports:*"])["key"]
    assert verify(root, key, scopes=["users:read", "reports:x"])["valid"]
    root.patch(path, {"role": "user"})
    answer = verify(root, key, scopes=["users:read"])
    assert (answer["code"], answer["scopes"]) == ("insufficient_scope", ["reports:*"])


def test_who_may_call_it(root: Person, alice: Person) -> None:
    key = alice.new_key()["key"]
    assert_problem(alice.post("/v1/api-keys/verify", {"key": key}), 403, "forbidden")
    asker = root.with_key(root.new_key(scopes=["keys:verify"]))
    assert verify(asker, key)["valid"]
    wrong = root.with_key(root.new_key(scopes=["keys:read"]))
    refused = wrong.post("/v1/api-keys/verify", {"key": key})
    assert_problem(refused, 403, "insufficient_scope")


def test_a_service_account_may_have_a_key_that_verifies(
    client: FlaskClient, root: Person, alice: Person
) -> None:
    account = {"username": "shop", "kind": "service"}
    shop = root.post("/v1/auth/register", account).json["id"]
    made = root.post("/v1/api-keys", {"name": "asks", "scopes": ["keys:verify"], "owner_id": shop})
    assert made.status_code == 201
    assert made.json["owner_id"] == shop
    assert verify(root.with_key(made.json), alice.new_key()["key"])["valid"]


def test_a_valid_answer_counts_as_a_use_and_others_do_not(
    client: FlaskClient, root: Person, alice: Person
) -> None:
    key = alice.new_key(scopes=["a:b"])
    path = f"/v1/api-keys/{key['id']}"
    for asked in (
        {"scopes": ["a:c"]},
        {"cost": 0},
        {"explain": True},
    ):
        verify(root, key["key"], ip="192.0.2.1", **asked)
    flush(client.application)
    assert alice.get(path).json["last_used_at"] is None
    verify(root, key["key"], ip="192.0.2.1")
    flush(client.application)
    used = alice.get(path).json
    assert used["last_used_at"] is not None
    assert used["last_used_ip"] == "192.0.2.1"


def test_explaining_lists_every_check(root: Person, alice: Person) -> None:
    key = alice.new_key(scopes=["a:b"], allowed_ips=["192.0.2.0/24"])
    answer = verify(root, key["key"], scopes=["a:c"], explain=True)
    outcomes = {check["code"]: check["passed"] for check in answer["checks"]}
    assert list(outcomes) == [
        *("not_found", "revoked", "disabled", "expired", "owner_inactive"),
        *("ip_not_allowed", "insufficient_scope", "rate_limited", "usage_exceeded"),
    ]
    assert [code for code, passed in outcomes.items() if not passed] == [
        "ip_not_allowed",
        "insufficient_scope",
    ]
    assert answer["code"] == "ip_not_allowed"
    nothing = verify(root, "nothing", explain=True)
    assert nothing["checks"] == [{"code": "not_found", "passed": False}]


def test_owners_explain_their_own_keys(alice: Person, bob: Person, root: Person) -> None:
    key = alice.new_key(scopes=["a:b"])
    path = f"/v1/api-keys/{key['id']}/explain"
    assert alice.post(path, {"scopes": ["a:c"]}).json["code"] == "insufficient_scope"
    assert alice.post(path, None).json["code"] == "valid"
    assert root.post(path, {}).json["valid"] is True
    assert_problem(bob.post(path, {}), 404, "not_found")
    alice.post(f"/v1/api-keys/{key['id']}/revoke")
    assert alice.post(path, {}).json["code"] == "revoked"


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"key": None}, "json.key"),
        ({"key": "x", "ip": "no"}, "json.ip"),
        ({"key": "x", "ip": "192.0.2.0/24"}, "json.ip"),
        ({"key": "x", "cost": -1}, "json.cost"),
        ({"key": "x", "cost": 1_000_001}, "json.cost"),
        ({"key": "x", "cost": True}, "json.cost"),
        ({"key": "x", "scopes": ["nonsense"]}, "json.scopes"),
        ({"key": "x", "explain": "yes"}, "json.explain"),
        ({"key": "x", "other": 1}, "json.other"),
    ],
)
def test_faults_of_the_request_are_reported(
    root: Person, asked: dict[str, Any], field: str
) -> None:
    assert_problem(root.post("/v1/api-keys/verify", asked), 422, "validation_error", field)


def test_it_takes_one_statement_for_the_caller_and_one_for_the_key(
    client: FlaskClient, root: Person, alice: Person
) -> None:
    key = alice.new_key()["key"]
    with statements(client.application) as ran:
        verify(root, key, ip="192.0.2.1")
    assert len([statement for statement in ran if statement.startswith("SELECT u.")]) == 2
    assert [s for s in ran if not s.startswith(("SELECT u.", "SELECT 1"))] == []
    release(service_of(client.application).database)


def test_keys_are_not_in_the_log(
    root: Person, alice: Person, caplog: pytest.LogCaptureFixture
) -> None:
    key = alice.new_key()["key"]
    verify(root, key)
    assert key not in json.dumps([record.__dict__ for record in caplog.records], default=str)


def test_keys_cannot_be_created_for_others(
    client: FlaskClient, root: Person, alice: Person
) -> None:
    add_user(client, "carol")
    wanted = {"name": "x", "owner_id": root.id}
    assert_problem(alice.post("/v1/api-keys", wanted), 403, "forbidden")
    wanted["owner_id"] = alice.id
    assert_problem(root.post("/v1/api-keys", wanted), 403, "forbidden")
    assert root.post("/v1/api-keys", {"name": "x", "owner_id": root.id}).status_code == 201
    wanted["owner_id"] = "0192d3a4-5b6c-7d8e-9f01-23456789abcd"
    assert_problem(root.post("/v1/api-keys", wanted), 404, "not_found")
