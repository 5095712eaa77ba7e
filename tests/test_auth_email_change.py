"""Changing your own address: it waits until the link that was mailed to it is used."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from .support.apps import client_of, service_of
from .support.mail import mails_of, token_in
from .support.passwords import link_for, reset
from .support.people import NEW_PASSWORD, PASSWORD, Person, add_user, apart, sign_in
from .support.problems import assert_problem

NEW = "alice@new.example.com"


def change(person: Person, email: object = NEW, password: str = PASSWORD) -> TestResponse:
    """The answer to asking for another address."""
    return person.patch("/v1/auth/me", {"email": email, "current_password": password})


def confirm(client: FlaskClient, token: str) -> TestResponse:
    """The answer to confirming an address."""
    return client.post("/v1/auth/email/confirm", json={"token": token})


def test_a_new_address_waits_until_it_is_confirmed(client: FlaskClient, alice: Person) -> None:
    waiting = change(alice)
    assert waiting.status_code == 200
    assert (waiting.json["email"], waiting.json["pending_email"]) == ("alice@example.com", NEW)
    [message] = mails_of(client)
    assert message["To"] == NEW
    answer = confirm(client, token_in(message))
    assert (answer.status_code, answer.data) == (204, b"")
    me = alice.get("/v1/auth/me").json
    assert (me["email"], me["pending_email"]) == (NEW, None)
    assert sign_in(client, NEW).id == alice.id


def test_the_old_address_is_notified(client: FlaskClient, alice: Person) -> None:
    change(alice)
    confirm(client, token_in(mails_of(client)[-1]))
    notice = mails_of(client)[-1]
    assert notice["To"] == "alice@example.com"
    assert NEW in notice.get_body(("plain",)).get_content()


def test_it_requires_the_password(client: FlaskClient, alice: Person) -> None:
    assert_problem(change(alice, password="wrong"), 403, "wrong_password")
    missing = alice.patch("/v1/auth/me", {"email": NEW})
    assert_problem(missing, 422, "validation_error", "json.current_password")
    assert alice.get("/v1/auth/me").json["pending_email"] is None
    assert mails_of(client) == []


def test_a_person_keeps_an_address(alice: Person) -> None:
    for none in (None, "", "nonsense", "a@b\nBcc: e@x.co"):
        assert_problem(change(alice, none), 422, "validation_error", "json.email")


def test_only_the_newest_link_works_and_only_once(client: FlaskClient, alice: Person) -> None:
    change(alice)
    first = token_in(mails_of(client)[-1])
    change(alice, "alice@newer.example.com")
    second = token_in(mails_of(client)[-1])
    assert_problem(confirm(client, first), 400, "invalid_token")
    assert confirm(client, second).status_code == 204
    assert_problem(confirm(client, second), 400, "invalid_token")
    assert alice.get("/v1/auth/me").json["email"] == "alice@newer.example.com"


def test_a_link_lasts_a_day(
    client: FlaskClient, alice: Person, travel: Callable[..., None]
) -> None:
    change(alice)
    token = token_in(mails_of(client)[-1])
    travel(hours=24, seconds=1)
    assert_problem(confirm(client, token), 400, "invalid_token")


def test_only_the_holder_of_an_address_learns_that_it_is_taken(
    client: FlaskClient, alice: Person, bob: Person
) -> None:
    assert change(alice, "BOB@example.com").status_code == 200
    token = token_in(mails_of(client)[-1])
    assert_problem(confirm(client, token), 409, "email_taken")
    assert client.application is bob.client.application
    assert alice.get("/v1/auth/me").json["email"] == "alice@example.com"


def test_asking_for_the_current_address_withdraws_the_change(
    client: FlaskClient, alice: Person
) -> None:
    change(alice)
    token = token_in(mails_of(client)[-1])
    answer = change(alice, "Alice@example.com").json
    assert (answer["email"], answer["pending_email"]) == ("Alice@example.com", None)
    assert_problem(confirm(client, token), 400, "invalid_token")
    assert len(mails_of(client)) == 1


def test_a_change_by_an_administrator_counts_at_once(
    client: FlaskClient, root: Person, alice: Person
) -> None:
    change(alice)
    token = token_in(mails_of(client)[-1])
    body = {"email": "alice@elsewhere.example.com"}
    answer = root.patch(f"/v1/users/{alice.id}", body).json
    assert (answer["email"], answer["pending_email"]) == (body["email"], None)
    assert_problem(confirm(client, token), 400, "invalid_token")
    assert mails_of(client)[-1]["To"] == "alice@example.com"


def test_the_link_of_a_disabled_user_is_void(
    client: FlaskClient, root: Person, alice: Person
) -> None:
    change(alice)
    token = token_in(mails_of(client)[-1])
    for active in (False, True):
        root.patch(f"/v1/users/{alice.id}", {"is_active": active})
        assert_problem(confirm(client, token), 400, "invalid_token")


def test_a_new_password_withdraws_a_change_requested_with_the_old_one(
    client: FlaskClient, alice: Person
) -> None:
    change(alice, "thief@example.com")
    theirs = token_in(mails_of(client)[-1])
    client.post("/v1/auth/password/forgot", json={"email": "alice@example.com"})
    new = "purple elephants drink tea"
    body = {"token": token_in(mails_of(client)[-1]), "new_password": new}
    assert client.post("/v1/auth/password/reset", json=body).status_code == 204
    assert_problem(confirm(client, theirs), 400, "invalid_token")
    me = sign_in(client, "alice", new).get("/v1/auth/me").json
    assert (me["email"], me["pending_email"]) == ("alice@example.com", None)


def test_a_reset_withdraws_a_concurrent_change_requested_with_the_old_password(
    client: FlaskClient, alice: Person
) -> None:
    link, database = link_for(client, "alice@example.com"), service_of(client.application).database
    asking, done = threading.Event(), threading.Event()

    def pause(event: Any) -> None:
        """After the row was read with which the password is checked."""
        if event.sql.startswith("SELECT") and 'FROM "users"' in event.sql and not asking.is_set():
            asking.set()
            assert done.wait(30)

    database.query_hooks.append(pause)
    change = {"email": "mallory@example.com", "current_password": PASSWORD}
    with ThreadPoolExecutor(1) as pool:
        changing = pool.submit(apart(alice).patch, "/v1/auth/me", change)
        assert asking.wait(30)
        answer = reset(client_of(client.application), link)
        done.set()
        assert answer.status_code == 204
        assert_problem(changing.result(), 409, "conflict")
    database.query_hooks.remove(pause)
    assert sign_in(client, "alice", NEW_PASSWORD).get("/v1/auth/me").json["pending_email"] is None


def test_mail_to_strangers_is_limited(client: FlaskClient, alice: Person) -> None:
    for number in range(3):
        assert change(alice, f"stranger{number}@example.com").status_code == 200
        assert len(mails_of(client)) == number + 1  # sent before the next one takes its place
    refused = change(alice, "stranger4@example.com")
    assert_problem(refused, 429, "rate_limited")
    assert int(refused.headers["Retry-After"]) > 0
    assert len(mails_of(client)) == 3


def test_only_addresses_that_get_mail_count(
    client: FlaskClient, alice: Person, travel: Callable[..., None]
) -> None:
    add_user(client, "dave")
    same = "alice@example.com"
    for email in [same, "Alice@Example.com", same] * 2:
        assert change(alice, email).status_code == 200
    for number in range(3):
        # Withdrawn each time; and what is refused for its name mails nothing.
        assert change(alice, f"new{number}@example.com").status_code == 200
        assert len(mails_of(client)) == number + 1  # sent before it is withdrawn
        assert change(alice, same).json["pending_email"] is None
        body = {"username": "dave", "email": NEW, "current_password": PASSWORD}
        assert_problem(alice.patch("/v1/auth/me", body), 409, "username_taken")
    travel(minutes=9)
    body = {"username": "alicia", "email": NEW, "current_password": PASSWORD}
    refused = alice.patch("/v1/auth/me", body)
    assert_problem(refused, 429, "rate_limited")
    assert 0 < int(refused.headers["Retry-After"]) <= 3060
    me = alice.get("/v1/auth/me").json
    assert (me["username"], me["email"], me["pending_email"]) == ("alice", same, None)
    assert change(alice, same).status_code == 200
    assert len(mails_of(client)) == 3
    travel(minutes=52)
    alice = alice.again()
    assert change(alice).status_code == 200


def test_without_mail_the_current_address_may_be_included(make_app: Callable[..., Flask]) -> None:
    production = {"environment": "production", "secret_key": "k7Jx-q2Wd" * 5}
    client = client_of(make_app(**production, bcrypt_rounds=10))
    add_user(client, "alice")
    alice = sign_in(client, "alice")
    body = {"username": "alicia", "email": "alice@example.com", "current_password": PASSWORD}
    assert alice.patch("/v1/auth/me", body).json["username"] == "alicia"
    assert_problem(change(alice), 422, "validation_error", "json.email")


def test_username_and_address_change_together(client: FlaskClient, alice: Person) -> None:
    body = {"username": "alicia", "email": NEW, "current_password": PASSWORD}
    answer = alice.patch("/v1/auth/me", body).json
    assert (answer["username"], answer["pending_email"]) == ("alicia", NEW)
    add_user(client, "dave")
    body = {"username": "dave", "email": "other@example.com", "current_password": PASSWORD}
    sent = len(mails_of(client))
    assert_problem(alice.patch("/v1/auth/me", body), 409, "username_taken")
    assert alice.get("/v1/auth/me").json["pending_email"] == NEW
    assert len(mails_of(client)) == sent
