"""ASVS 5.0 chapter 14: where secrets may stand, and who may keep what is answered."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from flask.testing import FlaskClient

from .support.openapi import operations
from .support.people import PASSWORD, Person, add_user
from .support.problems import assert_problem
from .support.tokens import refresh

TOKENS = re.compile(r"eyJ[\w-]+\.|\bbt[rpem]?_[0-9A-Za-z_-]{20,}")


def test_14_2_1_no_credential_is_taken_from_an_address(
    alice: Person, logged: Callable[[], list[str]]
) -> None:
    client, key = alice.client, alice.new_key()["key"]
    for name in ("access_token", "token", "api_key", "key", "X-API-Key", "Authorization"):
        for text in (alice.access_token, key):
            assert_problem(client.get(f"/v1/auth/me?{name}={text}"), 401, "unauthenticated")
            answer = alice.get(f"/v1/auth/me?{name}={text}")
            assert_problem(answer, 422, "validation_error", f"query.{name}")
    assert_problem(client.get("/v1/auth/login"), 405, "method_not_allowed")
    asked = {"username": "alice", "password": PASSWORD}
    answer = client.post("/v1/auth/login", query_string=asked, json=asked)
    assert_problem(answer, 422, "validation_error", "query.password", "query.username")
    assert client.get(f"/v1/auth/{alice.refresh_token}").status_code == 404
    lines = "\n".join(logged())
    assert lines.count("/v1/auth/me") > 20
    assert not TOKENS.search(lines)
    assert PASSWORD not in lines


def test_14_2_6_a_secret_is_shown_once(alice: Person) -> None:
    key = alice.new_key()
    text = key["key"]
    assert key["hint"] == f"bt_...{text[-4:]}"
    for path in (f"/v1/api-keys/{key['id']}", "/v1/api-keys", "/v1/auth/me"):
        shown = alice.get(path).text
        assert text[3:-4] not in shown
        assert "hint" in shown or path.endswith("me")
    secret = alice.post("/v1/auth/mfa", {"current_password": PASSWORD}).json["secret"]
    assert secret not in alice.get("/v1/auth/mfa").text


@pytest.mark.slow
def test_14_3_2_no_answer_of_the_api_is_kept(client: FlaskClient, root: Person) -> None:
    add_user(client, "alice")
    found = [client.get("/nothing"), client.put("/healthz"), refresh(client, root.refresh_token)]
    body = {"username": "alice", "password": PASSWORD}
    found.append(client.post("/v1/auth/login", json=body))
    for method, path, _ in operations(client):
        for headers in ({}, root.again().headers):
            found.append(client.open(path, method=method, headers=headers))
    assert len(found) > 70
    for answer in found:
        kept = "/jwks.json" in answer.request.path and answer.status_code == 200
        expected = "public, max-age=300" if kept else "no-store"
        assert answer.headers["Cache-Control"] == expected
