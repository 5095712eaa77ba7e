"""The page behind links in mail: one document, its own code only, right under any prefix."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client, TestResponse

from .support.apps import client_of
from .support.problems import assert_problem
from .support.processes import copy_tree, run


def rules_of(response: TestResponse) -> dict[str, str]:
    """The Content-Security-Policy, by directive."""
    policy = response.headers["Content-Security-Policy"]
    return dict(rule.strip().split(" ", 1) for rule in policy.split(";"))


def allowance(text: str) -> str:
    """The source of a policy that allows exactly this text."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def test_it_is_a_page_for_everybody(bare: FlaskClient) -> None:
    for headers in [{}, {"Authorization": "Bearer no.such.token"}, {"X-API-Key": "x"}]:
        response = bare.get("/password", headers=headers)
        assert (response.status_code, response.mimetype) == (200, "text/html")
        assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert bare.head("/password").status_code == 200


def test_no_request_to_it_can_spend_a_token(bare: FlaskClient) -> None:
    assert_problem(bare.post("/password", json={"token": "x"}), 405, "method_not_allowed")
    token = "btp_AZLTpFtsfY6fASNFZ4mrzQAAAAA.kFo2bS8u1n5mD3t0m9b6cXJv4yqYhT7wKpL2sQeRzWU"
    response = bare.get(f"/password?token={token}")
    assert response.status_code == 422
    assert token not in response.text


def test_a_slash_behind_it_is_another_path(bare: FlaskClient) -> None:
    assert_problem(bare.get("/password/"), 404, "not_found")


def test_the_pages_name_the_service_by_service_name(make_bare_app: Callable[..., Flask]) -> None:
    client = client_of(make_bare_app(service_name="Müller & Söhne"))
    assert "<p>Müller &amp; Söhne</p>" in client.get("/password").text
    assert "<title>Müller &amp; Söhne</title>" in client.get("/v1/docs").text
    assert "<p>Backend</p>" in client_of(make_bare_app()).get("/password").text


def test_its_policy_allows_the_code_in_it_and_no_other(bare: FlaskClient) -> None:
    response = bare.get("/password")
    [script] = re.findall("<script>(.*?)</script>", response.text, re.DOTALL)
    [style] = re.findall("<style>(.*?)</style>", response.text, re.DOTALL)
    assert rules_of(response) == {
        "default-src": "'none'",
        "script-src": allowance(script),
        "style-src": allowance(style),
        "img-src": "data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    assert not re.search(r"<[^>]*\s(style|on\w+)\s*=", response.text.replace(script, ""))


def test_the_other_headers_are_those_of_every_response(bare: FlaskClient) -> None:
    headers = bare.get("/password").headers
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "X-Request-ID" in headers
    assert "Set-Cookie" not in headers


def test_it_names_no_outside_address_and_none_that_a_prefix_would_break(bare: FlaskClient) -> None:
    text = bare.get("/password").text
    assert not re.search(r"""(?:https?:)?//[\w.-]+\.\w|["'`]/\w""", text)
    assert {"v1/auth/password/reset", "v1/auth/email/confirm"} <= set(
        re.findall(r'"(v1/.*?)"', text)
    )


def test_it_is_the_same_under_a_prefix(make_bare_app: Callable[..., Flask]) -> None:
    app = make_bare_app(trusted_proxies="127.0.0.1")
    direct = client_of(app).get("/password")
    behind = client_of(app).get("/password", headers={"X-Forwarded-Prefix": "/accounts"})
    host = DispatcherMiddleware(Flask("host"), {"/accounts": app})
    mounted = Client(host).get("/accounts/password")
    assert direct.text == behind.text == mounted.text
    assert rules_of(direct) == rules_of(behind) == rules_of(mounted)


def test_password_managers_can_tell_what_its_fields_are(bare: FlaskClient) -> None:
    fields = re.findall('<input[^>]*type="password"[^>]*>', bare.get("/password").text)
    assert len(fields) == 2
    assert all('autocomplete="new-password"' in field for field in fields)


def test_it_stands_in_no_documentation(bare: FlaskClient) -> None:
    assert "/password" not in bare.get("/v1/openapi.json").json["paths"]


@pytest.mark.slow
def test_who_edits_it_need_not_think_of_the_policy(tmp_path: Path) -> None:
    tree = copy_tree(tmp_path / "tree")
    page = tree / "config" / "password.html"
    text = page.read_text("utf-8").replace('"use strict";', '"use strict"; // Grüße\r\n', 1)
    page.write_bytes(text.encode())
    script = """
import base64, hashlib
from backend.app import create_app
response = create_app().test_client().get("/password")
script = response.text.partition("<script>")[2].partition("</script>")[0]
assert "Grüße" in script
digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
print(f"script-src 'sha256-{digest}';" in response.headers["Content-Security-Policy"])
"""
    done = run(tree, "python", "-c", script)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
