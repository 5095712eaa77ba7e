"""ASVS 5.0 chapter 6: passwords, second factors, recovery, and those who guess."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from backend.core.settings import ROOT, SettingsError

from .support.apps import client_of, statements
from .support.mail import mails_of, token_in
from .support.mfa import code_of, enrol, halfway, second
from .support.passwords import AWAY, forgot, guess, guesses, link_for, login, register, reset
from .support.people import NEW_PASSWORD, PASSWORD, Person, add_user, by_key, sign_in
from .support.problems import assert_problem
from .support.settings import make_settings
from .support.tokens import refresh

Travel = Callable[..., None]


def change(person: Person, current: Any, new: Any) -> TestResponse:
    """The answer to a change of the person's password."""
    body = {"current_password": current, "new_password": new}
    return person.post("/v1/auth/password", body)


def assert_too_weak(person: Person, password: str) -> None:
    """The person may not take this password."""
    answer = change(person, PASSWORD, password)
    assert_problem(answer, 422, "password_too_weak", "json.new_password")


# --- passwords ---


def test_6_1_1_the_limits_of_guessing_are_documented() -> None:
    settings = make_settings()
    promised = " ".join((ROOT / "docs" / "security.md").read_text("utf-8").split())
    assert settings.login_attempts == (10, 300)
    assert settings.login_attempts_per_address == (100, 300)
    assert settings.login_attempts_per_account == (100, 86_400)
    assert "10 failures in 5 minutes for an account from one address" in promised
    assert "100 in 5 minutes for an address (IPv6: /64), 100 a day for an account" in promised


def test_6_2_1_a_password_has_15_characters_at_least(
    alice: Person, make_bare_app: Callable[..., Flask]
) -> None:
    assert_too_weak(alice, "jumping over it"[:14])
    assert change(alice, PASSWORD, "jumping over it").status_code == 204
    with pytest.raises(SettingsError, match="PASSWORD_MIN_LENGTH"):
        make_bare_app(password_min_length=7)


def test_6_2_2_a_new_password_takes_the_current_one(client: FlaskClient, alice: Person) -> None:
    assert_problem(change(alice, NEW_PASSWORD, NEW_PASSWORD), 403, "wrong_password")
    missing = alice.post("/v1/auth/password", {"new_password": NEW_PASSWORD})
    assert_problem(missing, 422, "validation_error", "json.current_password")
    assert sign_in(client, "alice", PASSWORD).id == alice.id
    assert change(alice, PASSWORD, NEW_PASSWORD).status_code == 204
    assert_problem(login(client, "alice", PASSWORD), 401, "invalid_credentials")


def test_6_2_4_common_passwords_are_refused(alice: Person) -> None:
    for password in ("passwordpassword", "123456789012345", "qwertyuiopqwertyuiop"):
        assert_too_weak(alice, password)


def test_6_2_5_no_kind_of_character_is_asked_for(alice: Person) -> None:
    assert change(alice, PASSWORD, "all of it lower case").status_code == 204


def test_6_2_8_a_password_is_taken_exactly_as_it_is(client: FlaskClient, alice: Person) -> None:
    password = "Pass phrases hold " * 5 + "X"
    assert change(alice, PASSWORD, password).status_code == 204
    for other in (password.swapcase(), f"{password} ", password[:72], password[:-1]):
        assert_problem(login(client, "alice", other), 401, "invalid_credentials")
    assert login(client, "alice", password).status_code == 200


def test_6_2_9_all_of_64_characters_count(client: FlaskClient, alice: Person) -> None:
    password = "\N{GRINNING FACE}" * 64
    assert change(alice, PASSWORD, password).status_code == 204
    assert login(client, "alice", password).status_code == 200
    other = password[:-1] + "\N{GRINNING FACE WITH SMILING EYES}"
    assert_problem(login(client, "alice", other), 401, "invalid_credentials")


def test_6_2_10_a_password_does_not_expire(
    client: FlaskClient, alice: Person, travel: Travel
) -> None:
    travel(days=400)
    assert login(client, "alice", PASSWORD).status_code == 200


