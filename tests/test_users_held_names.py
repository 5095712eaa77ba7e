"""Usernames that users gave up: for a while, no other user can take them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from backend.db.database import release
from backend.users import held_usernames
from backend.users.models import HeldUsername

from .support.apps import client_of, service_of
from .support.people import PASSWORD, Person, add_user, sign_in
from .support.problems import assert_problem


def rename(person: Person, name: str) -> TestResponse:
    """The answer to renaming oneself."""
    body = {"username": name, "current_password": PASSWORD}
    return person.patch("/v1/auth/me", body)


def test_a_name_that_was_given_up_is_held_for_its_former_holder(
    alice: Person, bob: Person, travel: Callable[..., None]
) -> None:
    assert rename(alice, "alicia").status_code == 200
    for name in ("alice", "ALICE"):
        assert_problem(rename(bob, name), 409, "username_taken")
    assert bob.get("/v1/auth/me").json["username"] == "bob"
    assert rename(alice, "Alice").status_code == 200
    assert_problem(rename(bob, "alicia"), 409, "username_taken")
    travel(days=89)
    assert_problem(rename(sign_in(bob.client, "bob"), "alicia"), 409, "username_taken")
    travel(days=1)
    assert rename(sign_in(bob.client, "bob"), "alicia").status_code == 200


def test_the_name_of_a_deleted_account_is_held(root: Person, alice: Person, bob: Person) -> None:
    assert root.delete(f"/v1/users/{alice.id}").status_code == 204
    assert_problem(rename(bob, "alice"), 409, "username_taken")


def test_a_name_that_an_administrator_changed_is_held(
    root: Person, alice: Person, bob: Person
) -> None:
    assert root.patch(f"/v1/users/{alice.id}", {"username": "mallory"}).status_code == 200
    assert_problem(rename(bob, "alice"), 409, "username_taken")
    assert rename(alice, "alice").status_code == 200


def test_administrators_can_assign_names_that_are_held(
    root: Person, alice: Person, bob: Person
) -> None:
    key = root.with_key(root.new_key(scopes=["users:write"]))
    rename(alice, "alicia")
    assert key.patch(f"/v1/users/{bob.id}", {"username": "alice"}).status_code == 200
    assert root.delete(f"/v1/users/{bob.id}").status_code == 204
    account = {"username": "alice", "email": "other@example.com", "password": PASSWORD}
    assert root.post("/v1/auth/register", account).status_code == 201
    assert_problem(rename(alice, "alice"), 409, "username_taken")


def test_a_name_is_held_for_its_last_holder(root: Person, alice: Person, bob: Person) -> None:
    rename(alice, "alicia")
    root.patch(f"/v1/users/{bob.id}", {"username": "alice"})
    assert rename(bob, "bob").status_code == 200
    assert_problem(rename(alice, "alice"), 409, "username_taken")
    assert rename(bob, "alice").status_code == 200


def test_email_addresses_are_not_held(root: Person, alice: Person) -> None:
    moved = {"email": "elsewhere@example.com"}
    assert root.patch(f"/v1/users/{alice.id}", moved).status_code == 200
    account = {"username": "carol", "email": "alice@example.com", "password": PASSWORD}
    assert root.post("/v1/auth/register", account).status_code == 201


def test_names_are_not_held_if_the_setting_says_so(make_app: Callable[..., Flask]) -> None:
    client = client_of(make_app(username_hold_days=0))
    add_user(client, "alice")
    add_user(client, "bob")
    rename(sign_in(client, "alice"), "alicia")
    assert rename(sign_in(client, "bob"), "alice").status_code == 200


def test_users_rename_themselves_three_times_a_day(
    alice: Person, bob: Person, travel: Callable[..., None]
) -> None:
    for name in ("alice-1", "alice-1", "bob", "alice-2", "Alice-2"):
        rename(alice, name)  # what changes nothing, or is refused, does not count
    travel(hours=5)
    alice = sign_in(alice.client, "alice-2")
    answer = rename(alice, "alice-3")
    assert_problem(answer, 429, "rate_limited")
    assert abs(int(answer.headers["Retry-After"]) - 19 * 3600) < 60
    assert alice.get("/v1/auth/me").json["username"] == "Alice-2"
    assert rename(alice, "Alice-2").status_code == 200
    assert rename(sign_in(bob.client, "bob"), "bobby").status_code == 200
    travel(hours=19)
    assert rename(sign_in(alice.client, "alice-2"), "alice-3").status_code == 200


def test_administrators_rename_others_as_often_as_they_like(root: Person, alice: Person) -> None:
    for number in range(5):
        answer = root.patch(f"/v1/users/{alice.id}", {"username": f"alice-{number}"})
        assert answer.status_code == 200


@pytest.mark.parametrize("_", range(5))
def test_a_name_cannot_be_taken_the_moment_it_is_given_up(
    alice: Person, bob: Person, app: Flask, _: int
) -> None:
    with ThreadPoolExecutor(2) as pool:
        given = pool.submit(rename, alice, "alicia")
        taken = pool.submit(rename, bob, "alice")
        assert given.result().status_code == 200
        assert_problem(taken.result(), 409, "username_taken")


def test_names_that_are_no_longer_held_are_pruned(
    client: FlaskClient, app: Flask, alice: Person, travel: Callable[..., None]
) -> None:
    rename(alice, "alicia")
    travel(days=45)
    rename(sign_in(client, "alicia"), "alina")
    travel(days=45)
    with service_of(app).active():
        assert held_usernames.prune(10) == 1
        assert [held.username_folded for held in HeldUsername.select()] == ["alicia"]
        release(service_of(app).database)
