"""Headers that every response carries, whatever it says."""

import re
from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from backend.web.access import public

from .support.apps import client_of
from .support.people import PASSWORD, Person

LOGIN = "/v1/auth/login"
STANDARD = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
ASSETS = [
    "/v1/docs/assets/swagger-ui-bundle.js",
    "/v1/docs/assets/swagger-ui.css",
    "/v1/docs/assets/redoc.standalone.js",
    "/v1/docs/assets/swagger.js",
    "/v1/docs/assets/redoc.js",
]


def assert_headers(response: TestResponse, **others: str) -> None:
    """The response carries the standard headers once each, `others` in place of some of them."""
    expected = STANDARD | {name.replace("_", "-"): value for name, value in others.items()}
    for name, value in expected.items():
        assert response.headers.getlist(name) == [value], (name, response.status)
    [request_id] = response.headers.getlist("X-Request-ID")
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", request_id)
    for name in ["Server", "X-Powered-By", "Set-Cookie", "Strict-Transport-Security"]:
        assert name not in response.headers


@pytest.fixture
def faulty(make_bare_app: Callable[..., Flask]) -> FlaskClient:
    """A client of an app without a database, one of whose routes fails."""
    app = make_bare_app(trusted_hosts="localhost")

    @public
    def fault() -> None:
        raise RuntimeError

    app.add_url_rule("/fault", view_func=fault)
    return app.test_client()


def test_every_kind_of_response_carries_them(faulty: FlaskClient) -> None:
    good = {"username": "alice", "password": PASSWORD}
    calls = [
        (200, faulty.get("/")),
        (200, faulty.get("/healthz")),
        (200, faulty.get("/v1/openapi.json")),
        (200, faulty.head("/healthz")),
        (204, faulty.options("/v1/auth/me")),
        (400, faulty.post(LOGIN, data="{", content_type="application/json")),
        (400, faulty.get("/", headers={"Host": "elsewhere.example"})),
        (401, faulty.get("/v1/auth/me")),
        (404, faulty.get("/nothing")),
        (404, faulty.get("/v1/docs/assets/nothing.js")),
        (405, faulty.put(LOGIN)),
        (413, faulty.post(LOGIN, data=b" " * (1024 * 1024 + 1))),
        (415, faulty.post(LOGIN, data="x", content_type="text/plain")),
        (422, faulty.post(LOGIN, json={})),
        (422, faulty.get("/v1/docs?x=1")),
        (500, faulty.get("/fault")),
        (503, faulty.post(LOGIN, json=good)),
        (503, faulty.get("/readyz")),
    ]
    for status, response in calls:
        assert response.status_code == status
        assert_headers(response)


def test_answers_that_the_database_gave_carry_them(alice: Person) -> None:
    key = alice.new_key()
    path = f"/v1/api-keys/{key['id']}"
    created = alice.post("/v1/api-keys", {"name": "x"})
    login = alice.client.post(LOGIN, json={"username": "alice", "password": PASSWORD})
    for response in [
        created,
        login,
        alice.get("/v1/auth/me"),
        alice.get(path),
        alice.get("/readyz"),
    ]:
        assert response.status_code < 300
        assert_headers(response)
    for response in [alice.get("/v1/users"), alice.delete(path), alice.get(path)]:
        assert response.status_code in {204, 403, 404}
        assert_headers(response)


@pytest.mark.parametrize("path", ASSETS)
def test_assets_may_be_kept_for_a_day(bare: FlaskClient, path: str) -> None:
    assert_headers(bare.get(path), Cache_Control="public, max-age=86400")


@pytest.mark.parametrize("path", ["/v1/docs", "/v1/redoc"])
def test_pages_have_a_policy_of_their_own_that_allows_no_foreign_code(
    bare: FlaskClient, path: str
) -> None:
    response = bare.get(path)
    policy = response.headers["Content-Security-Policy"]
    assert_headers(response, Content_Security_Policy=policy)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    for name in ["default-src", "base-uri", "frame-ancestors", "form-action"]:
        assert rules[name] == "'none'"
    assert rules["script-src"] == rules["connect-src"] == "'self'"
    assert "unsafe-eval" not in policy
    for sources in rules.values():
        assert set(sources.split()) <= {"'none'", "'self'", "'unsafe-inline'", "data:"}


@pytest.mark.parametrize("path", ["/", "/nothing", "/v1/auth/me", "/v1/docs", ASSETS[0]])
def test_browsers_are_told_to_stay_with_https_where_it_is_spoken(
    make_bare_app: Callable[..., Flask], path: str
) -> None:
    https = client_of(make_bare_app(public_url="https://accounts.example.com"))
    [value] = https.get(path).headers.getlist("Strict-Transport-Security")
    seconds = re.match(r"max-age=(\d+)", value)
    assert seconds is not None
    assert int(seconds[1]) >= 31_536_000
    http = client_of(make_bare_app(public_url="http://localhost:8000"))
    assert "Strict-Transport-Security" not in http.get(path).headers


@pytest.mark.parametrize("text", ["a", "A-b_c.9", "0", "x" * 64, "-", "..", "8f14e45f-ceea"])
def test_a_request_id_that_fits_is_taken_over(bare: FlaskClient, text: str) -> None:
    for path in ["/healthz", "/nothing"]:
        response = bare.get(path, headers={"X-Request-ID": text})
        assert response.headers.getlist("X-Request-ID") == [text]
    assert response.json["request_id"] == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "x" * 65,
        "a b",
        "a,b",
        "a/b",
        "a:b",
        "é",
        "a\n",
        "a\r\nSet-Cookie: x=y",
        "a\x00",
        "<b>",
    ],
)
def test_a_request_id_that_does_not_fit_is_replaced(bare: FlaskClient, text: str) -> None:
    environ = {"HTTP_X_REQUEST_ID": text.encode().decode("latin-1")}
    response = bare.get("/nothing", environ_overrides=environ)
    [request_id] = response.headers.getlist("X-Request-ID")
    assert re.fullmatch("[0-9a-f]{16,64}", request_id)
    assert response.json["request_id"] == request_id
    assert "Set-Cookie" not in response.headers


def test_each_request_has_an_id_of_its_own(bare: FlaskClient) -> None:
    assert len({bare.get("/healthz").headers["X-Request-ID"] for _ in range(50)}) == 50


def test_no_cookie_is_set_or_read(alice: Person) -> None:
    client = alice.client
    for name in ["access_token", "session", "Authorization", "token", "X-API-Key"]:
        client.set_cookie(name, alice.access_token)
    assert client.get("/v1/auth/me").json["code"] == "unauthenticated"
    for response in [
        client.post(LOGIN, json={"username": "alice", "password": PASSWORD}),
        client.post("/v1/auth/refresh", json={"refresh_token": alice.refresh_token}),
        alice.post("/v1/auth/logout"),
        client.get("/v1/docs"),
        client.get("/nothing"),
    ]:
        assert "Set-Cookie" not in response.headers


def test_a_credential_in_the_address_is_not_one(alice: Person) -> None:
    for name in ["access_token", "token", "api_key", "key", "authorization"]:
        response = alice.client.get(f"/v1/auth/me?{name}={alice.access_token}")
        assert response.json["code"] == "unauthenticated"
