"""ASVS 5.0 chapter 15: what starves, what is assigned unasked, and what happens at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from backend.db.database import release

from .support.apps import client_of, service_of
from .support.concurrency import at_once, statuses
from .support.openapi import NOTHING, example_of, operations
from .support.passwords import HOME, guess, link_for, reset
from .support.people import PASSWORD, Person, add_user, apart, sign_in
from .support.problems import assert_problem

NOT_ASKED = {
    "role": "admin",
    "is_active": True,
    "id": NOTHING,
    "owner_id": NOTHING,
    "user_id": NOTHING,
    "password_hash": "$2b$04$abcdefghijklmnopqrstuuELXaMQss1IC/aoIL0es1f1bBqLsLR9y",
    "session_epoch": 0,
    "mfa_enabled": False,
    "created_at": "2020-01-01T00:00:00Z",
    "digest": "0" * 64,
    "__class__": "User",
    "__proto__": {"role": "admin"},
    "constructor": {"prototype": {"role": "admin"}},
    "user.role": "admin",
    "user[role]": "admin",
    "": "admin",
}


def rows(app: Flask) -> list[Any]:
    """All accounts, keys and second factors as the database has them."""
    database = service_of(app).database
    service_of(app).flush()
    found = [
        database.execute_sql(f"SELECT * FROM {table} ORDER BY id").fetchall()
        for table in ("users", "api_keys", "api_key_secrets", "second_factors")
    ]
    release(database)
    return found


def name_of(operation: dict[str, Any]) -> str:
    """What the documentation calls the schema of the operation's body."""
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    return str(schema["$ref"].rpartition("/")[2])


def test_15_2_2_passwords_that_are_hashed_do_not_keep_others_waiting(
    make_app: Callable[..., Flask],
) -> None:
    client = client_of(make_app(threads=4))
    add_user(client, "alice")
    alice = sign_in(client, "alice")
    hasher = service_of(client.application).password_hasher
    with hasher.place(), hasher.place():  # half of the threads
        for name in ("alice", "nobody"):
            refused = guess(client, name, PASSWORD)
            assert_problem(refused, 503, "unavailable")
            assert "Retry-After" in refused.headers
        assert alice.get("/v1/auth/me").status_code == 200
    assert guess(client, "alice", PASSWORD).status_code == 200


def test_15_3_1_an_answer_holds_what_is_documented_and_no_more(
    client: FlaskClient, root: Person
) -> None:
    schemas = client.get("/v1/openapi.json").json["components"]["schemas"]
    key = root.new_key()
    for path, name in {
        f"/v1/users/{root.id}": "User",
        f"/v1/api-keys/{key['id']}": "ApiKey",
        "/v1/auth/me": "Me",
    }.items():
        assert set(root.get(path).json) == set(schemas[name]["properties"])


@pytest.mark.slow
def test_15_3_3_no_body_sets_what_it_was_not_asked_for(
    app: Flask, client: FlaskClient, root: Person
) -> None:
    add_user(client, "alice")
    key, before, bodies = root.new_key(), rows(app), 0
    schemas = client.get("/v1/openapi.json").json["components"]["schemas"]
    for method, path, operation in operations(client):
        example = example_of(operation)
        if example is None:
            continue
        bodies += 1
        known = schemas[name_of(operation)]["properties"].keys()
        place = path.replace(NOTHING, key["id"] if "/api-keys/" in path else root.id)
        for name in NOT_ASKED.keys() - known:
            body = {**example, name: NOT_ASKED[name]}
            answer = client.open(place, method=method, headers=root.headers, json=body)
            assert_problem(answer, 422, "validation_error", f"json.{name}")
    assert bodies > 15
    assert rows(app) == before


