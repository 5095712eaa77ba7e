"""Access and refresh tokens: used, asked about, altered and forged."""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from typing import Any

import jwt
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from backend.crypto.keyring import derive

from .apps import client_of, service_of
from .people import Person, apart, by_token


def refresh(client: FlaskClient, token: str) -> TestResponse:
    """Exchange a refresh token, and return the answer."""
    return client.post("/v1/auth/refresh", json={"refresh_token": token})


def me(client: FlaskClient, token: str) -> TestResponse:
    """The answer to an access token."""
    return client.get("/v1/auth/me", headers=by_token(token))


def altered(text: str, chance: random.Random) -> str:
    """The text with one thing about it changed."""
    place = chance.randrange(len(text))
    character = chance.choice(string.ascii_letters + string.digits + string.punctuation)
    result = chance.choice(
        [
            text[:place] + character + text[place + 1 :],
            text[:place] + character + text[place:],
            text[:place] + text[place + 1 :],
            text[:place] or "x",
            text[place:] + text[:place],
            text[:place] + text[place:].swapcase(),
            text + character,
            f"{text}.{text}",
        ]
    )
    return result if result != text else altered(text, chance)


def forged(
    app: Flask,
    valid: str,
    *,
    claims: dict[str, Any] | None = None,
    without: str = "",
    header: dict[str, Any] | None = None,
    algorithm: str = "HS256",
) -> str:
    """The valid access token with other claims or another header, signed with the right key."""
    payload = jwt.decode(valid, options={"verify_signature": False}) | (claims or {})
    payload.pop(without, None)
    secret = service_of(app).settings.secret_key
    key = derive(secret, "access") if algorithm != "none" else ""
    headers = jwt.get_unverified_header(valid) | {"alg": algorithm} | (header or {})
    return jwt.encode(payload, key, algorithm, headers=headers)


def refreshing(person: Person) -> Callable[[], TestResponse]:
    """An act: exchange the person's refresh token."""
    client = apart(person).client
    return lambda: refresh(client, person.refresh_token)


def assert_one_chain(app: Flask, person: Person, bodies: list[dict[str, str]]) -> None:
    """All got the same refresh token of one session, which goes on with it."""
    [newest] = {body["refresh_token"] for body in bodies}
    assert newest != person.refresh_token
    sessions = {
        jwt.decode(body["access_token"], options={"verify_signature": False})["sid"]
        for body in bodies
    }
    assert len(sessions) == 1
    client = client_of(app)
    for body in bodies:
        headers = by_token(body["access_token"])
        assert client.get("/v1/auth/me", headers=headers).status_code == 200
    assert refresh(client, newest).status_code == 200


def ask(asker: Person, token: str, **more: str) -> dict[str, Any]:
    """What is told of the token."""
    answer = asker.post("/v1/auth/introspect", data={"token": token, **more})
    assert answer.status_code == 200, answer.json
    return answer.json
