"""Passwords: changing your own, which count as the same, and how many are hashed at once."""

import time
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from .support.apps import client_of
from .support.people import PASSWORD, Person, add_user, sign_in
from .support.problems import assert_problem
from .support.tokens import refresh

NEW = "purple elephants drink tea"


def change(person: Person, new: Any = NEW, current: Any = PASSWORD) -> TestResponse:
    """The answer to changing one's own password."""
    body = {"current_password": current, "new_password": new}
    return person.post("/v1/auth/password", body)


def login(client: FlaskClient, username: str, password: str) -> TestResponse:
    """The answer to signing in."""
    return client.post("/v1/auth/login", json={"username": username, "password": password})


def test_the_new_password_counts_and_the_old_one_does_not(
    client: FlaskClient, alice: Person
) -> None:
    response = change(alice)
    assert (response.status_code, response.data) == (204, b"")
    assert_problem(login(client, "alice", PASSWORD), 401, "invalid_credentials")
    assert sign_in(client, "alice", NEW).id == alice.id


def test_a_new_password_ends_all_sessions_except_the_calling_one(
    client: FlaskClient, alice: Person, bob: Person
) -> None:
    other = alice.again()
    key = alice.with_key(alice.new_key())
    assert change(alice).status_code == 204
    assert_problem(other.get("/v1/auth/me"), 401, "invalid_credentials")
    assert_problem(refresh(client, other.refresh_token), 401, "invalid_credentials")
    for survivor in (alice, bob, key):
        assert survivor.get("/v1/auth/me").status_code == 200
    assert refresh(client, alice.refresh_token).status_code == 200


def test_a_wrong_current_password_is_refused_and_does_not_end_the_session(
    client: FlaskClient, alice: Person
) -> None:
    other = alice.again()
    assert_problem(change(alice, current=PASSWORD + "!"), 403, "wrong_password")
    for survivor in (alice, other):
        assert survivor.get("/v1/auth/me").status_code == 200
    assert login(client, "alice", PASSWORD).status_code == 200


def test_a_short_password_is_refused_by_name(client: FlaskClient, alice: Person) -> None:
    assert_problem(change(alice, "x" * 14), 422, "password_too_weak", "json.new_password")
    assert login(client, "alice", PASSWORD).status_code == 200
    assert change(alice, "fourteen and 1.").status_code == 204


def test_the_minimum_length_is_a_setting(make_app: Callable[..., Flask]) -> None:
    client = client_of(make_app(password_min_length=8))
    add_user(client, "alice")
    alice = sign_in(client, "alice")
    assert_problem(change(alice, "seven 7"), 422, "password_too_weak", "json.new_password")
    assert change(alice, "eight  8").status_code == 204


def test_length_is_counted_after_composing(alice: Person) -> None:
    decomposed = unicodedata.normalize("NFD", "été à Liège, où")
    assert len(decomposed) == 20
    assert_problem(change(alice, decomposed[:-2]), 422, "password_too_weak", "json.new_password")
    assert change(alice, decomposed).status_code == 204


def test_the_maximum_length_is_counted_after_composing_too(alice: Person) -> None:
    words, longer = "été à Liège, où", "\N{DEVANAGARI LETTER QA}"
    decomposed = unicodedata.normalize("NFD", (words * 69)[:1024])
    assert len(unicodedata.normalize("NFC", longer)) == 2
    assert_problem(change(alice, longer * 513), 422, "validation_error", "json.new_password")
    assert change(alice, decomposed).status_code == 204


def test_a_password_may_have_1024_characters_which_all_count(
    client: FlaskClient, alice: Person
) -> None:
    longest = "\N{OLD PERSIAN SIGN A}" * 1024
    response = change(alice, longest + "x")
    assert_problem(response, 422, "validation_error", "json.new_password")
    assert change(alice, longest).status_code == 204
    assert_problem(login(client, "alice", longest[:-1] + "x"), 401, "invalid_credentials")
    assert login(client, "alice", longest).status_code == 200


