"""Usernames and e-mail addresses: which are accepted, and that each is unique."""

import json
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from .support.people import PASSWORD, Person, sign_in
from .support.problems import assert_problem

ADDRESS = "carol@example.com"


def register(root: Person, **account: Any) -> TestResponse:
    """The answer to registering Carol, with these members instead of the usual ones."""
    usual = {"username": "carol", "email": ADDRESS, "password": PASSWORD}
    return root.post("/v1/auth/register", usual | account)


def assert_nobody_was_added(root: Person) -> None:
    """Root is the only account."""
    items = root.get("/v1/users").json["items"]
    assert [item["username"] for item in items] == ["root"]


def test_usernames_are_3_to_64_letters_digits_dots_underscores_and_hyphens(root: Person) -> None:
    names = ["abc", "A" * 64, "0.1", "---", "a_b", "...", "nul", "null", "select.1--"]
    for number, name in enumerate(names):
        response = register(root, username=name, email=f"{number}@example.com")
        assert response.status_code == 201, name
        assert response.json["username"] == name
        assert root.get(response.headers["Location"]).json["username"] == name


def test_other_usernames_are_refused(root: Person) -> None:
    names: list[Any] = ["", "ab", "a" * 65, "a b c", " abc", "abc ", "abc\n", "a/b", "a@b.c", "a%b"]
    names += ["\N{LATIN SMALL LETTER A WITH DIAERESIS}bc", "\N{CYRILLIC SMALL LETTER A}bc"]
    names += ["abc\N{RIGHT-TO-LEFT OVERRIDE}", "a\N{ZERO WIDTH SPACE}bc", "\N{KELVIN SIGN}arl"]
    names += ["a\0bc", "a\x1bbc", "a\x7fbc", "a\x85bc", "abc\ud800", "\N{FULLWIDTH DIGIT ONE}23"]
    names += [None, 123, 1.5, True, ["abc"], {"a": "bc"}]
    for name in names:
        assert_problem(register(root, username=name), 422, "validation_error", "json.username")
    assert_nobody_was_added(root)


def test_a_username_is_unique_ignoring_case(root: Person, alice: Person) -> None:
    for name in ("alice", "ALICE", "aLiCe"):
        assert_problem(register(root, username=name), 409, "username_taken")
    assert register(root, username="alice-2").status_code == 201


def test_email_addresses_are_stored_as_they_were_sent(root: Person) -> None:
    addresses = [
        "Carol.Smith+tag@Example.COM",
        "a@b.co",
        "!#$%&'*+/=?^_`{|}~-@example.com",
        "dave@b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.example",
        "erin@xn--80ak6aa92e.com",
        "a" * 64 + "@example.com",
    ]
    for number, address in enumerate(addresses):
        response = register(root, username=f"user-{number}", email=address)
        assert response.status_code == 201, address
        assert response.json["email"] == address
        assert sign_in(root.client, address).id == response.json["id"]


def test_invalid_email_addresses_are_refused(root: Person) -> None:
    addresses: list[Any] = ["", "carol", "carol@", "@example.com", "carol@localhost", "a@b@c.de"]
    addresses += [".a@b.co", "a.@b.co", "a..b@c.de", "a b@c.de", "a@b..co", "a@.b.co", "a@-b.co"]
    addresses += [
        "a@b_c.de",
        "a@[127.0.0.1]",
        '"a b"@c.de',
        "Carol <a@b.co>",
        "a@b.co\n",
        " a@b.co",
    ]
    addresses += ["c\N{LATIN SMALL LETTER A WITH DIAERESIS}rol@example.com", "a@b.co, c@d.ef"]
    addresses += ["a\0@b.co", "a@b\0.co", "a@b\ud800.co", "a@ex\N{RIGHT-TO-LEFT OVERRIDE}ample.com"]
    addresses += ["a@xn--a.com", "a@" + "b" * 64 + ".com", "a" * 65 + "@b.co"]
    addresses += [123, True, ["a@b.co"], {"a": "b"}]
    for address in addresses:
        response = register(root, email=address)
        assert_problem(response, 422, "validation_error", "json.email")
    assert_nobody_was_added(root)


