"""ASVS 5.0 chapter 8: who may do what, with which objects, and what of them is shown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from backend.api_keys.scopes import OWN
from backend.db.database import release

from .support.apps import service_of
from .support.mfa import enrol
from .support.openapi import example_of, make_others, operations
from .support.people import Person, by_key
from .support.problems import assert_problem
from .support.tokens import refresh

GUARD = {"unauthenticated", "invalid_credentials", "forbidden", "insufficient_scope"}
GUARD |= {"session_required", "ip_not_allowed", "mfa_enrolment_required"}
LOGOUT = "/auth/logout"  # ends the session that is used, or all
OF_KEYS = "/v1/api-keys(/(?!verify).*)?"


def refusal(response: TestResponse) -> str | None:
    """The code with which the guard refused; None if it let the request pass."""
    code = response.json["code"] if response.status_code in (401, 403) else None
    return code if code in GUARD else None


def marks_of(path: str, operation: dict[str, Any]) -> tuple[bool, bool, list[str] | None]:
    """(public, for administrators alone, scopes that a key needs or None) as documented.

    Everybody may call the routes of keys, but not name another owner: `forbidden` means that there.
    """
    schemes = {name: scopes for each in operation["security"] for name, scopes in each.items()}
    refused = operation["responses"].get("403", {"content": {}})["content"]
    codes = refused.get("application/problem+json", {"examples": {}})["examples"]
    is_admins = "forbidden" in codes and re.fullmatch(OF_KEYS, path) is None
    return not schemes, is_admins, schemes.get("apiKey")


def key_refusal(wanted: list[str] | None, scopes: set[str]) -> str | None:
    """How a key with these scopes is refused where a key needs the `wanted` ones."""
    if wanted is None:
        return "session_required"
    return None if scopes.issuperset(wanted) else "insufficient_scope"


@pytest.mark.slow
def test_8_2_1_everybody_may_do_what_is_documented_and_nothing_else(
    client: FlaskClient, alice: Person, root: Person
) -> None:
    without = by_key(alice.new_key()["key"])
    full = by_key(root.new_key(scopes=sorted(OWN))["key"])
    found, documented = {}, {}
    for method, path, operation in sorted(operations(client), key=lambda each: LOGOUT in each[1]):
        if path == "/v1/verify":  # judges by itself: test_forward_auth_verify.py
            continue
        user, admin = (each.again() if LOGOUT in path else each for each in (alice, root))
        public, admins, wanted = marks_of(path, operation)
        callers: dict[str, tuple[dict[str, str], str | None]] = {
            "nobody": ({}, "unauthenticated"),
            "user": (user.headers, "forbidden" if admins else None),
            "key without scopes": (without, key_refusal(wanted, set())),
            "key with all scopes": (full, key_refusal(wanted, set(OWN))),
            "administrator": (admin.headers, None),
        }
        for caller, (headers, refused) in callers.items():
            answer = client.open(path, method=method, headers=headers)
            found[caller, method, path] = refusal(answer)
            documented[caller, method, path] = None if public else refused
    assert found == documented
    assert len(found) > 5 * 35


def owned(person: Person) -> dict[str, str]:
    """The ids of this person's things, by the name that they have in paths."""
    session = person.get("/v1/auth/me").json["auth"]["session_id"]
    known = {"key_id": person.new_key()["id"], "session_id": session, "user_id": person.id}
    return make_others(person, known)


def objects(client: FlaskClient, ids: dict[str, str]) -> Iterator[tuple[str, str, Any]]:
    """(method, path, operation) of every operation on one thing, with these ids."""
    for path, item in client.get("/v1/openapi.json").json["paths"].items():
        for method, operation in item.items():
            if "{" in path and method != "parameters":
                yield method.upper(), path.format_map(ids), operation