def test_the_last_of_64_emoji_counts(client: FlaskClient, alice: Person) -> None:
    assert change(alice, "🐘" * 63 + "🍵").status_code == 204
    assert_problem(login(client, "alice", "🐘" * 64), 401, "invalid_credentials")
    assert_problem(login(client, "alice", "🐘" * 63), 401, "invalid_credentials")
    assert login(client, "alice", "🐘" * 63 + "🍵").status_code == 200


def test_composed_and_decomposed_are_one_password(client: FlaskClient, alice: Person) -> None:
    composed = "crème brûlée à la carte"
    decomposed = unicodedata.normalize("NFD", composed)
    assert composed != decomposed
    assert change(alice, decomposed).status_code == 204
    assert login(client, "alice", composed).status_code == 200
    assert login(client, "alice", decomposed).status_code == 200
    assert change(alice, current=composed).status_code == 204


def test_a_password_is_taken_as_it_is(client: FlaskClient, alice: Person) -> None:
    present = PASSWORD
    for other in (f" {PASSWORD}", f"{PASSWORD} ", PASSWORD * 2, PASSWORD.upper()):
        assert_problem(login(client, "alice", other), 401, "invalid_credentials")
        assert change(alice, other, present).status_code == 204
        assert login(client, "alice", other).status_code == 200
        present = other


def test_a_password_is_text(alice: Person) -> None:
    good = {"current_password": PASSWORD, "new_password": NEW}
    for name in good:
        for value in (None, 1, True, [PASSWORD], {}, "", "with a nul \0 in it", "lone \ud800"):
            response = alice.post("/v1/auth/password", good | {name: value})
            assert_problem(response, 422, "validation_error", f"json.{name}")


def test_both_passwords_are_required_and_nothing_else(alice: Person) -> None:
    body = {"current_password": PASSWORD, "new_password": NEW}
    for name in body:
        response = alice.post("/v1/auth/password", {name: body[name]})
        assert_problem(response, 422, "validation_error", f"json.{({*body} - {name}).pop()}")
    response = alice.post("/v1/auth/password", body | {"username": "bob"})
    assert_problem(response, 422, "validation_error", "json.username")


def test_only_a_signed_in_person_changes_their_password(client: FlaskClient, alice: Person) -> None:
    key = alice.with_key(alice.new_key(scopes=["keys:write"]))
    assert_problem(change(key), 403, "session_required")
    response = client.post("/v1/auth/password", json={})
    assert_problem(response, 401, "unauthenticated")


def test_hashes_beyond_half_of_the_threads_are_refused_at_once(
    make_app: Callable[..., Flask],
) -> None:
    # Two threads: one hash may be inside. A hash takes long enough here for others to come by.
    app = make_app(threads=2, database_pool_size=16, bcrypt_rounds=10)
    add_user(client_of(app), "alice")
    together = Barrier(16)

    def attempt(_: int) -> tuple[TestResponse, float]:
        client = client_of(app)
        together.wait()
        started = time.monotonic()
        return login(client, "alice", PASSWORD), time.monotonic() - started

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(attempt, range(16)))
    refused = [(answer, took) for answer, took in answers if answer.status_code == 503]
    passed = [(answer, took) for answer, took in answers if answer.status_code == 200]
    assert passed
    assert refused
    assert len(passed) + len(refused) == 16
    for answer, _ in refused:
        assert_problem(answer, 503, "unavailable")
        assert int(answer.headers["Retry-After"]) >= 1
    assert min(took for _, took in refused) < min(took for _, took in passed)
    assert login(client_of(app), "alice", PASSWORD).status_code == 200


def test_a_run_of_marks_is_refused_before_it_is_composed(alice: Person) -> None:
    # Composing as many takes minutes.
    password = "a" + "\u0301" * 80_000 + "\u0323" * 80_000
    assert_problem(change(alice, password), 422, "validation_error", "json.new_password")
