"""The page behind links in mail, in a real browser, from the mail to the new password."""

from __future__ import annotations

import re

import pytest
from flask.testing import FlaskClient

from ..support.concurrency import until
from ..support.mail import mails_of, token_in
from ..support.people import PASSWORD, add_user, sign_in
from .chromium import Chromium

ANOTHER = "purple elephants drink tea"


def link_to(client: FlaskClient) -> str:
    """The link in the newest mail."""
    return f"{_page(client)}#token={token_in(mails_of(client)[-1])}"


def forget(client: FlaskClient, email: str) -> str:
    """The link that comes after a password was forgotten."""
    assert client.post("/v1/auth/password/forgot", json={"email": email}).status_code == 202
    return link_to(client)


def _page(client: FlaskClient) -> str:
    return client.application.extensions["backend"].settings.password_url


def says(page: Chromium, text: str) -> None:
    """Wait until the page shows this text."""
    until(lambda: text in page.shows())


def choose(page: Chromium, password: str, again: str) -> None:
    """Type the password and its repetition, and press Enter."""
    page.type("#new", password)
    page.type("#again", again)
    page.press_enter()


def test_a_forgotten_password_is_reset(page: Chromium, client: FlaskClient) -> None:
    add_user(client, "alice")
    link = forget(client, "alice@example.com")
    page.open(link)
    says(page, "Choose a password")
    choose(page, "short", "shirt")
    says(page, "The two passwords differ.")
    choose(page, "short", "short")
    says(page, "At least 15 characters.")
    assert page.run("document.activeElement.id") == "new"
    assert page.run("document.querySelector('#new').getAttribute('aria-invalid')") == "true"
    choose(page, ANOTHER, ANOTHER)
    says(page, "Your password is set.")
    assert ANOTHER not in page.run("document.documentElement.outerHTML")
    assert sign_in(client, "alice", ANOTHER)
    page.open(link)
    says(page, "Choose a password")
    choose(page, PASSWORD, PASSWORD)
    says(page, "This link is no longer valid")
    assert sign_in(client, "alice", ANOTHER)


def test_an_invitation_makes_an_account_usable(page: Chromium, client: FlaskClient) -> None:
    add_user(client, "alice", password=None)
    page.open(link_to(client))
    says(page, "Choose a password")
    choose(page, ANOTHER, ANOTHER)
    says(page, "Your password is set.")
    assert sign_in(client, "alice", ANOTHER)


def test_a_new_address_is_confirmed_by_a_button(page: Chromium, client: FlaskClient) -> None:
    add_user(client, "alice")
    alice = sign_in(client, "alice")
    change = {"email": "alice@new.example.com", "current_password": PASSWORD}
    assert alice.patch("/v1/auth/me", change).status_code == 200
    page.open(link_to(client))
    says(page, "Confirm your e-mail address")
    assert alice.get("/v1/auth/me").json["email"] == "alice@example.com"
    page.run("document.querySelector('#email button').click()")
    says(page, "Your new e-mail address is confirmed.")
    assert alice.get("/v1/auth/me").json["email"] == "alice@new.example.com"


def test_an_address_that_somebody_has_taken_meanwhile_is_told(
    page: Chromium, client: FlaskClient
) -> None:
    add_user(client, "alice")
    change = {"email": "bob@example.com", "current_password": PASSWORD}
    assert sign_in(client, "alice").patch("/v1/auth/me", change).status_code == 200
    page.open(link_to(client))
    add_user(client, "bob")
    says(page, "Confirm your e-mail address")
    page.run("document.querySelector('#email button').click()")
    says(page, "This address is taken")


def test_the_token_stands_in_no_place_where_others_could_find_it(
    page: Chromium, client: FlaskClient
) -> None:
    add_user(client, "alice")
    link = forget(client, "alice@example.com")
    page.open(link)
    says(page, "Choose a password")
    token = link.partition("=")[2]
    for place in ("location.href", "document.documentElement.outerHTML", "history.state", "name"):
        assert token not in str(page.run(place))
    assert page.run("localStorage.length + sessionStorage.length") == 0
    assert page.run("document.cookie") == ""


def test_a_link_is_not_spent_by_opening_it_and_forgotten_by_a_reload(
    page: Chromium, client: FlaskClient
) -> None:
    add_user(client, "alice")
    link = forget(client, "alice@example.com")
    for _ in range(2):
        page.open(link)
        says(page, "Choose a password")
        page.call("Page.reload")
        says(page, "This link is incomplete")
    page.open(link)  # in the same tab, where only what is behind the # is new
    says(page, "Choose a password")
    choose(page, ANOTHER, ANOTHER)
    says(page, "Your password is set.")


@pytest.mark.parametrize("fragment", ["", "#token=", "#token=btx_abc.def", "#abc", "#token=%"])
def test_a_link_without_a_token_is_told_to_be_incomplete(
    page: Chromium, client: FlaskClient, fragment: str
) -> None:
    page.open(_page(client) + fragment)
    says(page, "This link is incomplete")


def test_the_password_can_be_shown(page: Chromium, client: FlaskClient) -> None:
    page.open(f"{_page(client)}#token=btp_abc.def")
    says(page, "Choose a password")
    kind = "document.querySelector('#new').type + document.querySelector('#again').type"
    for shown in ("passwordpassword", "texttext", "passwordpassword"):
        assert page.run(kind) == shown
        page.run("document.querySelector('#show').click()")


@pytest.mark.parametrize(
    "attempt",
    [
        "document.body.append(Object.assign(document.createElement('script'), {text: CODE}))",
        "document.body.setAttribute('onclick', CODE); document.body.click()",
        "document.body.innerHTML = `<b onclick='${CODE}'></b>`",
        "document.body.append(Object.assign(document.createElement('base'), {href: '/x/'}))",
        "document.body.setAttribute('style', 'color: red')",
        "fetch('http://127.0.0.2:9/').catch(() => {})",
        "new Image().src = 'http://127.0.0.2:9/'",
        "document.querySelector('#password').submit()",
    ],
)
def test_its_policy_keeps_what_is_not_its_own_out(
    browser: Chromium, client: FlaskClient, attempt: str
) -> None:
    browser.open("about:blank")
    browser.open(f"{_page(client)}#token=btp_abc.def")
    says(browser, "Choose a password")
    browser.complaints.clear()
    browser.run(f"{{ const CODE = 'document.title = 1'; try {{ {attempt} }} catch {{}} }}")
    until(lambda: browser.run("0") or browser.complaints)
    assert all(re.search("Content Security Policy|Trusted", each) for each in browser.complaints)
    assert browser.run("document.title") == "Choose a password"
