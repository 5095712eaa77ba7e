"""The guard: who may call which route, and in which order a request is refused."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from backend.api_keys.scopes import OWN
from backend.auth.guard import authorize, require_reserved_scopes
from backend.web import access

from .support.apps import client_of, statements
from .support.people import Person, add_user, by_key, sign_in
from .support.problems import assert_problem

# The routes of the contract: who may call each, and the answer to a request without a body, for an
# id that does not exist. "session or x" means a session, or a key that holds the scope x.
ROUTES: dict[str, tuple[str, int | str]] = {
    "GET /": ("public", 200),
    "GET /healthz": ("public", 200),
    "GET /readyz": ("public", 200),
    "GET /metrics": ("public", 200),
    "GET /.well-known/jwks.json": ("public", 404),
    "GET /.well-known/oauth-authorization-server": ("public", 200),
    "GET /password": ("public", 200),
    "GET /v1/openapi.json": ("public", 200),
    "GET /v1/docs": ("public", 200),
    "GET /v1/redoc": ("public", 200),
    "GET /v1/docs/assets/<name>": ("public", 200),
    "POST /v1/auth/register": ("admin or users:write", 422),
    "POST /v1/auth/login": ("public", 422),
    "POST /v1/auth/login/mfa": ("public", 422),
    "POST /v1/auth/password/forgot": ("public", 422),
    "POST /v1/auth/password/reset": ("public", 422),
    "POST /v1/auth/email/confirm": ("public", 422),
    "POST /v1/auth/refresh": ("public", 422),
    "POST /v1/auth/logout": ("session", 204),
    "POST /v1/auth/logout-all": ("session", 204),
    "GET /v1/auth/sessions": ("session", 200),
    "DELETE /v1/auth/sessions/<id:session_id>": ("session", 404),
    "GET /v1/auth/me": ("session or any key", 200),
    "PATCH /v1/auth/me": ("session", 422),
    "POST /v1/auth/password": ("session", 422),
    "GET /v1/auth/mfa": ("session", 200),
    "POST /v1/auth/mfa": ("session", 422),
    "POST /v1/auth/mfa/confirm": ("session", 422),
    "POST /v1/auth/mfa/disable": ("session", 422),
    "POST /v1/auth/mfa/recovery-codes": ("session", 422),
    "GET /v1/users": ("admin or users:read", 200),
    "GET /v1/users/<id:user_id>": ("admin or users:read", 404),
    "PATCH /v1/users/<id:user_id>": ("admin or users:write", 422),
    "DELETE /v1/users/<id:user_id>": ("admin or users:write", 404),
    "POST /v1/users/<id:user_id>/password-reset": ("admin or users:write", 404),
    "DELETE /v1/users/<id:user_id>/sessions": ("admin or users:write", 404),
    "DELETE /v1/users/<id:user_id>/mfa": ("admin or users:write", 404),
    "POST /v1/api-keys": ("session or keys:write", 422),
    "GET /v1/api-keys": ("session or keys:read", 200),
    "GET /v1/api-keys/<id:key_id>": ("session or keys:read", 404),
    "PATCH /v1/api-keys/<id:key_id>": ("session or keys:write", 422),
    "DELETE /v1/api-keys/<id:key_id>": ("session or keys:write", 404),
    "POST /v1/api-keys/<id:key_id>/revoke": ("session or keys:write", 404),
    "POST /v1/api-keys/<id:key_id>/rotate": ("session or keys:write", 404),
    "GET /v1/api-keys/<id:key_id>/usage": ("session or keys:read", 404),
    "POST /v1/api-keys/revoke": ("public", 422),
    "POST /v1/api-keys/verify": ("admin or keys:verify", 422),
    "POST /v1/api-keys/<id:key_id>/explain": ("session or keys:read", 404),
    "POST /v1/auth/introspect": ("admin or tokens:introspect", "bad_request"),
    "POST /v1/auth/revoke": ("public", "bad_request"),
    "GET /v1/audit-events": ("admin or audit:read", 200),
}
BY_ITSELF = "/v1/verify"  # open to every method; test_forward_auth_verify.py has its tests
UNDOCUMENTED = {
    "GET /password",
    "GET /v1/openapi.json",
    "GET /v1/docs",
    "GET /v1/redoc",
    "GET /v1/docs/assets/<name>",
}
REFUSED = {"unauthenticated", "invalid_credentials", "ambiguous_credentials", "forbidden"}
REFUSED |= {"insufficient_scope", "session_required"}
ID = "<id:([a-z_]+)>"
METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE"}
NO_SUCH = "/v1/api-keys/0192d3a4-8888-7d8e-9f01-23456789abcd"
TOO_LARGE = b'{"name": "' + b"x" * 1024 * 1024 + b'"}'


def who_may_call(view: Any, operation: dict[str, Any]) -> str:
    """What the mark of the view says, in the words of ROUTES."""
    codes = view.access.codes()
    if not codes:
        return "public"
    session = "admin" if "forbidden" in codes else "session"
    if "session_required" in codes:
        return session
    [scopes] = [each["apiKey"] for each in operation["security"] if "apiKey" in each]
    return f"{session} or {' '.join(scopes) or 'any key'}"


def routes_of(client: FlaskClient) -> dict[str, tuple[str, int | str | None]]:
    """ROUTES, and what other subjects document, with None in place of the answer."""
    found: dict[str, tuple[str, int | str | None]] = {}
    paths = client.get("/v1/openapi.json").json["paths"]
    for rule in client.application.url_map.iter_rules():
        item = paths.get(re.sub(ID, r"{\1}", rule.rule), {})
        for method in (rule.methods or set()) & {name.upper() for name in item}:
            view = client.application.view_functions[rule.endpoint]
            found[f"{method} {rule.rule}"] = (who_may_call(view, item[method.lower()]), None)
    return found | ROUTES


def scopes_of(client: FlaskClient) -> set[str]:
    """The scopes that routes need."""
    return {key_of(who) for who, _ in routes_of(client).values()} - {"", "any key"}


def key_of(who: str) -> str:
    """The scope that a key needs, "any key", or nothing if no key may call."""
    return who.partition(" or ")[2]


def ask(client: FlaskClient, route: str, headers: dict[str, str]) -> int | str:
    """The status that the route answers, or the code of a refusal by the guard."""
    method, rule = route.split()
    path = re.sub(ID, NO_SUCH.rpartition("/")[2], rule).replace("<name>", "redoc.js")
    response = client.open(path, method=method, headers=headers)
    return (
        response.json["code"] if response.status_code in (400, 401, 403) else response.status_code
    )


def assert_answers(
    client: FlaskClient,
    headers: Callable[[str], dict[str, str]],
    refused: Callable[[str, str], str | None],
) -> None:
    """Every route answers a caller as the table says.

    `headers` returns what the caller sends to a route that a key with this scope may call;
    `refused` the code for a caller whose session, or key, is to be of this kind.
    """
    found: dict[str, int | str | None] = {}
    wanted: dict[str, int | str | None] = {}
    for route, (who, status) in routes_of(client).items():
        session, _, key = who.partition(" or ")
        wanted[route] = status if who == "public" else refused(session, key) or status
        found[route] = ask(client, route, headers(key))
        if wanted[route] is None and found[route] not in REFUSED:
            found[route] = None
    assert found == wanted


def rules_of(app: Flask) -> set[str]:
    return {
        f"{method} {rule.rule}"
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) & METHODS
    }


# --- who may call what ---


def test_every_route_of_the_contract_is_there(app: Flask) -> None:
    assert set(ROUTES) <= rules_of(app)
    of_any_method = [rule.rule for rule in app.url_map.iter_rules() if rule.methods is None]
    assert set(of_any_method) == {BY_ITSELF, f"{BY_ITSELF}/<anything:rest>"}


def test_every_view_has_an_access_mark(app: Flask) -> None:
    for view in app.view_functions.values():
        assert isinstance(view.access, access.Access)  # type: ignore[attr-defined]


def test_an_app_with_an_unmarked_view_is_refused() -> None:
    app = Flask("host", static_folder=None)
    app.add_url_rule("/open", "open", access.public(lambda: "open"))
    access.init_app(app, authorize)
    app = Flask("host", static_folder=None)
    app.add_url_rule("/open", "open", access.public(lambda: "open"))
    app.add_url_rule("/forgotten", "forgotten", lambda: "forgotten")
    with pytest.raises(RuntimeError, match="forgotten"):
        access.init_app(app, authorize)


def test_an_administrators_scope_that_everyone_may_have_is_refused() -> None:
    app = Flask("host", static_folder=None)
    app.add_url_rule("/all", "all", access.admin("users:read")(lambda: "all"))
    require_reserved_scopes(app)
    app.add_url_rule("/every", "every", access.admin("invoices:read")(lambda: "every"))
    with pytest.raises(RuntimeError, match=r'every: .*Scope\("invoices:read", for_admins=True\)'):
        require_reserved_scopes(app)


def test_the_documentation_says_who_may_call(client: FlaskClient) -> None:
    paths = client.get("/v1/openapi.json").json["paths"]
    assert paths.pop(BY_ITSELF)["get"]["security"] == [{"session": []}, {"apiKey": []}]
    documented = {
        f"{method.upper()} {path}": operation["security"]
        for path, operations in paths.items()
        for method, operation in operations.items()
        if method != "parameters"
    }
    wanted: dict[str, list[dict[str, list[str]]]] = {}
    for route, (who, _) in routes_of(client).items():
        key = key_of(who)
        security: list[dict[str, list[str]]] = [] if who == "public" else [{"session": []}]
        if key:
            security.append({"apiKey": [] if key == "any key" else [key]})
        if route == "POST /v1/auth/introspect":
            security.append({"client": [key]})
        if route not in UNDOCUMENTED:
            wanted[re.sub(ID, r"{\1}", route)] = security
    assert documented == wanted


def test_without_a_credential_only_public_routes_pass(client: FlaskClient) -> None:
    assert_answers(client, lambda _: {}, lambda *_: "unauthenticated")


@pytest.mark.slow
def test_with_a_bad_credential_only_public_routes_pass(client: FlaskClient, alice: Person) -> None:
    header, claims, signature = alice.access_token.split(".")
    for headers in (
        by_key("garbage"),
        {"Authorization": "Bearer garbage"},
        {"Authorization": f"Bearer {header}.{claims}.{signature[::-1]}"},
        {"Authorization": f"Bearer {alice.refresh_token}"},
    ):
        assert_answers(client, lambda _, sent=headers: sent, lambda *_: "invalid_credentials")


def test_with_two_credentials_only_public_routes_pass(client: FlaskClient, alice: Person) -> None:
    headers = {**alice.headers, **by_key(alice.new_key()["key"])}
    assert_answers(client, lambda _: headers, lambda *_: "ambiguous_credentials")


@pytest.mark.slow
def test_a_users_session_passes_except_where_an_admin_is_required(
    client: FlaskClient, alice: Person
) -> None:
    def refused(session: str, key: str) -> str | None:
        return "forbidden" if session == "admin" else None

    assert_answers(client, lambda _: alice.again().headers, refused)


@pytest.mark.slow
def test_an_admins_session_passes_everywhere(client: FlaskClient, root: Person) -> None:
    assert_answers(client, lambda _: root.again().headers, lambda *_: None)


def test_a_key_without_scopes_passes_only_where_any_key_does(
    client: FlaskClient, alice: Person, root: Person
) -> None:
    def refused(session: str, key: str) -> str | None:
        if key == "any key":
            return None
        return "insufficient_scope" if key else "session_required"

    for person in (alice, root):
        headers = by_key(person.new_key()["key"])
        assert_answers(client, lambda _, sent=headers: sent, refused)


def test_a_key_with_the_scope_of_the_route_passes_where_keys_may(
    client: FlaskClient, root: Person
) -> None:
    texts = {scope: root.new_key(scopes=[scope])["key"] for scope in scopes_of(client)}
    texts[""] = texts["any key"] = root.new_key()["key"]

    def headers(key: str) -> dict[str, str]:
        return by_key(texts[key])

    def refused(session: str, key: str) -> str | None:
        return None if key else "session_required"

    assert_answers(client, headers, refused)


def test_a_key_with_all_scopes_but_that_of_the_route_does_not_pass(
    client: FlaskClient, root: Person
) -> None:
    scopes = scopes_of(client)
    texts = {
        scope: root.new_key(scopes=sorted((scopes | {"reports:*"}) - {scope}))["key"]
        for scope in scopes
    }
    texts[""] = texts["any key"] = root.new_key(scopes=sorted(scopes))["key"]

    def headers(key: str) -> dict[str, str]:
        return by_key(texts[key])

    def refused(session: str, key: str) -> str | None:
        if key == "any key":
            return None
        return "insufficient_scope" if key else "session_required"

    assert_answers(client, headers, refused)


def test_a_wildcard_opens_its_area(client: FlaskClient, root: Person) -> None:
    headers = by_key(root.new_key(scopes=["users:*"])["key"])

    def refused(session: str, key: str) -> str | None:
        if key == "any key" or key.startswith("users:"):
            return None
        return "insufficient_scope" if key else "session_required"

    assert_answers(client, lambda _: headers, refused)


# --- in which order a request is refused ---


def send(
    client: FlaskClient, method: str, path: str, headers: Any, body: object, kind: str
) -> TestResponse:
    data = body if isinstance(body, bytes) else json.dumps(body)
    return client.open(path, method=method, headers=headers, data=data, content_type=kind)


def test_of_several_faults_the_first_in_the_promised_order_is_reported(
    make_app: Callable[..., Flask],
) -> None:
    """Each request has the faults of those below it, and one less than the one above it."""
    client = client_of(make_app(max_keys_per_user=3))
    add_user(client, "alice")
    alice = sign_in(client, "alice")
    bare = alice.new_key()["key"]
    manager = alice.new_key(scopes=["keys:write"])["key"]
    alice.new_key()
    text, jsons = "text/plain", "application/json"
    two = {**by_key("garbage"), **alice.headers}
    large, broken = TOO_LARGE[:-1], b'{"name": ""'
    wrong = {"name": "", "scopes": ["users:read"]}
    wide = {"name": "x", "scopes": ["users:read"]}
    keys, unknown = "/v1/api-keys", "/v1/api-kez"
    for method, path, headers, body, kind, status, code in [
        ("PUT", unknown, two, large, text, 404, "not_found"),
        ("PUT", keys, two, large, text, 405, "method_not_allowed"),
        ("POST", keys, two, large, text, 400, "ambiguous_credentials"),
        ("POST", keys, {}, large, text, 401, "unauthenticated"),
        ("POST", keys, by_key("garbage"), large, text, 401, "invalid_credentials"),
        ("POST", keys, by_key(bare), large, text, 403, "insufficient_scope"),
        ("POST", keys, by_key(manager), large, text, 413, "payload_too_large"),
        ("POST", keys, by_key(manager), broken, text, 415, "unsupported_media_type"),
        ("POST", keys, by_key(manager), broken, jsons, 400, "malformed_json"),
        ("POST", keys, by_key(manager), wrong, jsons, 422, "validation_error"),
        ("POST", keys, by_key(manager), wide, jsons, 403, "insufficient_scope"),
        ("POST", keys, by_key(manager), {"name": "x"}, jsons, 409, "limit_reached"),
    ]:
        response = send(client, method, path, headers, body, kind)
        assert (response.status_code, response.json["code"]) == (status, code)
    assert send(client, "PUT", keys, two, large, text).headers["Allow"]


def test_an_object_is_looked_up_only_if_the_request_is_valid(
    client: FlaskClient, alice: Person, bob: Person
) -> None:
    manager = alice.with_key(alice.new_key(scopes=["keys:write"]))
    others, wider = bob.new_key(scopes=["a:x"])["id"], alice.new_key(scopes=["a:x"])["id"]
    for person, key_id in ((bob, others), (alice, wider)):
        assert person.post(f"/v1/api-keys/{key_id}/revoke").status_code == 200
    text, jsons = "text/plain", "application/json"
    past = {"expires_at": "1999-01-01T00:00:00Z"}
    wide = {"scopes": ["users:read"]}
    for person, key_id, body, kind, status, code in [
        (bob, "not-an-id", TOO_LARGE, text, 404, "not_found"),
        (manager, others, TOO_LARGE, text, 413, "payload_too_large"),
        (manager, others, b"{", text, 415, "unsupported_media_type"),
        (manager, others, b"{", jsons, 400, "malformed_json"),
        (manager, others, {"name": ""}, jsons, 422, "validation_error"),
        (manager, others, past, jsons, 422, "validation_error"),
        (manager, others, wide, jsons, 404, "not_found"),
        (manager, wider, wide, jsons, 403, "insufficient_scope"),
        (manager, wider, {"name": "x"}, jsons, 403, "insufficient_scope"),
        (alice, wider, wide, jsons, 403, "insufficient_scope"),
        (alice, wider, {"name": "x"}, jsons, 409, "conflict"),
    ]:
        response = send(client, "PATCH", f"/v1/api-keys/{key_id}", person.headers, body, kind)
        assert (response.status_code, response.json["code"]) == (status, code)


def test_callers_without_permission_learn_nothing_about_objects(
    client: FlaskClient, alice: Person, bob: Person
) -> None:
    for user_id in (bob.id, NO_SUCH.rpartition("/")[2]):
        for query in ("", "?no=such"):
            path = f"/v1/users/{user_id}{query}"
            assert_problem(alice.get(path), 403, "forbidden")
            assert_problem(alice.delete(path), 403, "forbidden")
            assert_problem(alice.patch(path, {"role": "emperor"}), 403, "forbidden")


def test_a_key_is_told_that_a_session_is_required_before_its_body_is_read(
    client: FlaskClient, root: Person
) -> None:
    headers = by_key(root.new_key(scopes=sorted(OWN))["key"])
    for method, path in [
        ("POST", "/v1/auth/password"),
        ("PATCH", "/v1/auth/me"),
        ("POST", "/v1/auth/logout"),
    ]:
        for body, kind in ((TOO_LARGE, "text/plain"), (b"{", "application/json"), ({}, "")):
            response = send(client, method, path, headers, body, kind)
            assert_problem(response, 403, "session_required")


# --- what it costs ---


def test_identifying_the_caller_takes_one_statement(
    app: Flask, client: FlaskClient, alice: Person
) -> None:
    text = alice.new_key()["key"]
    for headers in (
        alice.headers,
        by_key(text),
        {"Authorization": f"Bearer {text}"},
        {**by_key(text), "Authorization": f"Bearer {text}"},
    ):
        with statements(app) as ran:
            assert client.get("/v1/auth/me", headers=headers).status_code == 200
        assert len(ran) == 1


def test_public_routes_and_malformed_credentials_take_none(
    app: Flask, client: FlaskClient, alice: Person
) -> None:
    header, claims, signature = alice.access_token.split(".")
    for headers in (
        {},
        by_key(f"bt_{'0' * 38}"),
        {"Authorization": f"Bearer {header}.{claims}.{signature[::-1]}"},
        {**alice.headers, **by_key("garbage")},
    ):
        with statements(app) as ran:
            assert client.get("/v1/auth/me", headers=headers).status_code in (400, 401)
        assert ran == []
    for path in ("/", "/healthz", "/v1/nothing", "/v1/docs"):
        with statements(app) as ran:
            client.get(path, headers=alice.headers)
        assert ran == []
