"""/v1/verify: what a proxy learns about a request, from the status and the headers alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from backend.db.database import new_id

from .support.apps import client_of, service_of, statements, url_of
from .support.mfa import enrol
from .support.people import PASSWORD, Person, add_user, by_key, by_token, sign_in
from .support.problems import assert_problem

Headers = dict[str, str]
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "QUERY"]


def ask(client: FlaskClient, headers: Headers, query: str = "", **kwargs: Any) -> TestResponse:
    """The answer to a request, which never has a body."""
    response = client.get(f"/v1/verify{query}", headers=headers, **kwargs)
    assert response.data == b""
    assert response.headers.getlist("Content-Length") == ["0"]
    assert "Content-Type" not in response.headers
    return response


def identity_headers(response: TestResponse) -> Headers:
    """The X-Auth-* of an answer."""
    return {name: text for name, text in response.headers if name.startswith("X-Auth-")}


def assert_refused(response: TestResponse, status: int, code: str) -> None:
    """Assert that the answer is this refusal, and describes no caller."""
    assert (response.status_code, identity_headers(response)) == (status, {"X-Auth-Code": code})


def test_a_session_passes_and_is_described_in_headers(client: FlaskClient, alice: Person) -> None:
    response = ask(client, alice.headers)
    assert response.status_code == 200
    assert identity_headers(response) == {
        "X-Auth-User-Id": alice.id,
        "X-Auth-Username": "alice",
        "X-Auth-Role": "user",
        "X-Auth-Method": "session",
    }
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Request-ID"]


def test_a_key_passes_with_the_scopes_that_its_owners_role_allows_now(
    client: FlaskClient, root: Person, alice: Person
) -> None:
    root.patch(f"/v1/users/{alice.id}", {"role": "admin"})
    key = alice.new_key(scopes=["users:read", "reports:write", "reports:read"])
    root.patch(f"/v1/users/{alice.id}", {"role": "user"})
    response = ask(client, by_key(key["key"]))
    assert response.status_code == 200
    assert identity_headers(response) == {
        "X-Auth-User-Id": alice.id,
        "X-Auth-Username": "alice",
        "X-Auth-Role": "user",
        "X-Auth-Method": "api_key",
        "X-Auth-Key-Id": key["id"],
        "X-Auth-Scopes": "reports:read reports:write",
    }
    bearer = ask(client, {"Authorization": f"Bearer {key['key']}"})
    assert identity_headers(bearer) == identity_headers(response)
    assert identity_headers(ask(client, by_key(alice.new_key()["key"])))["X-Auth-Scopes"] == ""


def test_every_method_is_answered_alike_and_no_body_is_read(
    client: FlaskClient, alice: Person
) -> None:
    for method in METHODS:
        for data, kind in ((b"", ""), (b"{", "application/json"), (b"x" * 1_100_000, "nonsense")):
            sent = {"method": method, "data": data, "content_type": kind}
            passed = client.open("/v1/verify", headers=alice.headers, **sent)
            assert (passed.status_code, passed.data) == (200, b"")
            assert passed.headers["X-Auth-User-Id"] == alice.id
            assert_refused(client.open("/v1/verify", **sent), 401, "unauthenticated")
    preflight = {"Origin": "https://a.example", "Access-Control-Request-Method": "GET"}
    assert_refused(client.options("/v1/verify", headers=preflight), 401, "unauthenticated")


def test_other_routes_still_know_their_methods(client: FlaskClient, alice: Person) -> None:
    assert_problem(client.open("/v1/auth/me", method="QUERY"), 405, "method_not_allowed")
    for path in ("//v1/verify", "//v1/verify/x", "/v1/verifyx", "/v1//verify"):
        response = client.get(path, headers=alice.headers)
        assert_problem(response, 404, "not_found")


BELOW = ["", "x", "a/b/", "/", "//a", "../v1/users", "v1/auth/login", "%2e%2e/x", "a%0ab", "%00"]
BELOW += ["%ff", "%c3%a4;x=1", "a" * 2000, "x?scope=users:read", "?role=admin&limited=403"]
BELOW += ["?%ff&="]


@pytest.mark.parametrize("rest", BELOW)
def test_below_it_the_path_and_query_of_the_client_are_ignored(
    client: FlaskClient, alice: Person, rest: str
) -> None:
    """Envoy's `path_prefix` appends both, and the client must not choose the parameters."""
    key = alice.new_key(rate_limit={"limit": 1, "window_seconds": 60})["key"]
    path = f"/v1/verify/{rest}"
    for method in METHODS:
        passed = client.open(path, method=method, headers=alice.headers)
        assert (passed.status_code, passed.data) == (200, b""), method
        assert passed.headers["X-Auth-User-Id"] == alice.id
        assert_refused(client.open(path, method=method), 401, "unauthenticated")
    assert_refused(client.get(path, headers=by_key("garbage")), 401, "invalid_credentials")
    assert client.get(path, headers=by_key(key)).status_code == 200
    assert_refused(client.get(path, headers=by_key(key)), 429, "rate_limited")