def test_15_3_4_an_address_is_believed_of_trusted_proxies_alone(
    client: FlaskClient, make_app: Callable[..., Flask], logged: Callable[[], list[str]]
) -> None:
    add_user(client, "alice")
    for number in range(11):
        forged = dict.fromkeys(
            ("X-Forwarded-For", "X-Real-IP", "Forwarded", "X-Client-IP"), f"198.51.100.{number}"
        )
        body = {"username": "alice", "password": "wrong"}
        answer = client.post("/v1/auth/login", json=body, headers=forged)
    assert_problem(answer, 429, "rate_limited")  # as one address
    assert "198.51.100." not in "\n".join(logged())

    client = client_of(make_app(trusted_proxies="127.0.0.1,10.0.0.0/8"))
    add_user(client, "alice")
    for first in range(11):  # what a client sent stands on the left
        hops = {"X-Forwarded-For": f"198.51.100.{first}, 203.0.113.7, 10.0.0.1"}
        body = {"username": "alice", "password": "wrong"}
        answer = client.post("/v1/auth/login", json=body, headers=hops)
    assert_problem(answer, 429, "rate_limited")
    assert '"ip":"203.0.113.7"' in logged()[-1]
    assert guess(client, "alice", PASSWORD, HOME).status_code == 200


def test_15_3_5_a_value_is_of_its_type_or_refused(root: Person, alice: Person) -> None:
    path = f"/v1/users/{alice.id}"
    for value in ("false", 0, 1, "yes", None, [], {}):
        answer = root.patch(path, {"is_active": value})
        assert_problem(answer, 422, "validation_error", "json.is_active")
    for value in ({"$ne": 1}, ["x"], 1, True, None):
        body = {"username": "alice", "password": value}
        answer = root.client.post("/v1/auth/login", json=body)
        assert_problem(answer, 422, "validation_error", "json.password")
    for value in ("12", 1.9, " 12 ", True, [12]):
        answer = root.post("/v1/api-keys", {"name": "x", "expires_in_days": value})
        assert_problem(answer, 422, "validation_error", "json.expires_in_days")
    assert alice.get("/v1/auth/me").json["is_active"] is True


def test_15_3_7_a_parameter_that_stands_twice_is_refused(root: Person, alice: Person) -> None:
    for path, name in {
        "/v1/users": "role",
        "/v1/api-keys": "status",
        "/v1/audit-events": "action",
        "/v1/auth/sessions": "limit",
    }.items():
        answer = root.get(f"{path}?{name}=1&{name}=2")
        assert_problem(answer, 422, "validation_error", f"query.{name}")
    for name in ("id", "user_id"):
        answer = alice.get(f"/v1/auth/me?{name}={root.id}&{name}={alice.id}")
        assert_problem(answer, 422, "validation_error", f"query.{name}")
    # What stands in the query does not count for what is looked for in the body.
    answer = root.client.post("/v1/auth/login?username=root", json={"password": PASSWORD})
    assert_problem(answer, 422, "validation_error", "query.username")


def test_15_4_2_of_those_who_come_at_once_one_wins(make_app: Callable[..., Flask]) -> None:
    client = client_of(make_app(database_pool_size=8))
    for name in ("root", "second"):
        add_user(client, name, role="admin")
    root, second = sign_in(client, "root"), sign_in(client, "second")

    account = {"username": "carol", "email": "carol@example.com", "password": PASSWORD}
    several = [apart(root) for _ in range(8)]
    answers = at_once(
        *[lambda each=each: each.post("/v1/auth/register", account) for each in several]
    )
    assert statuses(answers) == {201: 1, 409: 7}

    link = link_for(client, "carol@example.com")
    answers = at_once(*[lambda each=each: reset(each.client, link) for each in several])
    assert statuses(answers) == {204: 1, 400: 7}

    one, other = apart(root), apart(second)
    answers = at_once(
        lambda: one.patch(f"/v1/users/{second.id}", {"role": "user"}),
        lambda: other.patch(f"/v1/users/{root.id}", {"is_active": False}),
    )
    assert statuses(answers)[200] == 1