def test_an_email_address_has_at_most_254_characters(root: Person) -> None:
    longest = "a" * 64 + "@" + "b" * 61 + "." + "c" * 61 + "." + "d" * 62 + ".co"
    assert len(longest) == 254
    too_long = longest.replace(".co", ".com")
    assert_problem(register(root, email=too_long), 422, "validation_error", "json.email")
    assert register(root, email=longest).status_code == 201
    assert sign_in(root.client, longest).id


def test_an_email_address_counts_as_its_ascii_form_too(root: Person) -> None:
    label = "\N{LATIN SMALL LETTER U WITH DIAERESIS}" * 57 + "."
    address = "a" * 64 + "@" + label * 3 + "com"
    assert len(address) < 254
    response = register(root, email=address)
    assert_problem(response, 422, "validation_error", "json.email")


def test_an_email_address_is_unique_ignoring_case_and_spelling(root: Person) -> None:
    umlaut = "\N{LATIN SMALL LETTER U WITH DIAERESIS}"
    assert register(root, email=f"carol@b{umlaut}cher.example").status_code == 201
    for same in (
        f"CAROL@B{umlaut.upper()}CHER.EXAMPLE",
        "carol@xn--bcher-kva.example",
        "Carol@XN--BCHER-KVA.example",
        "carol@bu\N{COMBINING DIAERESIS}cher.example",
    ):
        response = register(root, username="other", email=same)
        assert_problem(response, 409, "email_taken")
    response = register(root, username="other", email="carol@bucher.example")
    assert response.status_code == 201


@pytest.mark.parametrize("dot", [".", "\u3002", "\uff0e", "\uff61"])
def test_a_trailing_dot_does_not_make_a_second_address(root: Person, dot: str) -> None:
    assert register(root).status_code == 201
    response = register(root, username="other", email=f"{ADDRESS}{dot}")
    assert_problem(response, 422, "validation_error", "json.email")


def test_an_email_address_is_not_a_username(root: Person, alice: Person) -> None:
    response = register(root, username="alice@example.com")
    assert_problem(response, 422, "validation_error", "json.username")


def test_faults_in_several_fields_are_reported_at_once(root: Person) -> None:
    response = register(root, username="a", email="b", password="", role="c", kind="d", more=1)
    names = ("username", "email", "password", "role", "kind", "more")
    assert_problem(response, 422, "validation_error", *(f"json.{name}" for name in names))


def test_fields_that_clients_cannot_set_are_refused(root: Person) -> None:
    fields: dict[str, Any] = {
        "id": "0192d3a4-5b6c-7d8e-9f01-23456789abcd",
        "is_active": False,
        "password_hash": "$2b$04$abcdefghijklmnopqrstuu",
        "mfa_enabled": True,
        "session_epoch": 7,
        "username_folded": "root",
        "created_at": "2020-01-01T00:00:00Z",
        "": "",
        "__class__": "User",
    }
    for name, value in fields.items():
        response = register(root, **{name: value})
        assert_problem(response, 422, "validation_error", f"json.{name}")
    assert_nobody_was_added(root)


def test_a_body_that_is_not_an_object_is_refused(root: Person) -> None:
    for body in ([], "text", 1, True, [{"username": "carol"}]):
        response = root.post("/v1/auth/register", body)
        assert_problem(response, 422, "validation_error", "json._schema")


def test_a_caller_without_the_role_learns_nothing_about_the_body(
    client: FlaskClient, alice: Person
) -> None:
    for raw in (b"{", b"", json.dumps({"username": 1}).encode()):
        response = client.post("/v1/auth/register", data=raw, headers=alice.headers)
        assert_problem(response, 403, "forbidden")
        assert_problem(client.post("/v1/auth/register", data=raw), 401, "unauthenticated")