def test_below_it_any_host_is_answered_too(
    make_app: Callable[..., Flask],
) -> None:
    client = client_of(make_app(trusted_hosts="accounts.example.com"))
    add_user(client, "alice")
    login = {"username": "alice", "password": PASSWORD}
    ours = {"Host": "accounts.example.com"}
    token = client.post("/v1/auth/login", json=login, headers=ours).json["access_token"]
    for path in ("/v1/verify", "/v1/verify/", "/v1/verify/x"):
        assert client.get(path, headers=by_token(token)).status_code == 200
    assert_problem(client.get("/v1/verifyx"), 400, "bad_request")


@pytest.mark.parametrize(
    "query",
    [
        *("?x=1", "?scope=a:b&x=1", "?Scope=a:b", "?scope=", "?scope", "?scope=a", "?scope=A:b"),
        *("?scope=a:b,a:c", "?scope=a:b+a:c", "?scope=*:b", "?scope=a:b%0a", "?scope=%ff:b"),
        *("?scope=a:%C3%A4", "?role=", "?role=emperor", "?role=user&role=user", "?role=Admin"),
        *("?limited=429", "?limited=", "?limited=403&limited=403", "?&", "?scope=a:b&", "?="),
        *("?scope=a:b;role=user", "?" + "&".join(["scope=a:b"] * 65), "?scope=" + "a" * 9000),
    ],
)
def test_malformed_parameters_never_pass(bare: FlaskClient, query: str) -> None:
    for headers in ({}, by_key("garbage")):
        assert_refused(ask(bare, headers, query), 403, "bad_request")


def test_invalid_credentials_are_401(client: FlaskClient, alice: Person) -> None:
    key = alice.new_key()
    two = {**alice.headers, **by_key(key["key"])}
    bad = 'Bearer error="invalid_token"'
    for headers, code, challenge in [
        ({}, "unauthenticated", "Bearer"),
        ({"Authorization": "Basic YTpi"}, "unauthenticated", "Bearer"),
        (two, "ambiguous_credentials", "Bearer"),
        (by_key("garbage"), "invalid_credentials", bad),
        ({"Authorization": f"Bearer {alice.refresh_token}"}, "invalid_credentials", bad),
        ({"Authorization": f"Bearer {alice.access_token[:-2]}"}, "invalid_credentials", bad),
    ]:
        response = ask(client, headers)
        assert_refused(response, 401, code)
        assert response.headers["WWW-Authenticate"] == challenge
    alice.post("/v1/auth/logout")
    assert_refused(ask(client, alice.headers), 401, "invalid_credentials")


def test_all_required_scopes_must_be_held(client: FlaskClient, alice: Person) -> None:
    headers = by_key(alice.new_key(scopes=["reports:read", "notes:*"])["key"])
    both = "?scope=reports:read&scope=notes:write"
    assert ask(client, headers, both).status_code == 200
    refused = ask(client, headers, f"{both}&scope=reports%3Awrite")
    assert_refused(refused, 403, "insufficient_scope")
    assert 'scope="reports:read notes:write reports:write"' in refused.headers["WWW-Authenticate"]
    assert_refused(ask(client, headers, "?scope=reports:*"), 403, "insufficient_scope")


def test_a_session_passes_for_any_scope_that_its_role_may_hold(
    client: FlaskClient, root: Person, alice: Person
) -> None:
    for scope in ("reports:read", "reports:*", "keys:write"):
        assert ask(client, alice.headers, f"?scope={scope}").status_code == 200
    for scope in ("users:read", "audit:*", "keys:verify", "keys:*", "tokens:introspect"):
        query = f"?scope=reports:read&scope={scope}"
        assert_refused(ask(client, alice.headers, query), 403, "insufficient_scope")
        assert ask(client, root.headers, query).status_code == 200


def test_the_required_role_must_be_held_and_an_admin_is_a_user_too(
    client: FlaskClient, root: Person, alice: Person
) -> None:
    for person in (root, alice):
        for headers in (person.headers, by_key(person.new_key()["key"])):
            assert ask(client, headers, "?role=user").status_code == 200
            admin = ask(client, headers, "?role=admin")
            if person is root:
                assert admin.status_code == 200
            else:
                assert_refused(admin, 403, "forbidden")


