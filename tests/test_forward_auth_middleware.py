"""The guard in front of other applications: middleware, decorator, and that all doors agree."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from flask import Flask, request
from flask.testing import FlaskClient
from werkzeug.test import Client, TestResponse

from backend.core import context
from backend.db.database import new_id
from backend.forward_auth.decorator import guarded
from backend.forward_auth.middleware import IDENTITY, Caller, Middleware

from .support.apps import client_of, service_of, statements
from .support.mfa import enrol
from .support.openapi import NOTHING
from .support.people import Person, add_user, by_key, by_token, sign_in
from .support.problems import assert_problem

Travel = Callable[..., None]


class Upstream:
    """An application that keeps the environ of the last request, and answers with its path."""

    environ: dict[str, Any]

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.environ = environ
        assert context.running() is None
        assert context.call.get() is None
        start_response("200 OK", [("Content-Type", "text/plain"), ("X-Own", "1")])
        return [environ["PATH_INFO"].encode("latin-1")]

    @property
    def caller(self) -> Any:
        """The caller that the guard passed on."""
        return self.environ.get(IDENTITY)


@pytest.fixture
def upstream() -> Upstream:
    """An application that someone else wrote."""
    return Upstream()


class Near(Client):
    """A client that calls from this machine."""

    def open(self, *args: Any, **kwargs: Any) -> TestResponse:
        return super().open(*args, environ_base={"REMOTE_ADDR": "127.0.0.1"}, **kwargs)


def before(upstream: Any, client: FlaskClient, **options: Any) -> Client:
    """A client of the application, guarded by the service of `client`."""
    return Near(Middleware(upstream, service_of(client.application), **options))


def test_the_application_learns_who_is_calling(
    client: FlaskClient, alice: Person, upstream: Upstream
) -> None:
    guard = before(upstream, client)
    key = alice.new_key(scopes=["reports:read"])
    answer = guard.get("/reports", headers=by_key(key["key"]))
    assert (answer.status_code, answer.text, answer.headers["X-Own"]) == (200, "/reports", "1")
    caller = upstream.caller
    assert [field.name for field in dataclasses.fields(caller)] == [
        *("user_id", "username", "role", "method", "session_id", "key_id", "scopes")
    ]
    assert (str(caller.user_id), caller.username, caller.role) == (alice.id, "alice", "user")
    assert (caller.method, caller.session_id, str(caller.key_id)) == ("api_key", None, key["id"])
    assert caller.scopes == {"reports:read"}
    with pytest.raises(dataclasses.FrozenInstanceError):
        caller.role = "admin"
    assert guard.get("/", headers=alice.headers).status_code == 200
    session = client.get("/v1/auth/me", headers=alice.headers).json["auth"]["session_id"]
    caller = upstream.caller
    assert (caller.method, caller.key_id, caller.scopes) == ("session", None, None)
    assert str(caller.session_id) == session


def test_refusals_are_those_of_the_service(
    client: FlaskClient, alice: Person, upstream: Upstream
) -> None:
    guard = before(upstream, client, scopes=["reports:read"], role="user")
    two = {**alice.headers, **by_key("garbage")}
    for headers, status, code in [
        ({}, 401, "unauthenticated"),
        (two, 400, "ambiguous_credentials"),
        (by_key("garbage"), 401, "invalid_credentials"),
        (by_key(alice.new_key()["key"]), 403, "insufficient_scope"),
    ]:
        refused = guard.get("/", headers={**headers, "X-Request-ID": "abc"})
        assert_problem(refused, status, code)
        assert refused.headers["X-Request-ID"] == "abc"
        assert refused.headers["Cache-Control"] == "no-store"
        assert refused.headers["X-Content-Type-Options"] == "nosniff"
        assert ("WWW-Authenticate" in refused.headers) == (status != 400)
        assert guard.head("/", headers=headers).data == b""
    assert not hasattr(upstream, "environ")


def test_scopes_and_role_are_required_of_sessions_too(
    client: FlaskClient, root: Person, alice: Person, upstream: Upstream
) -> None:
    for options, code in [
        ({"role": "admin"}, "forbidden"),
        ({"scopes": ["reports:read", "users:read"]}, "insufficient_scope"),
    ]:
        guard = before(upstream, client, **options)
        assert guard.get("/", headers=root.headers).status_code == 200
        assert_problem(guard.get("/", headers=alice.headers), 403, code)


def test_unknown_scopes_and_roles_are_refused_at_the_start(client: FlaskClient) -> None:
    for options in ({"scopes": ["reports"]}, {"scopes": "a:b"}, {"role": "emperor"}):
        with pytest.raises(ValueError, match="not a"):
            before(Upstream(), client, **options)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        *(("/", 200), ("/healthz", 200), ("/static/a/b.css", 200), ("/static/", 200)),
        *(("/healthz/", 401), ("/healthz/x", 401), ("/static", 401), ("/staticx", 401)),
        *(("/static/../reports", 401), ("/static/./x", 401), ("/static//x", 401)),
        *(("/static/..", 401), ("/x/static/a", 401), ("/static/%2e%2e/reports", 401)),
        *(("/static/..%2freports", 401), ("/static/..a", 200), ("//healthz", 401)),
    ],
)
def test_open_paths_are_open_and_no_others(
    bare: FlaskClient, upstream: Upstream, path: str, status: int
) -> None:
    guard = before(upstream, bare, open_paths=["/", "/healthz", "/static/*"])
    assert guard.get("http://localhost" + path).status_code == status


def test_on_open_paths_callers_are_not_identified(
    client: FlaskClient, alice: Person, upstream: Upstream
) -> None:
    guard = before(upstream, client, open_paths=["/open"])
    with statements(client.application) as ran:
        for method in ("GET", "POST", "OPTIONS"):
            answer = guard.open("/open", method=method, headers=alice.headers)
            assert (answer.status_code, answer.text) == (200, "/open")
            assert upstream.caller is None
    assert ran == []


def test_every_method_is_checked(bare: FlaskClient, upstream: Upstream) -> None:
    guard = before(upstream, bare)
    for method in ("GET", "POST", "DELETE", "OPTIONS", "PROPFIND"):
        assert_problem(guard.open("/", method=method), 401, "unauthenticated")


def test_an_identity_from_outside_is_removed(
    client: FlaskClient, alice: Person, upstream: Upstream
) -> None:
    guard = before(upstream, client, open_paths=["/open"])
    forged = Caller(new_id(), "root", "admin", "session", new_id(), None, None)
    stray = {"X-Auth-User-Id": NOTHING, "X-Auth-Role": "admin", "X-Auth-Anything": "x"}
    for path in ("/open", "/closed"):
        sent = {"headers": {**alice.headers, **stray}, "environ_overrides": {IDENTITY: forged}}
        assert guard.get(path, **sent).status_code == 200
        assert not [name for name in upstream.environ if name.startswith("HTTP_X_AUTH")]
        assert upstream.caller is None or upstream.caller.username == "alice"


def test_the_address_comes_from_trusted_proxies(
    make_app: Callable[..., Flask], upstream: Upstream
) -> None:
    client = client_of(make_app(trusted_proxies="127.0.0.1"))
    add_user(client, "alice")
    alice = sign_in(client, "alice")
    key = by_key(alice.new_key(allowed_ips=["192.0.2.0/24"])["key"])
    guard = before(upstream, client)
    assert guard.get("/", headers={**key, "X-Forwarded-For": "192.0.2.7"}).status_code == 200
    assert upstream.environ["REMOTE_ADDR"] == "127.0.0.1"  # the application decides for itself
    assert_problem(guard.get("/", headers=key), 403, "ip_not_allowed")


def test_users_who_must_set_up_a_second_factor_do_not_pass_before(
    make_app: Callable[..., Flask], upstream: Upstream
) -> None:
    client = client_of(make_app(mfa_required_roles="user"))
    add_user(client, "alice")
    alice = sign_in(client, "alice")
    guard = before(upstream, client)
    assert_problem(guard.get("/", headers=alice.headers), 403, "mfa_enrolment_required")
    enrol(alice)
    assert guard.get("/", headers=alice.headers).status_code == 200


def test_every_answer_has_the_headers_of_the_limit(
    client: FlaskClient, alice: Person, upstream: Upstream
) -> None:
    key = by_key(alice.new_key(rate_limit={"limit": 1, "window_seconds": 60})["key"])
    guard = before(upstream, client)
    passed, refused = guard.get("/", headers=key), guard.get("/", headers=key)
    assert (passed.status_code, passed.headers["X-Own"]) == (200, "1")
    assert_problem(refused, 429, "rate_limited")
    assert int(refused.headers["Retry-After"]) > 0
    for answer in (passed, refused):
        assert answer.headers["RateLimit-Policy"] == '"key";q=1;w=60'
        assert answer.headers["RateLimit"].startswith('"key";r=0;t=')


def test_browsers_of_known_origins_may_read_a_refusal(
    make_bare_app: Callable[..., Flask], upstream: Upstream
) -> None:
    guard = before(upstream, client_of(make_bare_app(cors_origins="https://a.example")))
    refused = guard.get("/", headers={"Origin": "https://a.example"})
    assert_problem(refused, 401, "unauthenticated")
    assert refused.headers["Access-Control-Allow-Origin"] == "https://a.example"


def test_without_a_database_everyone_is_refused(bare: FlaskClient, upstream: Upstream) -> None:
    key = service_of(bare.application).keyring.new_api_key()
    refused = before(upstream, bare).get("/", headers=by_key(key))
    assert_problem(refused, 503, "unavailable")
    assert int(refused.headers["Retry-After"]) > 0
    assert not hasattr(upstream, "environ")


def test_it_costs_one_statement_and_no_connection_is_kept(
    client: FlaskClient, root: Person, alice: Person, upstream: Upstream
) -> None:
    guard = before(upstream, client, role="admin")
    database = service_of(client.application).database
    for person in (root, alice):
        with statements(client.application) as ran:
            guard.get("/", headers=person.headers)
        assert len(ran) == 1
        assert database.is_closed()
    assert root.get("/v1/audit-events?action=access.denied").json["items"] == []


# --- the decorator ---


def decorated(client: FlaskClient, *scopes: str, role: str | None = None) -> Client:
    """A client of a Flask application with one view that is guarded, and one that fails."""
    app, service = Flask("host"), service_of(client.application)

    @app.get("/reports/<int:number>")
    @guarded(service, *scopes, role=role)
    def reports(number: int) -> dict[str, object]:
        caller = request.environ[IDENTITY]
        return {
            "number": number,
            "for": caller.username,
            "role": request.headers.get("X-Auth-Role"),
        }

    @app.get("/fails")
    @guarded(service)
    def fails() -> str:
        raise LookupError

    @app.get("/open")
    def open_to_all() -> str:
        return "open"

    return Near(app)


def test_one_view_is_guarded_and_others_are_not(
    client: FlaskClient, root: Person, alice: Person
) -> None:
    host = decorated(client, "reports:read", role="user")
    assert host.get("/open").text == "open"
    assert_problem(host.get("/reports/7"), 401, "unauthenticated")
    bare = by_key(alice.new_key()["key"])
    assert_problem(host.get("/reports/7", headers=bare), 403, "insufficient_scope")
    key = alice.new_key(scopes=["reports:read"], rate_limit={"limit": 1, "window_seconds": 60})
    headers = {**by_key(key["key"]), "X-Auth-Role": "admin"}
    passed = host.get("/reports/7", headers=headers)
    assert passed.json == {"number": 7, "for": "alice", "role": None}
    assert passed.headers["RateLimit"].startswith('"key";r=0;t=')
    assert_problem(host.get("/reports/7", headers=headers), 429, "rate_limited")
    assert host.options("/reports/7").status_code == 200
    assert host.get("/reports/x", headers=headers).status_code == 404


def test_errors_of_a_guarded_view_are_left_to_the_host(client: FlaskClient, alice: Person) -> None:
    key = alice.new_key(rate_limit={"limit": 1, "window_seconds": 60})["key"]
    failed = decorated(client).get("/fails", headers=by_key(key))
    assert (failed.status_code, failed.mimetype) == (500, "text/html")
    assert "RateLimit" in failed.headers


# --- all doors decide alike ---

KEY_IS_NOT_GOOD = {"not_found", "revoked", "disabled", "expired", "owner_inactive"}


def code_of(response: TestResponse) -> str:
    """The code of a refusal, or `valid`."""
    if response.status_code == 200:
        return "valid"
    return response.headers.get("X-Auth-Code") or response.json["code"]


def asked_of_a_key(asker: Person, key: str) -> str:
    """The decision of POST /v1/api-keys/verify, in the words of the other doors."""
    asked = {"key": key, "scopes": ["keys:read"], "ip": "127.0.0.1"}
    code = asker.post("/v1/api-keys/verify", asked).json["code"]
    return "invalid_credentials" if code in KEY_IS_NOT_GOOD else code


def test_the_same_text_in_both_headers_is_one_credential_whatever_its_kind(
    client: FlaskClient, alice: Person
) -> None:
    key = alice.new_key(scopes=["keys:read"])["key"]
    session_only = "/v1/auth/sessions"
    for text, good in ((alice.access_token, True), (key, True), (alice.refresh_token, False)):
        both = {**by_token(text), **by_key(text)}
        guard = before(Upstream(), client, scopes=["keys:read"])
        assert [
            client.get("/v1/api-keys", headers=both).status_code,
            client.get("/v1/verify?scope=keys:read", headers=both).status_code,
            guard.get("/", headers=both).status_code,
            decorated(client, "keys:read").get("/reports/1", headers=both).status_code,
        ] == [200 if good else 401] * 4
    both = {**by_token(alice.access_token), **by_key(alice.access_token)}
    assert client.get(session_only, headers=both).status_code == 200
    # Alone in X-API-Key it is no API key, and beside another text it is ambiguous.
    assert client.get(session_only, headers=by_key(alice.access_token)).status_code == 401
    other = {**alice.headers, **by_key(alice.again().access_token)}
    assert code_of(client.get(session_only, headers=other)) == "ambiguous_credentials"


CIRCUMSTANCES: dict[str, tuple[dict[str, Any], str]] = {
    "valid": ({}, "valid"),
    "revoked": ({}, "invalid_credentials"),
    "disabled": ({}, "invalid_credentials"),
    "expired": ({"expires_in_days": 1}, "invalid_credentials"),
    "owner inactive": ({}, "invalid_credentials"),
    "deleted": ({}, "invalid_credentials"),
    "right address": ({"allowed_ips": ["127.0.0.0/8"]}, "valid"),
    "wrong address": ({"allowed_ips": ["192.0.2.0/24"]}, "ip_not_allowed"),
    "lacking scope": ({"scopes": ["keys:write"]}, "insufficient_scope"),
    "limited": ({"rate_limit": {"limit": 1, "window_seconds": 600}}, "rate_limited"),
    "out of quota": ({"quota": {"remaining": 1}}, "usage_exceeded"),
}


@pytest.mark.parametrize("circumstance", CIRCUMSTANCES)
def test_every_door_decides_alike(
    client: FlaskClient, root: Person, alice: Person, travel: Travel, circumstance: str
) -> None:
    wanted, code = CIRCUMSTANCES[circumstance]
    key = alice.new_key(**{"scopes": ["keys:read"], **wanted})
    path, headers = f"/v1/api-keys/{key['id']}", by_key(key["key"])
    change: dict[str, Callable[[], object]] = {
        "revoked": lambda: alice.post(f"{path}/revoke"),
        "disabled": lambda: alice.patch(path, {"disabled": True}),
        "expired": lambda: travel(days=2),
        "owner inactive": lambda: root.patch(f"/v1/users/{alice.id}", {"is_active": False}),
        "deleted": lambda: alice.delete(path),
        "limited": lambda: client.get("/v1/auth/me", headers=headers),
        "out of quota": lambda: client.get("/v1/auth/me", headers=headers),
    }
    change.get(circumstance, lambda: None)()
    guard = before(Upstream(), client, scopes=["keys:read"])
    assert {
        "own route": code_of(client.get("/v1/api-keys", headers=headers)),
        "verify": asked_of_a_key(root.again(), key["key"]),
        "forward-auth": code_of(client.get("/v1/verify?scope=keys:read", headers=headers)),
        "middleware": code_of(guard.get("/", headers=headers)),
        "decorator": code_of(decorated(client, "keys:read").get("/reports/1", headers=headers)),
    } == dict.fromkeys(["own route", "verify", "forward-auth", "middleware", "decorator"], code)
