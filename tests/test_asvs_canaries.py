"""16.2.5, 14.2.1: whatever is sent anywhere, no secret comes out of it again."""

import json
from collections.abc import Callable
from uuid import uuid4

import pytest
from flask import Flask

from backend.db.database import release

from .support.apps import client_of, service_of, settle
from .support.mail import mails_of, token_in
from .support.mfa import code_of, enrol
from .support.openapi import example_of, operations
from .support.people import PASSWORD, Person, add_user, sign_in
from .support.tokens import refresh

SECRET_FIELDS = {
    *("password", "current_password", "new_password", "token", "refresh_token", "mfa_token"),
    *("code", "key"),
}


def dumped(app: Flask) -> str:
    """All rows of all tables, as one text."""
    database = service_of(app).database
    rows = [
        str(row)
        for table in database.get_tables()
        for row in database.execute_sql(f'SELECT * FROM "{table}"').fetchall()
    ]
    release(database)
    return "\n".join(rows)


def events(app: Flask) -> str:
    """The audit trail as it is exported."""
    return app.test_cli_runner().invoke(args=["audit", "export"]).stdout


def test_16_2_5_no_secret_that_works_is_kept_or_logged_in_clear(
    app: Flask, root: Person, travel: Callable[..., None], logged: Callable[[], list[str]]
) -> None:
    client = root.client
    add_user(client, "alice")
    alice = sign_in(client, "alice")
    secret, codes = enrol(alice)
    travel(seconds=60)
    code = code_of(secret)
    halfway = client.post("/v1/auth/login", json={"username": "alice", "password": PASSWORD}).json
    step = {"mfa_token": halfway["mfa_token"], "code": code}
    tokens = client.post("/v1/auth/login/mfa", json=step).json
    key = alice.new_key()["key"]
    client.get("/v1/auth/me", headers={"X-API-Key": key})
    client.post("/v1/auth/password/forgot", json={"email": "alice@example.com"})
    assert mails_of(client)
    alice.patch("/v1/auth/me", {"email": "new@example.com", "current_password": PASSWORD})
    links = [token_in(mail) for mail in mails_of(client) if "#token=" in mail.as_string()]
    assert len(links) == 2
    refresh(client, tokens["refresh_token"])
    new = "purple elephants drink tea"
    reset = client.post("/v1/auth/password/reset", json={"token": links[0], "new_password": new})
    assert reset.status_code == 204
    client.post("/v1/api-keys/revoke", json={"key": key})
    client.get(f"/v1/auth/me?access_token={tokens['access_token']}")

    secrets = [PASSWORD, new, secret, *codes, key, halfway["mfa_token"], *links]
    secrets += [alice.access_token, alice.refresh_token, tokens["access_token"]]
    secrets += [tokens["refresh_token"], *(text.replace("-", "") for text in codes)]
    for place in ("\n".join(logged()), events(app), dumped(app)):
        assert place
        assert [each for each in secrets if each in place] == []
    assert f'"{code}"' not in "\n".join(logged()) + events(app)


@pytest.mark.slow
def test_16_2_5_what_is_typed_into_the_wrong_field_is_not_repeated(
    app: Flask, root: Person, logged: Callable[[], list[str]]
) -> None:
    client, errors, everywhere, secret = client_of(app), [], [], []
    for method, path, operation in operations(client):
        place = path.replace("{user_id}", root.id).replace("{key_id}", root.id)
        if method == "delete" or "logout" in path:
            continue
        for name in example_of(operation) or {}:
            canary = f"canary-{uuid4().hex}"
            (secret if name in SECRET_FIELDS else everywhere).append(canary)
            body = {**(example_of(operation) or {}), name: canary}
            for headers in (root.headers, {}):
                answer = client.open(place, method=method, headers=headers, json=body)
                if answer.status_code >= 400:
                    errors.append(answer.text)
        canary = f"canary-{uuid4().hex}"
        secret.append(canary)
        wrong = {"Authorization": f"Bearer {canary}", "X-API-Key": canary, "X-Other": canary}
        asked = {"query_string": {canary: "x", "search": canary}, "headers": wrong}
        answer = client.open(place, method=method, json={canary: canary}, **asked)
        if answer.status_code >= 400 and canary not in str((answer.json or {}).get("errors")):
            errors.append(answer.text)
    assert len(everywhere) > 20
    assert len(secret) > 40
    for name, text, canaries in (
        ("log", "\n".join(logged()), everywhere + secret),
        ("audit", events(app), everywhere + secret),
        ("errors", json.dumps(errors), everywhere + secret),
        ("database", dumped(app), secret),
    ):
        assert [each for each in canaries if each in text] == [], name


def test_16_2_5_the_password_of_the_mail_server_is_not_logged(
    make_app: Callable[..., Flask], logged: Callable[[], list[str]], root: Person
) -> None:
    url = "smtp://user:canary-of-the-mail-server@127.0.0.1:9"
    client = client_of(make_app(mail_url=url))
    add_user(client, "alice")
    client.post("/v1/auth/password/forgot", json={"email": "alice@example.com"})
    settle(client.application)
    assert "mail.delayed" in "\n".join(logged())
    assert "canary-of-the-mail-server" not in "\n".join(logged())
    assert "canary-of-the-mail-server" not in repr(service_of(client.application).settings)
