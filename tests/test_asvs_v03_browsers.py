"""ASVS 5.0 chapter 3: what browsers are told, and what they are kept from."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from backend.web.access import public

from .support.apps import client_of
from .support.mail import mails_of
from .support.people import PASSWORD, Person, add_user
from .support.problems import assert_problem
from .support.tokens import refresh

CSP = "default-src 'none'; base-uri 'none'; frame-ancestors 'none'"
LOGIN = "/v1/auth/login"


def answers(client: FlaskClient) -> list[TestResponse]:
    """Answers of many kinds, for which no database is asked."""
    found = [
        client.get("/healthz"),
        client.post(LOGIN, data=b"{", content_type="application/json"),
        client.get("/v1/auth/me"),
        client.get("/nothing"),
        client.put("/healthz"),
        client.post(LOGIN, data=b"x" * 1_100_000, content_type="application/json"),
        client.post(LOGIN, data=b"{}", content_type="text/plain"),
        client.get("/healthz?x=1"),
        client.post(LOGIN, json={"username": "alice", "password": PASSWORD}),
    ]
    statuses = [200, 400, 401, 404, 405, 413, 415, 422, 503]
    assert [each.status_code for each in found] == statuses
    return found


@pytest.fixture
def faulty(make_bare_app: Callable[..., Flask]) -> FlaskClient:
    """A client of an app at an https address, without a database, with a route that fails."""
    app = make_bare_app(public_url="https://id.example")

    @public
    def fault() -> None:
        raise ZeroDivisionError

    app.add_url_rule("/fault", view_func=fault)
    return app.test_client()


def test_3_2_1_no_answer_can_be_shown_as_a_page(bare: FlaskClient) -> None:
    for answer in answers(bare):
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Security-Policy"] == CSP
        assert answer.mimetype in {"application/json", "application/problem+json"}


def test_3_3_1_no_cookie_is_ever_set(client: FlaskClient) -> None:
    add_user(client, "alice")
    signed_in = client.post(LOGIN, json={"username": "alice", "password": PASSWORD})
    tokens = signed_in.json
    alice = Person(client, "", "alice", tokens["access_token"], tokens["refresh_token"])
    found = [signed_in, refresh(client, alice.refresh_token), alice.post("/v1/auth/logout")]
    for answer in [*found, client.get("/password"), client.get("/v1/docs"), client.get("/x")]:
        assert "Set-Cookie" not in answer.headers


def test_3_3_4_no_cookie_is_read(alice: Person) -> None:
    for name in ("access_token", "token", "session", "__Host-rt", "X-API-Key"):
        alice.client.set_cookie(name, alice.access_token)
    assert_problem(alice.client.get("/v1/auth/me"), 401, "unauthenticated")
    answer = alice.client.post("/v1/auth/refresh")
    assert_problem(answer, 422, "validation_error", "json._schema")


def test_3_4_1_browsers_are_told_to_stay_with_https(faulty: FlaskClient, bare: FlaskClient) -> None:
    for answer in [*answers(faulty), faulty.get("/password"), faulty.get("/fault")]:
        age, _, rest = answer.headers["Strict-Transport-Security"].partition("; ")
        assert int(age.removeprefix("max-age=")) >= 31_536_000
        assert rest == "includeSubDomains"
    assert faulty.get("/fault").status_code == 500
    assert "Strict-Transport-Security" not in bare.get("/healthz").headers


def test_3_4_2_only_listed_origins_may_read(
    make_bare_app: Callable[..., Flask], bare: FlaskClient
) -> None:
    listing = client_of(make_bare_app(cors_origins="https://app.ok"))
    for client in (bare, listing):
        for origin in ("https://evil", "null", "https://app.ok.evil", "http://app.ok", "*"):
            for method in ("GET", "OPTIONS"):
                headers = {"Origin": origin, "Access-Control-Request-Method": "GET"}
                answer = client.open("/healthz", method=method, headers=headers)
                assert "Access-Control" not in str(answer.headers)
    answer = listing.get("/healthz", headers={"Origin": "https://app.ok"})
    assert answer.headers["Access-Control-Allow-Origin"] == "https://app.ok"
    assert "Access-Control-Allow-Credentials" not in answer.headers


def test_3_4_3_every_answer_has_a_policy(bare: FlaskClient) -> None:
    for answer in answers(bare):
        assert answer.headers["Content-Security-Policy"] == CSP
    for path in ("/password", "/v1/docs", "/v1/redoc"):
        policy = bare.get(path).headers["Content-Security-Policy"]
        for part in ("default-src 'none'", "base-uri 'none'", "frame-ancestors 'none'"):
            assert part in policy.split("; ")
        assert "unsafe-eval" not in policy
        assert "script-src 'unsafe-inline'" not in policy


def test_3_4_4_no_type_is_guessed_and_no_address_is_passed_on(bare: FlaskClient) -> None:
    for answer in [*answers(bare), bare.get("/password"), bare.get("/v1/docs")]:
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"


def test_3_5_1_what_a_form_can_send_is_refused(bare: FlaskClient) -> None:
    for path in (LOGIN, "/v1/auth/refresh", "/v1/api-keys/revoke", "/v1/auth/password/reset"):
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
            answer = bare.post(path, data=b'{"token":"x"}', content_type=kind)
            assert_problem(answer, 415, "unsupported_media_type")


def test_3_5_3_no_state_is_changed_by_looking(alice: Person) -> None:
    key = alice.new_key()
    for path in ("logout", "logout-all", "refresh", "password/reset", "email/confirm"):
        for method in ("GET", "HEAD"):
            answer = alice.client.open(f"/v1/auth/{path}", method=method, headers=alice.headers)
            assert answer.status_code == 405
            assert "POST" in answer.headers["Allow"]
    for path in ("revoke", f"{key['id']}/revoke"):
        assert alice.get(f"/v1/api-keys/{path}").status_code in (404, 405)
    assert alice.get(f"/v1/api-keys/{key['id']}").json["status"] == "active"


def test_3_7_2_nobody_is_sent_elsewhere(client: FlaskClient, root: Person) -> None:
    evil = {"Host": "evil.example", "X-Forwarded-Host": "evil.example"}
    for path in ("/", "/password", "/v1/auth/me/", "//evil.example/%2e%2e", "/v1//docs", "/v1"):
        for query in ("", "?rd=//evil.example", "?next=https://evil.example"):
            answer = client.get(f"{path}{query}", headers=evil)
            assert answer.status_code in (200, 404, 422)
            assert "Location" not in answer.headers
    account = {"username": "carol", "email": "carol@example.com", "password": PASSWORD}
    created = client.post("/v1/auth/register", json=account, headers={**root.headers, **evil})
    assert created.headers["Location"] == f"/v1/users/{created.json['id']}"
    client.post("/v1/auth/password/forgot", json={"email": "carol@example.com"}, headers=evil)
    [message] = mails_of(client)
    assert "http://127.0.0.1:8000/password#token=" in str(message)
    assert "evil" not in str(message)
