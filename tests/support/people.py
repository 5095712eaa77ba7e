"""Alice, Bob, Root and others: their accounts, and how they sign in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from backend.core.identity import CONSOLE
from backend.users import service as users

from .apps import client_of, service_of

PASSWORD = "correct horse battery staple"
NEW_PASSWORD = "purple elephants drink tea"


@dataclass(frozen=True)
class Person:
    """A user who is signed in. `get`, `post`, `patch`, `delete` send the access token."""

    client: FlaskClient
    id: str
    username: str
    access_token: str
    refresh_token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.access_token}"}

    def get(self, path: str, **kwargs: Any) -> TestResponse:
        return self.client.get(path, headers=self.headers, **kwargs)

    def post(self, path: str, json: Any = None, **kwargs: Any) -> TestResponse:
        return self.client.post(path, headers=self.headers, json=json, **kwargs)

    def patch(self, path: str, json: Any, **kwargs: Any) -> TestResponse:
        return self.client.patch(path, headers=self.headers, json=json, **kwargs)

    def delete(self, path: str, **kwargs: Any) -> TestResponse:
        return self.client.delete(path, headers=self.headers, **kwargs)

    def new_key(self, **wanted: Any) -> dict[str, Any]:
        """Create a key of this person and return the answer; its text is `["key"]`."""
        response = self.post("/v1/api-keys", {"name": "test", **wanted})
        assert response.status_code == 201, response.json
        return response.json

    def with_key(self, key: dict[str, Any]) -> Person:
        """Return the same person, sending this key in place of the access token."""
        return replace(self, access_token=key["key"])

    def again(self) -> Person:
        """Sign the same person in again."""
        return sign_in(self.client, self.username)


def sign_in(client: FlaskClient, username: str, password: str = PASSWORD) -> Person:
    """Sign in, and return the person."""
    response = client.post("/v1/auth/login", json={"username": username, "password": password})
    assert response.status_code == 200, response.json
    body = response.json
    return Person(client, body["user"]["id"], username, body["access_token"], body["refresh_token"])


def add_user(client: FlaskClient, username: str, **account: Any) -> None:
    """Create an account as the console would, with PASSWORD unless another one is given."""
    account = {"email": f"{username}@example.com", "password": PASSWORD, **account}
    service = service_of(client.application)
    with service.active():
        users.create(CONSOLE, username=username, **account)
        service.database.close()


def by_token(token: str) -> dict[str, str]:
    """Return the header that presents an access token."""
    return {"Authorization": f"Bearer {token}"}


def by_key(key: str) -> dict[str, str]:
    """Return the header that presents an API key."""
    return {"X-API-Key": key}


def apart(person: Person) -> Person:
    """The same person with a client of their own, for another thread."""
    return replace(person, client=client_of(person.client.application))
