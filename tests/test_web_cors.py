"""CORS: which pages of other origins may read what the service answers."""

from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from backend.web.access import public

from .support.apps import client_of, url_of
from .support.people import Person
from .support.problems import assert_problem
from .support.settings import make_settings

ORIGIN = "https://app.example.com"
OTHER = "http://localhost:3000"
EXPOSED = {
    "X-Request-ID",
    "Retry-After",
    "RateLimit",
    "RateLimit-Policy",
    "Location",
    "WWW-Authenticate",
}
ASK = {
    "Access-Control-Request-Method": "PATCH",
    "Access-Control-Request-Headers": "authorization, content-type",
}
NOT_LISTED = [
    "null",
    "*",
    "",
    "https://app.example.com.evil.example",
    "https://app.example.community",
    "https://app.example.co",
    "https://evil.app.example.com",
    "https://app.example.com:8443",
    "https://app.example.com:443",
    "https://app.example.com/",
    "https://app.example.com/path",
    "https://app.example.com evil.example",
    "https://app.example.com,https://evil.example",
    "https://app.example.com@evil.example",
    "https://evil.example#https://app.example.com",
    "https://appXexample.com",
    "http://app.example.com",
    "HTTPS://APP.EXAMPLE.COM",
    "app.example.com",
    "file://",
    "http://localhost",
    "http://localhost:30001",
]


@pytest.fixture(scope="module")
def shared(make_bare_app: Callable[..., Flask]) -> FlaskClient:
    """A client of an app without a database that two origins may use."""
    return client_of(make_bare_app(cors_origins=f"{ORIGIN}, {OTHER}"))


def assert_shared(response: TestResponse, origin: str) -> None:
    """A page of `origin` may read the response, without credentials of the browser's own."""
    assert response.headers.getlist("Access-Control-Allow-Origin") == [origin]
    exposed = response.headers["Access-Control-Expose-Headers"]
    assert set(exposed.split(", ")) == EXPOSED
    assert "Access-Control-Allow-Credentials" not in response.headers
    assert "Origin" in response.headers["Vary"]


def assert_not_shared(response: TestResponse) -> None:
    """No header says anything of other origins, Vary apart."""
    names = {name.lower() for name in response.headers.keys()}  # noqa: SIM118
    assert not {name for name in names if name.startswith("access-control-")}


@pytest.mark.parametrize("origin", [ORIGIN, OTHER])
def test_a_listed_origin_may_read_every_answer(
    make_bare_app: Callable[..., Flask], origin: str
) -> None:
    app = make_bare_app(cors_origins=f"{ORIGIN},{OTHER}", trusted_hosts="localhost")

    @public
    def fault() -> None:
        raise RuntimeError

    app.add_url_rule("/fault", view_func=fault)
    client, headers = app.test_client(), {"Origin": origin}
    credentials = {"username": "alice", "password": "x"}
    calls = [
        (200, client.get("/healthz", headers=headers)),
        (200, client.get("/v1/docs", headers=headers)),
        (200, client.get("/v1/docs/assets/swagger.js", headers=headers)),
        (401, client.get("/v1/auth/me", headers=headers)),
        (404, client.get("/nothing", headers=headers)),
        (405, client.put("/healthz", headers=headers)),
        (415, client.post("/v1/auth/login", data="x", headers=headers)),
        (422, client.post("/v1/auth/login", json={}, headers=headers)),
        (400, client.get("/", headers=headers | {"Host": "elsewhere.example"})),
        (500, client.get("/fault", headers=headers)),
        (503, client.post("/v1/auth/login", json=credentials, headers=headers)),
    ]
    for status, response in calls:
        assert response.status_code == status
        assert_shared(response, origin)


def test_a_page_may_create_and_read(make_app: Callable[..., Flask], alice: Person) -> None:
    client = client_of(make_app(cors_origins=ORIGIN, database_url=url_of(alice.client.application)))
    headers = alice.headers | {"Origin": ORIGIN}
    created = client.post("/v1/api-keys", json={"name": "x"}, headers=headers)
    assert created.status_code == 201
    assert_shared(created, ORIGIN)
    read = client.get(created.headers["Location"], headers=headers)
    assert read.status_code == 200
    assert_shared(read, ORIGIN)


@pytest.mark.parametrize("origin", NOT_LISTED)
def test_an_origin_that_is_not_listed_is_served_and_told_nothing(
    shared: FlaskClient, origin: str
) -> None:
    headers = {"Origin": origin}
    for status, response in [
        (200, shared.get("/healthz", headers=headers)),
        (404, shared.get("/nothing", headers=headers)),
        (204, shared.options("/v1/auth/me", headers=headers | ASK)),
    ]:
        assert response.status_code == status
        assert_not_shared(response)
        assert "Origin" in response.headers["Vary"]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/auth/login",
        "/v1/auth/me",
        "/v1/users",
        "/v1/api-keys",
        "/v1/api-keys/0192d3a4-5b6c-7d8e-9f01-23456789abcd",
    ],
)
def test_a_preflight_is_answered_without_a_credential(shared: FlaskClient, path: str) -> None:
    response = shared.options(path, headers={"Origin": ORIGIN} | ASK)
    assert (response.status_code, response.data) == (204, b"")
    assert_shared(response, ORIGIN)
    methods = response.headers["Access-Control-Allow-Methods"].split(", ")
    assert set(methods) == {"GET", "POST", "PATCH", "DELETE"}
    allowed = {
        name.lower() for name in response.headers["Access-Control-Allow-Headers"].split(", ")
    }
    assert allowed == {"authorization", "content-type", "x-api-key", "x-request-id"}
    assert response.headers["Access-Control-Max-Age"] == "600"


def test_answers_vary_by_origin_for_everybody_once_there_are_origins(shared: FlaskClient) -> None:
    for path in ["/", "/nothing", "/v1/auth/me", "/v1/docs", "/v1/docs/assets/swagger.js"]:
        response = shared.get(path)
        assert_not_shared(response)
        assert "Origin" in response.headers["Vary"]


def test_without_origins_nobody_is_told_anything(bare: FlaskClient) -> None:
    for response in [
        bare.get("/healthz", headers={"Origin": ORIGIN}),
        bare.get("/v1/auth/me", headers={"Origin": "null"}),
        bare.options("/v1/auth/me", headers={"Origin": ORIGIN} | ASK),
    ]:
        assert response.status_code in {200, 204, 401}
        assert_not_shared(response)
        assert "Vary" not in response.headers


def test_development_lists_the_usual_origins_and_production_none() -> None:
    secret = "4zZrL0pXk9vQ7nB2mW5yT8cF1hJ6dG3s"
    development = make_settings(environment="development", secret_key=secret)
    assert development.cors_origins == ("http://localhost:3000", "http://localhost:8000")
    assert make_settings(environment="production", secret_key=secret).cors_origins == ()


def test_a_preflight_for_what_is_not_there_is_not_found(shared: FlaskClient) -> None:
    response = shared.options("/nothing", headers={"Origin": ORIGIN} | ASK)
    assert_problem(response, 404, "not_found")
