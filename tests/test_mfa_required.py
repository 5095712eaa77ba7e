"""MFA_REQUIRED_ROLES: users without a second factor can only set one up."""

import re
from collections.abc import Callable, Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient

from .support.apps import client_of
from .support.mfa import code_of, enrol
from .support.people import PASSWORD, Person, add_user, sign_in
from .support.problems import assert_problem

SOME_ID = "0192d3a4-8888-7d8e-9f01-23456789abcd"
OPEN = {
    "GET /v1/auth/me",
    "POST /v1/auth/logout",
    "GET /v1/auth/mfa",
    "POST /v1/auth/mfa",
    "POST /v1/auth/mfa/confirm",
    "POST /v1/auth/mfa/disable",
    "POST /v1/auth/mfa/recovery-codes",
}


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:
    """An app that requires a second factor of administrators."""
    return make_app(mfa_required_roles="admin")


def routes(app: Flask) -> Iterator[str]:
    """The method and the rule of each route that is not public."""
    for rule in app.url_map.iter_rules():
        if app.view_functions[rule.endpoint].access.requirement:  # type: ignore[attr-defined]
            for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
                yield f"{method} {rule.rule}"


def closed(person: Person) -> set[str]:
    """The routes that require a second factor of the person, who signs in again for each."""
    found = set()
    for route in routes(person.client.application):
        method, rule = route.split()
        path = re.sub("<[^>]+>", SOME_ID, rule)
        response = person.client.open(path, method=method, headers=person.again().headers)
        if response.status_code == 403 and response.json["code"] == "mfa_enrolment_required":
            found.add(route)
    return found


def test_no_role_requires_it_by_default(make_app: Callable[..., Flask]) -> None:
    client = client_of(make_app())
    add_user(client, "root", role="admin")
    assert sign_in(client, "root").get("/v1/users").status_code == 200


@pytest.mark.slow
def test_without_it_only_routes_for_setting_it_up_are_open(app: Flask, root: Person) -> None:
    assert closed(root) == set(routes(app)) - OPEN
    assert set(routes(app)) > OPEN


def test_a_closed_route_changes_nothing(root: Person) -> None:
    body = {"username": "mallory", "email": "mallory@example.com", "password": PASSWORD}
    assert_problem(root.post("/v1/auth/register", body), 403, "mfa_enrolment_required")
    enrol(root)
    assert [user["username"] for user in root.get("/v1/users").json["items"]] == ["root"]


def test_the_session_that_sets_it_up_may_then_do_everything(root: Person) -> None:
    password = {"current_password": PASSWORD}
    secret = root.post("/v1/auth/mfa", password).json["secret"]
    assert_problem(root.get("/v1/users"), 403, "mfa_enrolment_required")
    confirmed = root.post("/v1/auth/mfa/confirm", {"code": code_of(secret)})
    assert confirmed.status_code == 200
    for path in ("/v1/users", "/v1/api-keys", "/v1/auth/sessions"):
        assert root.get(path).status_code == 200


def test_switching_it_off_closes_everything_again(root: Person) -> None:
    _, codes = enrol(root)
    body = {"current_password": PASSWORD, "code": codes[0]}
    assert root.post("/v1/auth/mfa/disable", body).status_code == 204
    assert_problem(root.get("/v1/users"), 403, "mfa_enrolment_required")


@pytest.mark.slow
def test_a_role_that_is_not_named_does_not_need_it(alice: Person) -> None:
    assert closed(alice) == set()


def test_several_roles_may_be_named(make_app: Callable[..., Flask]) -> None:
    client = client_of(make_app(mfa_required_roles="user, admin"))
    for name, role in (("alice", "user"), ("root", "admin")):
        add_user(client, name, role=role)
        person = sign_in(client, name)
        assert_problem(person.get("/v1/api-keys"), 403, "mfa_enrolment_required")
        enrol(person)
        assert person.get("/v1/api-keys").status_code == 200


def test_a_missing_permission_is_reported_first(make_app: Callable[..., Flask]) -> None:
    client = client_of(make_app(mfa_required_roles="user"))
    add_user(client, "alice")
    assert_problem(sign_in(client, "alice").get("/v1/users"), 403, "forbidden")


def test_a_new_role_counts_at_the_next_request(alice: Person, root: Person) -> None:
    enrol(root)
    assert alice.get("/v1/api-keys").status_code == 200
    assert root.patch(f"/v1/users/{alice.id}", {"role": "admin"}).status_code == 200
    assert_problem(alice.get("/v1/api-keys"), 403, "mfa_enrolment_required")


def test_removing_it_counts_at_the_next_request(client: FlaskClient, root: Person) -> None:
    enrol(root)
    add_user(client, "boss", role="admin")
    boss = sign_in(client, "boss")
    enrol(boss)
    assert root.delete(f"/v1/users/{boss.id}/mfa").status_code == 204
    assert_problem(boss.get("/v1/users"), 403, "mfa_enrolment_required")


def test_keys_are_not_affected(root: Person) -> None:
    _, codes = enrol(root)
    key = root.with_key(root.new_key(scopes=["users:read"]))
    body = {"current_password": PASSWORD, "code": codes[0]}
    assert root.post("/v1/auth/mfa/disable", body).status_code == 204
    assert key.get("/v1/users").status_code == 200


def test_the_documentation_says_which_routes_require_it(bare: FlaskClient) -> None:
    telling = {
        f"{method.upper()} {path}"
        for path, operations in bare.get("/v1/openapi.json").json["paths"].items()
        for method, operation in operations.items()
        if "mfa_enrolment_required" in str(operation)
    }
    documented = {re.sub("<[^:]+:([^>]+)>", r"{\1}", route) for route in routes(bare.application)}
    assert telling == documented - OPEN | {"GET /v1/verify"}