def test_6_2_11_a_password_does_not_hold_the_users_names(alice: Person) -> None:
    alice.client.post("/v1/auth/login")
    assert_too_weak(alice, "the password of Alice")
    changed = {"username": "allison", "current_password": PASSWORD}
    assert alice.patch("/v1/auth/me", changed).status_code == 200
    assert_too_weak(alice, "the password of ALLISON")
    assert_too_weak(alice, "still alice by her e-mail address")


def test_6_2_11_a_password_does_not_hold_the_name_of_the_service(
    make_app: Callable[..., Flask],
) -> None:
    client = client_of(make_app(public_url="https://id.Acme.example"))
    add_user(client, "alice")
    alice = sign_in(client, "alice")
    assert_too_weak(alice, "my own ACME password")
    assert change(alice, PASSWORD, "an example of what is good").status_code == 204


# --- those who guess ---


def test_6_3_1_ten_wrong_guesses_stop_neither_others_nor_the_owner_elsewhere(
    client: FlaskClient,
) -> None:
    add_user(client, "alice")
    add_user(client, "bob")
    assert guesses(client, "alice", 11) == [401] * 10 + [429]
    assert guess(client, "bob", PASSWORD).status_code == 200
    assert guess(client, "alice", PASSWORD, AWAY).status_code == 200


@pytest.mark.slow
def test_6_3_1_a_hundred_wrong_guesses_are_all_in_a_day_wherever_from(client: FlaskClient) -> None:
    add_user(client, "alice")
    for number in range(10):
        assert guesses(client, "alice", 10, f"198.51.100.{number}") == [401] * 10
    assert_problem(guess(client, "alice", PASSWORD), 429, "rate_limited")


def test_6_3_2_nobody_has_an_account_before_somebody_makes_it(client: FlaskClient) -> None:
    for name in ("admin", "root", "test", "admin@example.com"):
        for password in ("admin", "password", "root", name):
            assert_problem(login(client, name, password), 401, "invalid_credentials")
    with statements(client.application):
        add_user(client, "first", role="admin")
    [only] = sign_in(client, "first").get("/v1/users").json["items"]
    assert only["username"] == "first"


def test_6_3_3_a_second_factor_is_asked_for(make_app: Callable[..., Flask], travel: Travel) -> None:
    client = client_of(make_app(mfa_required_roles="user,admin"))
    add_user(client, "alice")
    alice = sign_in(client, "alice")
    assert_problem(alice.get("/v1/api-keys"), 403, "mfa_enrolment_required")
    secret, _ = enrol(alice)
    travel(seconds=60)
    refused = login(client, "alice", PASSWORD)
    assert_problem(refused, 401, "mfa_required")
    signed_in = second(client, refused.json["mfa_token"], code_of(secret))
    assert signed_in.status_code == 200


def test_6_3_4_who_is_disabled_gets_in_on_no_path(
    client: FlaskClient, root: Person, alice: Person, travel: Travel
) -> None:
    key, link = alice.new_key()["key"], link_for(client, "alice@example.com")
    secret, _ = enrol(alice)
    travel(seconds=60)
    step = halfway(client)
    assert root.patch(f"/v1/users/{alice.id}", {"is_active": False}).status_code == 200
    for refused in (
        login(client, "alice", PASSWORD),
        second(client, step, code_of(secret)),
        alice.get("/v1/auth/me"),
        refresh(client, alice.refresh_token),
        client.get("/v1/auth/me", headers=by_key(key)),
        client.get("/v1/auth/me", headers={"Authorization": f"Bearer {key}"}),
    ):
        assert_problem(refused, 401, "invalid_credentials")
    assert_problem(reset(client, link), 400, "invalid_token")


def test_6_3_7_the_user_is_told_of_what_changed(
    client: FlaskClient, root: Person, alice: Person
) -> None:
    assert change(alice, PASSWORD, NEW_PASSWORD).status_code == 204
    changes = {"email": "new@example.com", "current_password": NEW_PASSWORD}
    assert alice.patch("/v1/auth/me", changes).status_code == 200
    token = token_in(mails_of(client)[-1])
    assert client.post("/v1/auth/email/confirm", json={"token": token}).status_code == 204
    told = [(message["To"], message["Subject"]) for message in mails_of(client)]
    assert [to for to, _ in told] == ["alice@example.com", "new@example.com", "alice@example.com"]
    assert ["password" in told[0][1], "address" in told[2][1]] == [True, True]


