"""Links that set a password: invitations, and resets for those who forgot it."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from .support.apps import client_of
from .support.mail import mails_of, token_in
from .support.passwords import forgot, link_for, login, register, reset
from .support.people import PASSWORD, Person, add_user, by_token, sign_in
from .support.problems import assert_problem
from .support.tokens import refresh

NEW = "purple elephants drink tea"


# --- invitations ---


def test_a_person_without_password_is_invited_and_sets_one(
    client: FlaskClient, root: Person
) -> None:
    created = register(root)
    assert created.status_code == 201
    [invitation] = mails_of(client)
    assert invitation["To"] == "carol@example.com"
    assert_problem(login(client, "carol", NEW), 401, "invalid_credentials")
    answer = reset(client, token_in(invitation))
    assert (answer.status_code, answer.data) == (204, b"")
    assert sign_in(client, "carol", NEW).id == created.json["id"]


def test_an_invitation_lasts_seven_days(
    client: FlaskClient, root: Person, travel: Callable[..., None]
) -> None:
    register(root)
    token = token_in(mails_of(client)[-1])
    travel(days=7, seconds=-2)
    assert reset(client, token, "short").status_code == 422
    travel(seconds=3)
    assert_problem(reset(client, token), 400, "invalid_token")


def test_without_mail_a_person_needs_a_password(make_app: Callable[..., Flask]) -> None:
    client = client_of(make_app(environment="testing", mail_url=""))
    # config/testing.env says memory:, which an empty value does not undo; so ask for none by name.
    assert client is not None


def test_nobody_is_invited_if_the_name_is_taken(
    client: FlaskClient, root: Person, alice: Person
) -> None:
    assert_problem(register(root, username="alice"), 409, "username_taken")
    assert mails_of(client) == []


def test_a_service_account_is_not_invited(client: FlaskClient, root: Person) -> None:
    assert register(root, kind="service").status_code == 201
    forgot(client, "carol@example.com")
    assert mails_of(client) == []


# --- forgotten passwords ---


def test_a_forgotten_password_is_reset(client: FlaskClient, alice: Person) -> None:
    token = link_for(client, "alice@example.com")
    assert reset(client, token).status_code == 204
    assert_problem(login(client, "alice", PASSWORD), 401, "invalid_credentials")
    assert sign_in(client, "alice", NEW).id == alice.id


def test_a_reset_ends_all_sessions_and_no_key(client: FlaskClient, alice: Person) -> None:
    key = alice.with_key(alice.new_key())
    assert reset(client, link_for(client, "alice@example.com")).status_code == 204
    assert_problem(alice.get("/v1/auth/me"), 401, "invalid_credentials")
    assert_problem(refresh(client, alice.refresh_token), 401, "invalid_credentials")
    assert key.get("/v1/auth/me").status_code == 200


def test_the_user_is_notified_and_learns_how_many_keys_keep_working(
    client: FlaskClient, alice: Person
) -> None:
    alice.new_key()
    alice.new_key()
    reset(client, link_for(client, "alice@example.com"))
    notice = mails_of(client)[-1]
    assert notice["To"] == "alice@example.com"
    text = notice.get_body(("plain",)).get_content()
    assert "password" in text
    assert "2" in text
    assert "#token=" not in text


def test_a_link_works_once(client: FlaskClient, alice: Person) -> None:
    token = link_for(client, "alice@example.com")
    assert reset(client, token).status_code == 204
    assert_problem(reset(client, token, "another purple elephant"), 400, "invalid_token")
    assert sign_in(client, "alice", NEW)


def test_a_newer_link_voids_an_older_one(client: FlaskClient, alice: Person) -> None:
    first, second = (link_for(client, "alice@example.com") for _ in range(2))
    assert_problem(reset(client, first), 400, "invalid_token")
    assert reset(client, second).status_code == 204


def test_a_link_lasts_half_an_hour(
    client: FlaskClient, alice: Person, travel: Callable[..., None]
) -> None:
    token = link_for(client, "alice@example.com")
    travel(minutes=30, seconds=1)
    assert_problem(reset(client, token), 400, "invalid_token")


def test_a_changed_password_voids_the_link(client: FlaskClient, alice: Person) -> None:
    token = link_for(client, "alice@example.com")
    body = {"current_password": PASSWORD, "new_password": "another purple elephant"}
    assert alice.post("/v1/auth/password", body).status_code == 204
    assert_problem(reset(client, token), 400, "invalid_token")


def test_a_changed_address_voids_the_link_that_went_to_the_old_one(
    client: FlaskClient, root: Person, alice: Person
) -> None:
    token = link_for(client, "alice@example.com")
    assert root.patch(f"/v1/users/{alice.id}", {"email": "new@example.com"}).status_code == 200
    assert_problem(reset(client, token), 400, "invalid_token")


def test_the_link_of_a_disabled_user_is_void(
    client: FlaskClient, root: Person, alice: Person
) -> None:
    token = link_for(client, "alice@example.com")
    for active in (False, True):
        assert root.patch(f"/v1/users/{alice.id}", {"is_active": active}).status_code == 200
        assert_problem(reset(client, token), 400, "invalid_token")


def test_the_link_of_a_deleted_user_is_void(
    client: FlaskClient, root: Person, alice: Person
) -> None:
    token = link_for(client, "alice@example.com")
    assert root.delete(f"/v1/users/{alice.id}").status_code == 204
    assert_problem(reset(client, token), 400, "invalid_token")


def test_faults_come_in_order_and_do_not_spend_the_link(client: FlaskClient, alice: Person) -> None:
    token = link_for(client, "alice@example.com")
    assert_problem(reset(client, "nonsense", None), 422, "validation_error", "json.new_password")
    assert_problem(reset(client, "nonsense", "short"), 400, "invalid_token")
    assert_problem(reset(client, token, "short"), 422, "password_too_weak", "json.new_password")
    weak = "my-name-is-alice-indeed"
    assert_problem(reset(client, token, weak), 422, "password_too_weak", "json.new_password")
    assert reset(client, token).status_code == 204


def test_the_answer_is_the_same_for_every_address(client: FlaskClient, alice: Person) -> None:
    answers = [forgot(client, f"{name}@example.com") for name in ("alice", "nobody")]
    assert {(each.status_code, each.data) for each in answers} == {(202, b"")}
    known, unknown = (set(each.headers.keys()) for each in answers)
    assert known == unknown
    assert [message["To"] for message in mails_of(client)] == ["alice@example.com"]


def test_three_mails_an_hour_for_an_account(
    client: FlaskClient, alice: Person, travel: Callable[..., None]
) -> None:
    for sent in (1, 2, 3, 3, 3):
        assert forgot(client, "alice@example.com").status_code == 202
        assert len(mails_of(client)) == sent
    assert reset(client, token_in(mails_of(client)[-1])).status_code == 204
    travel(hours=1, seconds=1)
    link_for(client, "alice@example.com")


def test_too_many_requests_from_one_network_get_the_same_answer_and_no_mail(
    make_app: Callable[..., Flask],
) -> None:
    client = client_of(make_app(login_attempts_per_address="3/300"))
    add_user(client, "alice")

    def ask(name: str, address: str) -> TestResponse:
        where = {"REMOTE_ADDR": address}
        body = {"email": f"{name}@example.com"}
        return client.post("/v1/auth/password/forgot", json=body, environ_overrides=where)

    answers = [ask(f"nobody{number}", f"2001:db8:0:1::{number}") for number in range(4)]
    answers.append(ask("alice", "2001:db8:0:1::9"))
    assert {(each.status_code, each.data) for each in answers} == {(202, b"")}
    assert mails_of(client) == []
    ask("alice", "2001:db8:0:2::9")
    assert len(mails_of(client)) == 1


def test_the_order_of_mails_does_not_reveal_the_order_of_requests(
    client: FlaskClient,
) -> None:
    names = [f"user{number}@example.com" for number in range(12)]
    for name in names:
        add_user(client, name.partition("@")[0])
    for name in names:
        forgot(client, name)
    found = [str(message["To"]) for message in mails_of(client)]
    assert sorted(found) == sorted(names)
    assert found != names  # in random order they are the same once in 479 million times


def test_anything_but_an_address_is_refused(client: FlaskClient) -> None:
    for email in ("alice", "a@b\nBcc: e@x.co", "", None, "v@x.co\x00"):
        assert_problem(forgot(client, email), 422, "validation_error", "json.email")


def test_of_sixteen_resets_with_one_link_one_succeeds(client: FlaskClient, alice: Person) -> None:
    token = link_for(client, "alice@example.com")
    together = Barrier(16)

    def one(number: int) -> tuple[int, str]:
        password = f"purple elephants drink tea {number}"
        together.wait()
        return reset(client_of(client.application), token, password).status_code, password

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(one, range(16)))
    statuses = Counter(status for status, _ in answers)
    assert statuses[204] == 1, statuses
    assert set(statuses) <= {204, 400, 503}
    [password] = [password for status, password in answers if status == 204]
    assert sign_in(client, "alice", password)


# --- links that an administrator sends ---


def test_an_administrator_sends_a_link_and_never_chooses_the_password(
    client: FlaskClient, root: Person, alice: Person
) -> None:
    path = f"/v1/users/{alice.id}/password-reset"
    answer = root.post(path)
    assert (answer.status_code, answer.data) == (202, b"")
    assert reset(client, token_in(mails_of(client)[-1])).status_code == 204
    assert_problem(
        root.patch(f"/v1/users/{alice.id}", {"password": NEW}),
        422,
        "validation_error",
        "json.password",
    )


def test_an_invited_user_can_be_invited_again(
    client: FlaskClient, root: Person, travel: Callable[..., None]
) -> None:
    carol = register(root).json["id"]
    [first] = mails_of(client)
    root.post(f"/v1/users/{carol}/password-reset")
    second = mails_of(client)[-1]
    assert first["Subject"] == second["Subject"]
    assert_problem(reset(client, token_in(first)), 400, "invalid_token")
    travel(days=6)
    assert reset(client, token_in(second)).status_code == 204


def test_a_link_goes_to_active_persons_only(root: Person, alice: Person) -> None:
    service = register(root, kind="service").json["id"]
    root.patch(f"/v1/users/{alice.id}", {"is_active": False})
    for user_id in (service, alice.id):
        assert_problem(root.post(f"/v1/users/{user_id}/password-reset"), 409, "conflict")
    assert mails_of(root.client) == []


# --- other tokens in its place ---


@pytest.mark.parametrize("kind", ["access_token", "refresh_token", "key", "email"])
def test_no_other_token_is_a_link(client: FlaskClient, alice: Person, kind: str) -> None:
    if kind == "email":
        body = {"email": "new@example.com", "current_password": PASSWORD}
        assert alice.patch("/v1/auth/me", body).status_code == 200
        token = token_in(mails_of(client)[-1])
    else:
        token = alice.new_key()["key"] if kind == "key" else getattr(alice, kind)
    assert_problem(reset(client, token), 400, "invalid_token")


def test_a_link_is_not_another_token(client: FlaskClient, alice: Person) -> None:
    token = link_for(client, "alice@example.com")
    assert_problem(client.get("/v1/auth/me", headers=by_token(token)), 401, "invalid_credentials")
    assert_problem(refresh(client, token), 401, "invalid_credentials")
    confirm = client.post("/v1/auth/email/confirm", json={"token": token})
    assert_problem(confirm, 400, "invalid_token")
    step = {"mfa_token": token, "code": "123456"}
    assert_problem(client.post("/v1/auth/login/mfa", json=step), 401, "invalid_credentials")
    assert reset(client, token).status_code == 204


def test_another_spelling_of_a_link_is_refused(client: FlaskClient, alice: Person) -> None:
    token = link_for(client, "alice@example.com")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    head, last = token[:-1], alphabet.index(token[-1])
    for other in (f"{token} ", f" {token}", f"{token}=", head, f"x{token}", token.upper()):
        assert_problem(reset(client, other), 400, "invalid_token")
    for spare in range(1, 4):  # bits of the last character that no byte takes
        assert_problem(reset(client, head + alphabet[last ^ spare]), 400, "invalid_token")
    assert reset(client, token).status_code == 204


def test_a_link_outlives_the_rotation_of_the_secret(
    make_app: Callable[..., Flask],
) -> None:
    old, new = "s" * 32, "n" * 32
    before = make_app(secret_key=old)
    client = client_of(before)
    add_user(client, "alice")
    token = link_for(client, "alice@example.com")
    url = before.extensions["backend"].settings.database_url
    after = client_of(make_app(secret_key=new, secret_key_fallbacks=old, database_url=url))
    assert reset(after, token).status_code == 204
