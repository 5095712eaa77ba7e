"""Passwords: invitations, links by mail, and wrong guesses."""

from __future__ import annotations

from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from .mail import mails_of, token_in
from .people import NEW_PASSWORD, Person

HOME, AWAY = "192.0.2.1", "198.51.100.7"


def forgot(client: FlaskClient, email: str) -> TestResponse:
    """The answer to asking for a link."""
    return client.post("/v1/auth/password/forgot", json={"email": email})


def link_for(client: FlaskClient, email: str) -> str:
    """The token of a link that was just asked for."""
    before = len(mails_of(client))
    assert forgot(client, email).status_code == 202
    [message] = mails_of(client)[before:]
    assert message["To"] == email
    return token_in(message)


def reset(client: FlaskClient, token: str, password: Any = NEW_PASSWORD) -> TestResponse:
    """The answer to setting a password by a link."""
    return client.post("/v1/auth/password/reset", json={"token": token, "new_password": password})


def login(client: FlaskClient, username: str, password: str) -> TestResponse:
    """The answer to signing in."""
    return client.post("/v1/auth/login", json={"username": username, "password": password})


def register(root: Person, **account: Any) -> TestResponse:
    """The answer to registering Carol without a password."""
    account = {"username": "carol", "email": "carol@example.com", **account}
    return root.post("/v1/auth/register", account)


def guess(
    client: FlaskClient, name: str, password: str = "wrong", address: str = HOME
) -> TestResponse:
    """The answer to signing in from an address."""
    body = {"username": name, "password": password}
    return client.post("/v1/auth/login", json=body, environ_overrides={"REMOTE_ADDR": address})


def guesses(client: FlaskClient, name: str, count: int, address: str = HOME) -> list[int]:
    """The statuses of that many wrong guesses."""
    return [guess(client, name, address=address).status_code for _ in range(count)]
