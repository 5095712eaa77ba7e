"""Altered tokens, by the hundred thousand: none is accepted, and all are answered alike."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from flask import Flask
from werkzeug.test import Client, TestResponse

from backend.crypto import signing_keys
from backend.db.database import new_id

from ..support.apps import service_of
from ..support.long_runs import FULL
from ..support.settings import make_settings
from ..support.tokens import altered

COUNT = 200_000 if FULL else 10_000


def answers(
    ask: Callable[[str], TestResponse], valid: str, is_other: Callable[[str], object]
) -> Counter[tuple[int, str]]:
    """How often there was which answer (its request id aside) to alterations of the text.

    Leaves out those that might be a key of another system, about which only the database can tell.
    """
    chance = random.Random()
    found: Counter[tuple[int, str]] = Counter()
    for _ in range(COUNT):
        text = altered(valid, chance)
        while is_other(text):
            text = altered(valid, chance)
        response = ask(text)
        body = {name: said for name, said in (response.json or {}).items() if name != "request_id"}
        found[response.status_code, str(body)] += 1
    return found


@pytest.mark.parametrize("algorithm", ["HS256", "EdDSA", "ES256"])
def test_access_tokens(
    make_bare_app: Callable[..., Flask],
    figure: Callable[[str, str], None],
    tmp_path: Path,
    algorithm: str,
) -> None:
    values = {"jwt_algorithm": algorithm, "jwt_private_key_file": tmp_path / "keys.pem"}
    if algorithm != "HS256":
        signing_keys.add(make_settings(**values))
    app = make_bare_app(**values)  # without a database: one that was accepted would be a 503
    client, valid = Client(app), service_of(app).access_tokens.sign(new_id(), new_id())

    def ask(token: str) -> TestResponse:
        return client.get("/v1/auth/me", headers={"Authorization": f"Bearer {token}"})

    def is_other(text: str) -> bool:
        return not re.fullmatch(r"[\w-]+(\.[\w-]+){2}", text, re.ASCII)

    assert ask(valid).status_code == 503
    [((status, _), count)] = answers(ask, valid, is_other).items()
    assert (status, count) == (401, COUNT)
    figure("alterations refused with one body", f"{count:,}")


@pytest.mark.parametrize("kind", ["refresh token", "link", "second step", "API key"])
def test_other_tokens(
    make_bare_app: Callable[..., Flask], figure: Callable[[str, str], None], kind: str
) -> None:
    app = make_bare_app()
    client, keyring = Client(app), service_of(app).keyring

    hour = timedelta(hours=1)
    valid, path, member, expected = {
        "refresh token": (keyring.sign_refresh(new_id(), 0), "refresh", "refresh_token", 401),
        "link": (keyring.sign_for("p", new_id(), 0, hour), "password/reset", "token", 400),
        "second step": (keyring.sign_for("m", new_id(), 0, hour), "login/mfa", "mfa_token", 401),
        "API key": (keyring.new_api_key(), "me", "", 401),
    }[kind]

    def ask(token: str) -> TestResponse:
        if not member:
            return client.get(f"/v1/auth/{path}", headers={"X-API-Key": token})
        body = {member: token}
        body |= {"link": {"new_password": "x"}, "second step": {"code": "123456"}}.get(kind, {})
        return client.post(f"/v1/auth/{path}", json=body)

    assert ask(valid).status_code == 503
    is_other = keyring.digests if not member else lambda text: False
    [((status, _), count)] = answers(ask, valid, is_other).items()
    assert (status, count) == (expected, COUNT)
    figure("alterations refused with one body", f"{count:,}")
