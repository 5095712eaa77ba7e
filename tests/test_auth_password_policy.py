"""Which passwords are refused, and how their hashes keep up with the cost that is set."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from .conftest import (
    PASSWORD,
    Person,
    add_user,
    assert_problem,
    client_of,
    service_of,
    sign_in,
    url_of,
)

WEAK = [
    "fourteen chars",
    "passwordpassword",
    "PasswordPassword",
    "123456789012345",
    "q1w2e3r4t5y6u7i8o9p0",
    "monkeymonkeymonkeymon",
    "my name is Dora, friend",
    "d.ora.77 and some more",
]
GOOD = [
    "fifteen letters",
    "only lower case and blanks",
    "\U0001f600" * 64,
    "password, but with a story around it",
]


def register(root: Person, password: str) -> int:
    account = {"username": "dora", "email": "d.ora.77@example.com", "password": password}
    answer = root.post("/v1/auth/register", account)
    if answer.status_code == 422:
        assert_problem(answer, 422, "password_too_weak", "json.password")
    return answer.status_code


@pytest.mark.parametrize("password", WEAK)
def test_what_is_guessed_first_is_refused(root: Person, password: str) -> None:
    assert register(root, password) == 422


@pytest.mark.parametrize("password", GOOD)
def test_no_kind_of_character_is_asked_for(root: Person, password: str) -> None:
    assert register(root, password) == 201
    assert sign_in(root.client, "dora", password).username == "dora"


def test_a_changed_password_is_judged_alike(client: FlaskClient, alice: Person) -> None:
    for password in ("passwordpassword", "alice in wonderland again"):
        body = {"current_password": PASSWORD, "new_password": password}
        answer = alice.post("/v1/auth/password", body)
        assert_problem(answer, 422, "password_too_weak", "json.new_password")
    assert sign_in(client, "alice").get("/v1/auth/me").status_code == 200


def test_a_hash_moves_to_another_cost_when_its_owner_signs_in(
    make_app: Callable[..., Flask], stored_hash: Callable[[Flask], str]
) -> None:
    before = make_app(bcrypt_rounds=4)
    add_user(client_of(before), "alice")
    alice = sign_in(client_of(before), "alice")
    assert stored_hash(before).startswith("$2b$04$")
    after = make_app(bcrypt_rounds=5, database_url=url_of(before))
    wrong = {"username": "alice", "password": PASSWORD + "!"}
    assert client_of(after).post("/v1/auth/login", json=wrong).status_code == 401
    assert stored_hash(after).startswith("$2b$04$")
    sign_in(client_of(after), "alice")
    moved = stored_hash(after)
    assert moved.startswith("$2b$05$")
    assert alice.get("/v1/auth/me").status_code == 200  # no session ends
    sign_in(client_of(after), "alice")
    assert stored_hash(after) == moved


def test_a_right_password_signs_in_though_no_place_is_left_to_renew_its_hash(
    make_app: Callable[..., Flask], stored_hash: Callable[[Flask], str]
) -> None:
    before = make_app(bcrypt_rounds=4)
    add_user(client_of(before), "alice")
    after = make_app(bcrypt_rounds=5, threads=2, database_url=url_of(before))  # one place
    service = service_of(after)

    with ExitStack() as others:

        def take_the_place(event: Any) -> None:
            """Once the password has been found right, and the attempt is taken back."""
            if event.sql.startswith("UPDATE") and "throttles" in event.sql:
                service.database.query_hooks.remove(take_the_place)
                others.enter_context(service.hasher.place())

        service.database.query_hooks.append(take_the_place)
        sign_in(client_of(after), "alice")
        assert stored_hash(after).startswith("$2b$04$")
    sign_in(client_of(after), "alice")
    assert stored_hash(after).startswith("$2b$05$")


@pytest.fixture
def stored_hash() -> Callable[[Flask], str]:
    """A function that reads the one password hash of an app's database."""

    def read(app: Flask) -> str:
        database = app.extensions["backend"].database
        [(text,)] = database.execute_sql("SELECT password_hash FROM users").fetchall()
        database.close()
        return str(text)

    return read
