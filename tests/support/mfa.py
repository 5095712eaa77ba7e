"""The second factor: setting it up, its codes, and signing in with it."""

from __future__ import annotations

import pyotp
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from backend.core import clock

from .people import PASSWORD, Person


def code_of(secret: str, steps: int = 0) -> str:
    """Return what an authenticator app with the secret shows, `steps` steps of 30 s from now."""
    return pyotp.TOTP(secret).at(clock.timestamp() + 30 * steps)


def enrol(person: Person) -> tuple[str, list[str]]:
    """Set up a second factor, using up the present code; return (secret, recovery codes)."""
    secret = person.post("/v1/auth/mfa", {"current_password": PASSWORD}).json["secret"]
    response = person.post("/v1/auth/mfa/confirm", {"code": code_of(secret)})
    assert response.status_code == 200, response.json
    return secret, response.json["recovery_codes"]


def first(client: FlaskClient, password: str = PASSWORD) -> TestResponse:
    """The answer to Alice's first step."""
    return client.post("/v1/auth/login", json={"username": "alice", "password": password})


def second(client: FlaskClient, token: str, code: str) -> TestResponse:
    """The answer to the second step."""
    return client.post("/v1/auth/login/mfa", json={"mfa_token": token, "code": code})


def halfway(client: FlaskClient) -> str:
    """The token of a first step of Alice's that went well."""
    return first(client).json["mfa_token"]
