"""ASVS 5.0 chapter 2: validation and business logic."""

from __future__ import annotations

from collections.abc import Callable

from flask import Flask
from flask.testing import FlaskClient

from .support.apps import client_of
from .support.concurrency import at_once, statuses
from .support.mail import mails_of, token_in
from .support.openapi import example_of, operations
from .support.passwords import forgot, guess, guesses, link_for, reset
from .support.people import PASSWORD, Person, add_user, sign_in
from .support.problems import assert_problem


def test_2_2_1_every_field_of_every_body_is_checked(root: Person) -> None:
    bodies = 0
    for method, path, operation in operations(root.client):
        example = example_of(operation)
        if example is None:
            continue
        bodies += 1
        for name in [*example, "unknown"]:
            body = {**example, name: [{"$ne": 1}]}
            answer = root.client.open(path, method=method, headers=root.headers, json=body)
            assert_problem(answer, 422, "validation_error", f"json.{name}")
        needed = operation["requestBody"]["required"]
        for body in (*([None] if needed else []), [], [example], "text", 1):
            answer = root.client.open(path, method=method, headers=root.headers, json=body)
            assert_problem(answer, 422, "validation_error", "json._schema")
    assert bodies > 12


def test_2_2_3_fields_that_contradict_each_other_are_refused(alice: Person) -> None:
    for expiry in (
        {"expires_at": "2020-01-01T00:00:00Z"},
        {"expires_at": "2999-01-01T00:00:00Z", "expires_in_days": 1},
    ):
        answer = alice.post("/v1/api-keys", {"name": "x", **expiry})
        assert_problem(answer, 422, "validation_error", "json.expires_at")


def test_2_3_1_a_step_takes_the_token_of_that_step(client: FlaskClient, alice: Person) -> None:
    link = link_for(client, "alice@example.com")
    alice.patch("/v1/auth/me", {"email": "new@example.com", "current_password": PASSWORD})
    address = token_in(mails_of(client)[-1])
    key = alice.new_key()["key"]
    for token in (address, alice.refresh_token, alice.access_token, key, link.replace("p_", "e_")):
        assert_problem(reset(client, token), 400, "invalid_token")
    for token in (link, alice.refresh_token, alice.access_token, key):
        answer = client.post("/v1/auth/email/confirm", json={"token": token})
        assert_problem(answer, 400, "invalid_token")
        step = {"mfa_token": token, "code": "123456"}
        answer = client.post("/v1/auth/login/mfa", json=step)
        assert_problem(answer, 401, "invalid_credentials")
    assert reset(client, link).status_code == 204


def test_2_3_2_one_key_more_than_allowed_is_refused(make_app: Callable[..., Flask]) -> None:
    client = client_of(make_app(max_keys_per_user=2))
    add_user(client, "alice")
    alice = sign_in(client, "alice")
    for _ in range(2):
        alice.new_key()
    assert_problem(alice.post("/v1/api-keys", {"name": "x"}), 409, "limit_reached")
    assert len(alice.get("/v1/api-keys").json["items"]) == 2


def test_2_3_3_what_cannot_be_recorded_is_not_done(
    root: Person, alice: Person, audit_refused: None
) -> None:
    before = root.get(f"/v1/users/{alice.id}").json
    answer = root.patch(f"/v1/users/{alice.id}", {"role": "admin", "username": "mallory"})
    assert_problem(answer, 503, "unavailable")
    assert root.get(f"/v1/users/{alice.id}").json == before


def test_2_3_4_of_sixteen_resets_with_one_link_one_succeeds(
    make_app: Callable[..., Flask],
) -> None:
    client = client_of(make_app(database_pool_size=16))
    add_user(client, "alice")
    link = link_for(client, "alice@example.com")
    clients = [client_of(client.application) for _ in range(16)]
    answers = at_once(*[lambda each=each: reset(each, link) for each in clients])
    assert statuses(answers) == {204: 1, 400: 15}


def test_2_4_1_what_is_costly_cannot_be_repeated_without_end(client: FlaskClient) -> None:
    add_user(client, "alice")
    for name in ("alice", "nobody"):
        guesses(client, name, 10)
        refused = guess(client, name)
        assert_problem(refused, 429, "rate_limited")
        assert 1 <= int(refused.headers["Retry-After"]) <= 300
    for sent in (1, 2, 3, 3, 3):
        assert forgot(client, "alice@example.com").status_code == 202
        assert len(mails_of(client)) == sent