def test_a_key_is_limited_to_its_addresses_and_a_session_is_not(
    make_app: Callable[..., Flask],
) -> None:
    client = client_of(make_app(trusted_proxies="127.0.0.1"))
    add_user(client, "alice")
    alice = sign_in(client, "alice")
    key = by_key(alice.new_key(allowed_ips=["192.0.2.0/24"])["key"])
    here, there = {"X-Forwarded-For": "192.0.2.7"}, {"X-Forwarded-For": "198.51.100.1"}
    assert ask(client, {**key, **here}).status_code == 200
    for sent in ({}, there, {"X-Forwarded-For": "192.0.2.7, 198.51.100.1"}):
        assert_refused(ask(client, {**key, **sent}), 403, "ip_not_allowed")
    assert ask(client, {**alice.headers, **there}).status_code == 200
    untrusting = client_of(make_app(database_url=url_of(client.application)))
    assert_refused(ask(untrusting, {**key, **here}), 403, "ip_not_allowed")


def test_users_who_must_set_up_a_second_factor_do_not_pass_before(
    make_app: Callable[..., Flask],
) -> None:
    client = client_of(make_app(mfa_required_roles="user"))
    add_user(client, "alice")
    alice = sign_in(client, "alice")
    assert_refused(ask(client, alice.headers), 403, "mfa_enrolment_required")
    enrol(alice)
    assert ask(client, alice.headers).status_code == 200


def test_a_limit_is_reported_and_429_can_become_403(client: FlaskClient, alice: Person) -> None:
    key = by_key(alice.new_key(rate_limit={"limit": 2, "window_seconds": 60})["key"])
    for left in (1, 0):
        passed = ask(client, key)
        assert passed.status_code == 200
        assert passed.headers["RateLimit-Policy"] == '"key";q=2;w=60'
        assert passed.headers["RateLimit"].startswith(f'"key";r={left};t=')
    for query, status in (("", 429), ("?limited=403", 403)):
        refused = ask(client, key, query)
        assert_refused(refused, status, "rate_limited")
        assert 0 < int(refused.headers["Retry-After"]) <= 120
        assert refused.headers["RateLimit"].startswith('"key";r=0;t=')


def test_only_requests_that_pass_use_the_quota(client: FlaskClient, alice: Person) -> None:
    quota = {"remaining": 1, "refill_amount": 1, "refill_interval": "daily"}
    key = alice.new_key(quota=quota, scopes=["a:b"])
    headers = by_key(key["key"])
    for query in ("?scope=a:c", "?role=admin", "?x=1"):
        assert ask(client, headers, query).status_code == 403
    assert ask(client, headers).status_code == 200
    for query, status in (("", 429), ("?limited=403", 403)):
        refused = ask(client, headers, query)
        assert_refused(refused, status, "usage_exceeded")
        assert 0 < int(refused.headers["Retry-After"]) <= 86_400
    assert alice.get(f"/v1/api-keys/{key['id']}").json["quota"]["remaining"] == 0


def test_a_request_that_passes_is_a_use_of_the_key(client: FlaskClient, alice: Person) -> None:
    key = alice.new_key()
    path = f"/v1/api-keys/{key['id']}"
    chores = service_of(client.application).periodic_tasks
    ask(client, by_key(key["key"]), "?role=admin")
    chores.run()
    assert alice.get(path).json["last_used_at"] is None
    ask(client, by_key(key["key"]))
    chores.run()
    assert alice.get(path).json["last_used_ip"] == "127.0.0.1"


def test_it_costs_one_statement_and_a_refusal_writes_nothing(
    client: FlaskClient, root: Person, alice: Person, logged: Callable[[], list[str]]
) -> None:
    key = by_key(alice.new_key(scopes=["a:b"])["key"])
    for headers in (alice.headers, key):
        for query in ("", "?role=admin", "?scope=users:read"):
            with statements(client.application) as ran:
                ask(client, headers, query)
            assert len(ran) == 1
            assert ran[0].startswith("SELECT")
    assert root.get("/v1/audit-events?action=access.denied").json["items"] == []
    lines = [json.loads(line) for line in logged() if "access.denied" in line]
    assert [line["code"] for line in lines] == ["forbidden", "insufficient_scope"] * 2
    assert all(alice.id in line["who"] for line in lines)


def test_without_a_database_everyone_is_refused(bare: FlaskClient) -> None:
    service = service_of(bare.application)
    token = service.access_tokens.sign(new_id(), new_id())
    for headers in (by_token(token), by_key(service.keyring.new_api_key())):
        response = ask(bare, headers)
        assert_refused(response, 503, "unavailable")
        assert int(response.headers["Retry-After"]) >= 1


def test_the_documentation_lists_all_its_answers(bare: FlaskClient) -> None:
    operation = bare.get("/v1/openapi.json").json["paths"]["/v1/verify"]["get"]
    assert {each["name"] for each in operation["parameters"]} == {"scope", "role", "limited"}
    assert set(operation["responses"]) == {"200", "401", "403", "429", "500", "503"}
    for status, response in operation["responses"].items():
        assert "content" not in response
        assert ("X-Auth-Code" in response["headers"]) == (status != "200")
    assert "`bad_request`" in operation["responses"]["403"]["description"]
    assert "`ambiguous_credentials`" in operation["responses"]["401"]["description"]