def test_6_3_7_the_user_is_told_of_changes_to_the_second_factor(alice: Person) -> None:
    _, codes = enrol(alice)
    body = {"current_password": PASSWORD, "code": codes[0]}
    codes = alice.post("/v1/auth/mfa/recovery-codes", body).json["recovery_codes"]
    body = {"current_password": PASSWORD, "code": codes[0]}
    assert alice.post("/v1/auth/mfa/disable", body).status_code == 204
    told = [(message["To"], message["Subject"]) for message in mails_of(alice.client)]
    assert {to for to, _ in told} == {"alice@example.com"}
    for (_, subject), words in zip(
        told, ("switched on", "recovery codes", "switched off"), strict=True
    ):
        assert words in subject


def test_6_3_8_known_and_unknown_names_are_told_alike(app: Flask, client: FlaskClient) -> None:
    add_user(client, "alice")
    found = []
    for name in ("alice", "nobody"):
        with statements(app) as ran:
            answers = [guess(client, name), forgot(client, f"{name}@example.com")]
        refused = answers[0].json | {"request_id": ""}
        sent = [answer.status_code for answer in answers]
        # The rows differ, not how many there are nor what is asked.
        found.append((refused, sent, answers[1].data, [text.split()[:4] for text in ran]))
    assert found[0] == found[1]


# --- getting in without a password ---


def test_6_4_1_an_invitation_works_once_and_not_for_ever(
    client: FlaskClient, root: Person, travel: Travel
) -> None:
    assert register(root).status_code == 201
    invitation = token_in(mails_of(client)[-1])
    assert reset(client, invitation).status_code == 204
    assert_problem(reset(client, invitation), 400, "invalid_token")
    register(root, username="dave", email="dave@example.com")
    late = token_in(mails_of(client)[-1])
    travel(days=7, seconds=1)
    assert_problem(reset(client, late), 400, "invalid_token")


def test_6_4_3_a_reset_is_secure(client: FlaskClient, alice: Person, travel: Travel) -> None:
    late = link_for(client, "alice@example.com")
    travel(minutes=30, seconds=1)
    assert_problem(reset(client, late), 400, "invalid_token")
    alice = alice.again()
    older, newest = (link_for(client, "alice@example.com") for _ in range(2))
    assert_problem(reset(client, older), 400, "invalid_token")
    done = reset(client, newest)
    assert (done.status_code, done.data) == (204, b"")  # and nobody is signed in
    assert_problem(reset(client, newest), 400, "invalid_token")
    assert_problem(alice.get("/v1/auth/me"), 401, "invalid_credentials")
    assert_problem(refresh(client, alice.refresh_token), 401, "invalid_credentials")


def test_6_4_6_an_administrator_sends_a_link_and_chooses_no_password(
    client: FlaskClient, root: Person, alice: Person
) -> None:
    chosen = root.patch(f"/v1/users/{alice.id}", {"password": NEW_PASSWORD})
    assert_problem(chosen, 422, "validation_error", "json.password")
    sent = root.post(f"/v1/users/{alice.id}/password-reset")
    assert (sent.status_code, sent.data) == (202, b"")
    assert mails_of(client)[-1]["To"] == "alice@example.com"


def test_6_5_1_a_code_works_once_and_soon(
    client: FlaskClient, alice: Person, travel: Travel
) -> None:
    secret, recovery_codes = enrol(alice)
    assert len(set(recovery_codes)) == 10
    travel(seconds=90)
    for code in (code_of(secret), recovery_codes[0]):
        assert second(client, halfway(client), code).status_code == 200
        assert_problem(second(client, halfway(client), code), 401, "invalid_credentials")
    for steps in (-3, 3):
        late = second(client, halfway(client), code_of(secret, steps))
        assert_problem(late, 401, "invalid_credentials")
