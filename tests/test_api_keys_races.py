"""API keys under many requests at once."""

from collections.abc import Callable
from functools import partial
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from .support.apps import client_of, service_of, url_of
from .support.concurrency import at_once, behind_the_guard, statuses
from .support.keys import path_of
from .support.people import Person, add_user, by_key, sign_in
from .support.problems import assert_problem
from .support.settings import NEW, OLD


def test_parallel_creations_make_exactly_as_many_as_are_allowed(
    make_app: Callable[..., Flask],
) -> None:
    client = client_of(make_app(max_keys_per_user=5))
    add_user(client, "alice")
    alice = sign_in(client, "alice")
    alice.post(f"{path_of(alice.new_key())}/revoke")
    alice.new_key()
    answers = at_once(*[lambda: alice.post("/v1/api-keys", {"name": "x"})] * 32)
    assert statuses(answers) == {201: 4, 409: 28}
    for answer in answers:
        if answer.status_code == 409:
            assert_problem(answer, 409, "limit_reached")
    texts = [answer.json["key"] for answer in answers if answer.status_code == 201]
    assert len(set(texts)) == 4
    assert all(client.get("/v1/auth/me", headers=by_key(text)).status_code == 200 for text in texts)
    assert len(alice.get("/v1/api-keys?status=active").json["items"]) == 5


def test_parallel_creations_of_two_users_do_not_count_for_each_other(
    make_app: Callable[..., Flask],
) -> None:
    client = client_of(make_app(max_keys_per_user=3))
    for username in ("alice", "bob"):
        add_user(client, username)
    alice, bob = sign_in(client, "alice"), sign_in(client, "bob")
    calls = [lambda: alice.post("/v1/api-keys", {"name": "x"})] * 8
    calls += [lambda: bob.post("/v1/api-keys", {"name": "x"})] * 8
    answers = at_once(*calls)
    assert statuses(answers[:8]) == statuses(answers[8:]) == {201: 3, 409: 5}


def test_parallel_revocations_agree(client: FlaskClient, alice: Person) -> None:
    key = alice.new_key()
    sent = {"key": key["key"]}
    calls = [lambda: alice.post(f"{path_of(key)}/revoke")] * 8
    calls += [lambda: client.post("/v1/api-keys/revoke", json=sent)] * 8
    answers = at_once(*calls)
    assert statuses(answers) == {200: 8, 204: 8}
    kept = alice.get(path_of(key)).json
    assert all(answer.json == kept for answer in answers[:8])


def test_a_revocation_survives_changes_at_the_same_time(alice: Person) -> None:
    keys = [alice.new_key() for _ in range(8)]
    calls: list[Callable[[], TestResponse]] = []
    for key in keys:
        calls.append(partial(alice.post, f"{path_of(key)}/revoke"))
        calls.append(partial(alice.patch, path_of(key), {"disabled": False, "name": "new"}))
        calls.append(partial(alice.patch, path_of(key), {"expires_at": None}))
    answers = at_once(*calls)
    assert statuses(answers[::3]) == {200: 8}
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert {key["status"] for key in alice.get("/v1/api-keys").json["items"]} == {"revoked"}


def test_parallel_changes_of_different_fields_are_all_kept(alice: Person) -> None:
    key = alice.new_key()
    changes = {
        "name": "new",
        "description": "new",
        "scopes": ["a:x"],
        "expires_at": "2999-01-01T00:00:00Z",
    }
    calls = [partial(alice.patch, path_of(key), {name: value}) for name, value in changes.items()]
    assert statuses(at_once(*calls)) == {200: 4}
    kept = alice.get(path_of(key)).json
    assert {name: kept[name] for name in changes} == changes


def test_of_parallel_deletions_one_deletes(alice: Person) -> None:
    key = alice.new_key()
    answers = at_once(*[partial(alice.delete, path_of(key))] * 8)
    assert statuses(answers) == {204: 1, 404: 7}


def test_parallel_first_uses_under_a_new_secret_all_succeed(
    make_app: Callable[..., Flask],
) -> None:
    first = make_app(secret_key=OLD)
    client = client_of(first)
    add_user(client, "alice")
    key = sign_in(client, "alice").new_key()
    renewed = {"database_url": url_of(first), "secret_key": NEW}
    between = client_of(make_app(**renewed, secret_key_fallbacks=OLD))
    uses = [lambda: between.get("/v1/auth/me", headers=by_key(key["key"]))] * 16
    assert statuses(at_once(*uses)) == {200: 16}
    after = client_of(make_app(**renewed))
    assert after.get("/v1/auth/me", headers=by_key(key["key"])).status_code == 200


def test_a_revocation_counts_at_the_very_next_request(
    client: FlaskClient, alice: Person, make_app: Callable[..., Flask]
) -> None:
    """In another process too: nothing is remembered of a key between requests."""
    other = client_of(make_app(database_url=url_of(client.application)))
    for door in (client, other):
        key = alice.new_key()
        use = partial(door.get, "/v1/auth/me", headers=by_key(key["key"]))
        assert statuses(at_once(*[use] * 8)) == {200: 8}
        alice.post(f"{path_of(key)}/revoke")
        assert statuses(at_once(*[use] * 8)) == {401: 8}


def test_concurrent_uses_and_flushes_lose_nothing(
    app: Flask, client: FlaskClient, alice: Person
) -> None:
    keys = [alice.new_key() for _ in range(12)]
    flush = service_of(app).flush

    def use(key: dict[str, Any]) -> TestResponse:
        response = client.get("/v1/auth/me", headers=by_key(key["key"]))
        flush()
        return response

    assert statuses(at_once(*[partial(use, key) for key in keys])) == {200: 12}
    assert all(key["last_used_at"] for key in alice.get("/v1/api-keys").json["items"])


def test_a_key_deleted_during_its_request_causes_no_error(app: Flask, alice: Person) -> None:
    key, target = alice.new_key(scopes=["keys:write"]), alice.new_key()
    holder = alice.with_key(key)
    with behind_the_guard(app, lambda: alice.delete(path_of(key))):
        assert holder.post("/v1/api-keys", {"name": "x"}).status_code < 500
    key = alice.new_key(scopes=["keys:write"])
    holder = alice.with_key(key)
    with behind_the_guard(app, lambda: alice.delete(path_of(key))):
        assert holder.patch(path_of(target), {"scopes": []}).status_code < 500


def test_an_owner_deleted_during_a_creation_causes_no_error(
    app: Flask, alice: Person, root: Person
) -> None:
    with behind_the_guard(app, lambda: root.delete(f"/v1/users/{alice.id}")):
        assert_problem(alice.post("/v1/api-keys", {"name": "x"}), 404, "not_found")


def test_a_key_that_another_request_moves_to_the_new_secret_still_works(
    make_app: Callable[..., Flask],
) -> None:
    first = make_app(secret_key=OLD)
    client = client_of(first)
    add_user(client, "alice")
    headers = by_key(sign_in(client, "alice").new_key()["key"])
    renewed = make_app(database_url=url_of(first), secret_key=NEW, secret_key_fallbacks=OLD)
    door = client_of(renewed)
    with behind_the_guard(renewed, lambda: door.get("/v1/auth/me", headers=headers)):
        assert door.get("/v1/auth/me", headers=headers).status_code == 200
