"""Errors: one form for all, their order, paths and methods that are not there, faults of ours."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from backend.db.database import new_id
from backend.web.access import public

from .support.apps import client_of, service_of
from .support.people import PASSWORD, Person, by_key
from .support.problems import assert_problem

ID = "0192d3a4-5b6c-7d8e-9f01-23456789abcd"
JSON = "application/json"
MEMBERS = {"type", "title", "status", "code", "detail", "request_id"}
TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
GONE = ["sqlite:////there/is/no/such/folder.db", "postgresql://nobody@127.0.0.1:1/none"]


def assert_whole_problem(
    response: TestResponse, status: int, code: str, *fields: str, **more: Any
) -> None:
    """As assert_problem, and every member is there and no other."""
    assert_problem(response, status, code, *fields)
    body = response.json
    assert set(body) == MEMBERS | ({"errors"} if fields else set())
    assert (body["type"], body["title"]) == ("about:blank", TITLES[status])
    assert isinstance(body["detail"], str)
    assert body["detail"]


def test_every_refusal_is_a_problem_document(
    client: FlaskClient, root: Person, alice: Person
) -> None:
    login, big = "/v1/auth/login", b" " * (1024 * 1024 + 1)
    taken = {"username": "ALICE", "email": "other@example.com", "password": PASSWORD}
    wrong = {"username": "alice", "password": "wrong" + PASSWORD}
    refusals = [
        (client.post(login, data="{", content_type=JSON), 400, "malformed_json"),
        (client.get("/v1/auth/me"), 401, "unauthenticated"),
        (client.get("/v1/auth/me", headers=by_key("bt_none")), 401, "invalid_credentials"),
        (client.post(login, json=wrong), 401, "invalid_credentials"),
        (alice.get("/v1/users"), 403, "forbidden"),
        (client.get("/nothing"), 404, "not_found"),
        (root.get(f"/v1/users/{ID}"), 404, "not_found"),
        (client.get(login), 405, "method_not_allowed"),
        (root.delete(f"/v1/users/{root.id}"), 409, "last_admin"),
        (client.post(login, data=big, content_type=JSON), 413, "payload_too_large"),
        (client.post(login, data="{}", content_type="text/plain"), 415, "unsupported_media_type"),
    ]
    for response, status, code in refusals:
        assert_whole_problem(response, status, code)
    response = client.post(login, json={"username": 1})
    fields = "json.username", "json.password"
    assert_whole_problem(response, 422, "validation_error", *fields)
    response = root.post("/v1/auth/register", taken)
    assert (response.status_code, response.json["code"]) == (409, "username_taken")


def test_a_refusal_is_a_problem_document_whatever_the_client_accepts(bare: FlaskClient) -> None:
    for accept in ["text/html", "application/xml", "nonsense", "application/json;q=0"]:
        response = bare.get("/nothing", headers={"Accept": accept})
        assert_whole_problem(response, 404, "not_found")


def test_refusals_come_in_the_promised_order(root: Person, alice: Person) -> None:
    """Everything is wrong at first; each step mends the fault that was told."""
    client, key = root.client, alice.new_key()["key"]
    path, big = f"/v1/users/{ID}", b"[" * (1024 * 1024 + 1)
    both = {"Authorization": f"Bearer {alice.access_token}x", "X-API-Key": key}

    def put(path: str, **kwargs: Any) -> TestResponse:
        return client.put(f"{path}?unknown=1", data=big, content_type="text/plain", **kwargs)

    def patch(headers: dict[str, str], data: bytes, kind: str = JSON) -> TestResponse:
        return client.patch(path, headers=headers, data=data, content_type=kind)

    assert_problem(put("/v1/users/ABC", headers=both), 404, "not_found")
    assert_problem(put(path, headers=both), 405, "method_not_allowed")
    assert_problem(patch(both, big, "text/plain"), 400, "ambiguous_credentials")
    wrong = {"Authorization": f"Bearer {alice.access_token}x"}
    assert_problem(patch(wrong, big, "text/plain"), 401, "invalid_credentials")
    assert_problem(patch({}, big, "text/plain"), 401, "unauthenticated")
    assert_problem(patch(alice.headers, big, "text/plain"), 403, "forbidden")
    assert_problem(patch(by_key(key), big, "text/plain"), 403, "insufficient_scope")
    assert_problem(patch(root.headers, big, "text/plain"), 413, "payload_too_large")
    assert_problem(patch(root.headers, b"[", "text/plain"), 415, "unsupported_media_type")
    assert_problem(patch(root.headers, b"["), 400, "malformed_json")
    fault = patch(root.headers, b'{"is_active": "yes"}')
    assert_problem(fault, 422, "validation_error", "json.is_active")
    assert_problem(patch(root.headers, b'{"is_active": false}'), 404, "not_found")
    path = f"/v1/users/{root.id}"
    assert_problem(patch(root.headers, b'{"is_active": false}'), 409, "last_admin")


@pytest.mark.parametrize(
    "path",
    [
        "/v1",
        "/v1/",
        "/v2/auth/me",
        "/v1/auth/ME",
        "/v1/auth/me/",
        "/v1//auth/me",
        "/v1/auth//me",
        "/v1/users/",
        "/v1/api-keys/",
        "/v1/api-keys//revoke",
        "/v1/auth/login/",
        "/healthz/",
        "/readyz//",
        "/v1/docs/",
        "/v1/openapi.json/",
        "/v1/docs/assets/",
        "/v1/docs/assets/../docs.py",
        "/.env",
        "/static/x",
        "/\x00",
        "/healthz\n",
        "/\xff\xfe",
        "/%",
    ],
)
def test_what_is_not_there_is_not_found_and_never_a_redirect(bare: FlaskClient, path: str) -> None:
    for method in ["GET", "POST", "FOO"]:
        response = bare.open(method=method, environ_overrides={"PATH_INFO": path})
        assert_problem(response, 404, "not_found")
        assert "Location" not in response.headers


def test_two_slashes_in_front_are_no_redirect(bare: FlaskClient) -> None:
    for path in ["//", "//v1/auth/me", "//evil.example/%2e%2e", "/\\evil.example"]:
        response = bare.get(environ_overrides={"PATH_INFO": path})
        assert response.status_code in {200, 401, 404}
        assert "Location" not in response.headers


@pytest.mark.parametrize(
    "text",
    [
        "1",
        "me",
        "any",
        ID.upper(),
        ID.replace("-", ""),
        f"{{{ID}}}",
        f"urn:uuid:{ID}",
        f"{ID}0",
        ID[:-1],
        f" {ID}",
        f"{ID}\n",
        f"{ID}/",
        ID.replace("0", "\N{FULLWIDTH DIGIT ZERO}"),
        "g" * 8 + ID[8:],
        "00000000000000000000000000000000",
    ],
)
def test_an_id_that_is_no_lower_case_uuid_is_not_found_before_credentials_are_asked_for(
    bare: FlaskClient, text: str
) -> None:
    text = text.encode().decode("latin-1")  # as WSGI hands it over
    for path in [f"/v1/users/{text}", f"/v1/api-keys/{text}", f"/v1/api-keys/{text}/revoke"]:
        for method in ["GET", "PATCH", "DELETE", "POST"]:
            response = bare.open(method=method, environ_overrides={"PATH_INFO": path})
            assert_problem(response, 404, "not_found")


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/", {"GET", "HEAD", "OPTIONS"}),
        ("/healthz", {"GET", "HEAD", "OPTIONS"}),
        ("/v1/auth/login", {"POST", "OPTIONS"}),
        ("/v1/auth/me", {"GET", "HEAD", "PATCH", "OPTIONS"}),
        ("/v1/api-keys", {"GET", "HEAD", "POST", "OPTIONS"}),
        (f"/v1/users/{ID}", {"GET", "HEAD", "PATCH", "DELETE", "OPTIONS"}),
        ("/v1/docs", {"GET", "HEAD", "OPTIONS"}),
        ("/v1/docs/assets/swagger.js", {"GET", "HEAD", "OPTIONS"}),
    ],
)
def test_an_unknown_method_is_refused_with_those_that_there_are(
    bare: FlaskClient, path: str, methods: set[str]
) -> None:
    for method in ["PUT", "TRACE", "CONNECT", "FOO", "PROPFIND", "QUERY"]:
        response = bare.open(path, method=method)
        assert_whole_problem(response, 405, "method_not_allowed")
        assert set(response.headers["Allow"].split(", ")) == methods


@pytest.mark.parametrize("header", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"])
def test_a_header_cannot_change_the_method(alice: Person, header: str) -> None:
    key = alice.new_key()
    path, headers = f"/v1/api-keys/{key['id']}", alice.headers | {header: "DELETE"}
    assert_problem(alice.client.post(path, headers=headers), 405, "method_not_allowed")
    assert alice.client.get(path, headers=headers).status_code == 200
    assert alice.client.get(f"{path}?_method=DELETE", headers=alice.headers).status_code == 422
    assert alice.get(path).status_code == 200


def test_head_answers_as_get_does_without_a_body(make_bare_app: Callable[..., Flask]) -> None:
    client = make_bare_app().test_client()
    for path in ["/", "/healthz", "/v1/openapi.json", "/v1/docs", "/nothing", "/v1/auth/me"]:
        with_body, without = client.get(path), client.head(path)
        assert without.status_code == with_body.status_code
        assert without.content_type == with_body.content_type
        assert without.data == b""


def test_a_fault_of_ours_is_told_to_the_log_and_not_to_the_caller(
    make_bare_app: Callable[..., Flask], caplog: pytest.LogCaptureFixture
) -> None:
    app = make_bare_app()

    @public
    def fault() -> None:
        raise RuntimeError("what nobody outside may read")

    app.add_url_rule("/fault", view_func=fault)
    response = app.test_client().get("/fault")
    assert_whole_problem(response, 500, "internal_error")
    assert "outside" not in response.text
    assert "Traceback" in caplog.text
    assert "RuntimeError: what nobody outside may read" in caplog.text


def test_a_view_without_a_mark_is_closed(make_bare_app: Callable[..., Flask]) -> None:
    app = make_bare_app()
    app.add_url_rule("/forgotten", view_func=lambda: "open by mistake")
    response = app.test_client().get("/forgotten")
    assert_whole_problem(response, 500, "internal_error")


@pytest.mark.parametrize("url", GONE)
def test_without_a_database_all_that_needs_it_is_unavailable(
    make_bare_app: Callable[..., Flask], url: str
) -> None:
    app = make_bare_app(database_url=url)
    client, keyring = client_of(app), service_of(app).keyring
    token = service_of(app).access_tokens.sign(new_id(), new_id())
    key = keyring.new_api_key()
    calls = [
        client.post("/v1/auth/login", json={"username": "alice", "password": PASSWORD}),
        client.post("/v1/auth/refresh", json={"refresh_token": keyring.sign_refresh(new_id(), 0)}),
        client.post("/v1/api-keys/revoke", json={"key": key}),
    ]
    for path, operations in client.get("/v1/openapi.json").json["paths"].items():
        for method in operations.keys() & {"get", "post", "patch", "delete"}:
            if operations[method]["security"] and path != "/v1/verify":  # no problem documents
                place = re.sub("{[a-z_]+}", ID, path)
                bearer = {"Authorization": f"Bearer {token}"}
                calls.append(client.open(place, method=method, headers=bearer))
                calls.append(client.open(place, method=method, headers=by_key(key)))
    assert len(calls) > 25
    for response in calls:
        assert_whole_problem(response, 503, "unavailable")
        assert 0 < int(response.headers["Retry-After"]) < 60


@pytest.mark.parametrize("url", GONE)
def test_without_a_database_all_that_needs_none_goes_on(
    make_bare_app: Callable[..., Flask], url: str
) -> None:
    client = client_of(make_bare_app(database_url=url))
    for path in ["/", "/healthz", "/v1/openapi.json", "/v1/docs", "/v1/redoc"]:
        assert client.get(path).status_code == 200
    assert_problem(client.get("/v1/users"), 401, "unauthenticated")
    assert_problem(
        client.get("/v1/users", headers=by_key("bt_" + "0" * 38)), 401, "invalid_credentials"
    )
    refused = client.post("/v1/auth/refresh", json={"refresh_token": "none"})
    assert_problem(refused, 401, "invalid_credentials")


def test_a_body_that_ends_too_early_is_the_clients_fault(bare: FlaskClient) -> None:
    response = bare.post(
        "/v1/auth/login",
        data=b'{"username": "al',
        content_type=JSON,
        environ_overrides={"CONTENT_LENGTH": "100"},
    )
    assert_whole_problem(response, 400, "bad_request")


@pytest.mark.parametrize("length", ["-1", "abc", "1e3", "", "99999999999999999999", "+5"])
def test_a_nonsensical_content_length_is_the_clients_fault(bare: FlaskClient, length: str) -> None:
    response = bare.post(
        "/v1/auth/login",
        data=b"{}",
        content_type=JSON,
        environ_overrides={"CONTENT_LENGTH": length},
    )
    assert 400 <= response.status_code < 500


@pytest.mark.parametrize(
    "host", ["a b", "<x>", "x" * 70, "a..b", ".", "[::1", "a:99999", "\xff", ""]
)
def test_a_nonsensical_host_is_never_a_fault_of_ours(bare: FlaskClient, host: str) -> None:
    for path in ["/healthz", "/v1/auth/me", "/nothing"]:
        # The environ itself: the test client would judge the host by itself.
        environ = {"HTTP_HOST": host, "PATH_INFO": path}
        response = bare.get(environ_overrides=environ)
        assert response.status_code < 500
