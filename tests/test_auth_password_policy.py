"""Which passwords are refused, and how their hashes follow the cost that is set."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from .support.apps import client_of, service_of, url_of
from .support.mail import mails_of, token_in
from .support.people import PASSWORD, Person, add_user, sign_in
from .support.problems import assert_problem

WEAK = [
    "fourteen chars",
    "passwordpassword",
    "PasswordPassword",
    "123456789012345",
    "q1w2e3r4t5y6u7i8o9p0",
    "monkeymonkeymonkeymon",
    "passwordpassword1",
    "password12345678",
    "!!!dragondragon2026",
    "letmein!!!123456789",
    "my name is Dora, friend",
    "d.ora.77 and some more",
]
PATTERNS = [
    *("1" * 15, "0" * 16, "a" * 15, " " * 15, "x" * 1024, "\u0451" * 15, "............... "),
    *("qwertyuiopasdfgh", "poiuytrewqlkjhg", "qwertzuiopasdfgh", "azertyuiopqsdfgh"),
    *("1q2w3e4r5t6y7u8i", "q1w2e3r4t5y6u7i8", "1qaz2wsx3edc4rfv", "!QAZ@WSX#EDC$RFV"),
    *("qazwsxedcrfvtgb", "123qweasdzxc123qwe", "zxcvbnm,./zxcvbnm", "-=-=-=-=-=-=-=-="),
    *("abcdefghijklmnop", "zyxwvutsrqponml", "987654321098765", "12345678987654321"),
    *("1234512345123451", "112233445566778", "111222333444555", "aabbccddeeffggh"),
    *("13579135791357913", "24680246802468024", "147258369147258", "159753159753159"),
    *("a1b2c3d4e5f6g7h8", "1z2x3c4v5b6n7m8,", "1a2a3a4a5a6a7a8a", "abcabcabcabcabcab"),
    *("aaaaabbbbbccccc", "aaaaaaaaaaaaaa1", "1aaaaaaaaaaaaaaa", "AbCdEfGhIjKlMnOp"),
    *("hellohellohello", "abcd1234abcd1234", "20262026202620262", "qwerty123456789"),
    "\u0439\u0446\u0443\u043a\u0435\u043d\u0433\u0448\u0449\u0437\u0444\u044b\u0432\u0430\u043f",
    "\u0430\u0431\u0432\u0433\u0434\u0435\u0436\u0437\u0438\u0439\u043a\u043b\u043c\u043d\u043e\u043f",
    "\uff11" * 15,
]
GOOD = [
    PASSWORD,
    "fifteen letters",
    "only lower case and blanks",
    "\U0001f600" * 64,
    "password, but with a story around it",
    "we were there too",
    "the quick brown fox",
    "i like to read books",
    "uJ3-kd9Qx_PwmZ1",
    "483920175264830",
    "dragon 8$2!9 (17) 4&6",
]


def register(root: Person, password: str) -> int:
    account = {"username": "dora", "email": "d.ora.77@example.com", "password": password}
    answer = root.post("/v1/auth/register", account)
    if answer.status_code == 422:
        assert_problem(answer, 422, "password_too_weak", "json.password")
    return answer.status_code


@pytest.mark.parametrize("password", WEAK)
def test_common_passwords_are_refused(root: Person, password: str) -> None:
    assert register(root, password) == 422


@pytest.mark.parametrize("password", PATTERNS)
def test_repetition_sequences_and_keyboard_walks_are_refused(root: Person, password: str) -> None:
    assert register(root, password) == 422


def test_a_pattern_is_refused_wherever_a_password_is_set(
    client: FlaskClient, root: Person, alice: Person
) -> None:
    body = {"current_password": PASSWORD, "new_password": "qwertyuiopasdfgh"}
    refused = alice.post("/v1/auth/password", body)
    assert_problem(refused, 422, "password_too_weak", "json.new_password")
    root.post(f"/v1/users/{alice.id}/password-reset")
    link = {"token": token_in(mails_of(client)[-1]), "new_password": "1q2w3e4r5t6y7u8i"}
    refused = client.post("/v1/auth/password/reset", json=link)
    assert_problem(refused, 422, "password_too_weak", "json.new_password")


@pytest.mark.parametrize("password", GOOD)
def test_no_kind_of_character_is_required(root: Person, password: str) -> None:
    assert register(root, password) == 201
    assert sign_in(root.client, "dora", password).username == "dora"


def test_a_changed_password_meets_the_same_policy(client: FlaskClient, alice: Person) -> None:
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


def test_a_right_password_signs_in_even_if_no_slot_is_free_to_renew_its_hash(
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
                others.enter_context(service.password_hasher.place())

        service.database.query_hooks.append(take_the_place)
        sign_in(client_of(after), "alice")
        assert stored_hash(after).startswith("$2b$04$")
    sign_in(client_of(after), "alice")
    assert stored_hash(after).startswith("$2b$05$")