def test_8_2_2_nobody_reaches_what_is_anothers(
    client: FlaskClient, root: Person, alice: Person, bob: Person
) -> None:
    operations = list(objects(client, owned(bob)))
    marks = [marks_of(path, operation) for _, path, operation in operations]
    scopes = {scope for _, admins, wanted in marks if not admins for scope in wanted or ()}
    key = by_key(alice.new_key(scopes=sorted(scopes))["key"])

    def state() -> list[Any]:
        things = [path for method, path, _ in operations if method == "GET"]
        account = root.get(f"/v1/users/{bob.id}").json
        sessions = bob.get("/v1/auth/sessions").json["items"]
        own = [bob.get(path).json for path in things if "/users/" not in path]
        return [account, sessions, *own]

    before, tried = state(), 0
    for (method, path, operation), (_, admins, wanted) in zip(operations, marks, strict=True):
        tried, body = tried + 1, example_of(operation)
        for headers in (alice.headers, key):
            answer = client.open(path, method=method, headers=headers, json=body)
            if admins:  # whoever it is
                assert answer.status_code == 403, (method, path)
            elif wanted is None and headers is key:
                assert_problem(answer, 403, "session_required")
            else:
                assert_problem(answer, 404, "not_found")
    assert tried > 10
    assert state() == before
    assert refresh(client, bob.refresh_token).status_code == 200


def kept_secret(app: Flask) -> list[str]:
    """What the database keeps of passwords, keys, codes and second factors."""
    database = service_of(app).database
    found = []
    for column in (
        "password_hash FROM users",
        "digest FROM api_key_secrets",
        "digest FROM recovery_codes",
        "secret FROM second_factors",
        "seal FROM audit_events",
        "wrapped_key FROM audit_chain",
    ):
        rows = [text for (text,) in database.execute_sql(f"SELECT {column}").fetchall()]
        assert any(rows), column
        found += [text for text in rows if text]
    release(database)
    return found


def test_8_2_3_no_answer_shows_how_a_secret_is_kept(
    app: Flask, client: FlaskClient, root: Person, alice: Person
) -> None:
    enrol(alice)
    known = {"user_id": alice.id, "key_id": alice.new_key()["id"], "session_id": alice.id}
    ids = make_others(alice, known)
    service_of(app).periodic_tasks.run()  # seals the events
    secrets, answers = kept_secret(app), []
    for path, item in client.get("/v1/openapi.json").json["paths"].items():
        for method in item.keys() - {"parameters", "delete"}:
            if "logout" in path:
                continue
            body = None if method == "get" else example_of(item[method])
            place = path.format_map(ids)
            answers += [
                client.open(place, method=method, headers=person.headers, json=body)
                for person in (alice, root)
            ]
    assert sum(answer.status_code < 300 for answer in answers) > 30
    for answer in answers:
        assert [text for text in secrets if text in answer.text] == [], answer.request.path


@pytest.mark.parametrize("name", ["X-Role", "X-Auth-Role", "X-Auth-User-Id", "X-User-Role"])
def test_8_3_1_a_role_counts_as_it_is_in_the_database_now(
    root: Person, alice: Person, name: str
) -> None:
    path = f"/v1/users/{alice.id}"
    assert root.patch(path, {"role": "admin"}).status_code == 200
    assert alice.get("/v1/users").status_code == 200
    assert root.patch(path, {"role": "user"}).status_code == 200
    for value in ("admin", root.id):
        answer = alice.client.get("/v1/users", headers={**alice.headers, name: value})
        assert_problem(answer, 403, "forbidden")


def test_8_3_1_a_scope_counts_as_its_owners_role_allows_now(root: Person, alice: Person) -> None:
    path = f"/v1/users/{alice.id}"
    assert root.patch(path, {"role": "admin"}).status_code == 200
    key = alice.with_key(alice.new_key(scopes=["users:read"]))
    assert key.get("/v1/users").status_code == 200
    assert root.patch(path, {"role": "user"}).status_code == 200
    assert_problem(key.get("/v1/users"), 403, "insufficient_scope")
