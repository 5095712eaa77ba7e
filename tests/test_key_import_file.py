"""Keys of other systems: imported by their digests, and used as before."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from .support.apps import client_of, service_of, statements, url_of
from .support.databases import stored
from .support.imports import (
    DJANGO,
    FORMS,
    PLAIN,
    line,
    me,
    sha256_base64url,
    sha256_hex,
    sha512_django,
    take_over,
)
from .support.people import Person, add_user, by_key, sign_in
from .support.problems import assert_problem
from .support.settings import NEW, OLD


def taken(person: Person, text: str, **more: Any) -> dict[str, Any]:
    """The key with this text, just imported for this person."""
    result = take_over(person.client.application, line(text, owner=person.username, **more))
    assert (result.exit_code, result.stdout) == (0, "1 key imported.\n"), result.output
    return {**person.get("/v1/api-keys").json["items"][0], "key": text}


@pytest.mark.parametrize("text", FORMS, ids=["django", "better-auth", "plain"])
def test_an_imported_key_works_unchanged(
    app: Flask, alice: Person, root: Person, text: str
) -> None:
    key = taken(alice, text, scopes=["reports:read"])
    for header in ("X-API-Key", "Authorization"):
        with statements(app) as ran:
            response = me(alice, text, header)
        assert response.json["auth"] == {
            "method": "api_key",
            "key_id": key["id"],
            "scopes": ["reports:read"],
        }
        assert len(ran) == 1
    verified = root.post("/v1/api-keys/verify", {"key": text}).json
    assert (verified["code"], verified["key_id"]) == ("valid", key["id"])
    for near in (text[:-1], text + "x", text.swapcase(), FORMS[text](text), sha256_hex(text)):
        assert_problem(me(alice, near), 401, "invalid_credentials")


def test_a_key_that_looks_like_an_access_token_works_in_x_api_key(alice: Person) -> None:
    text = "aaaa.bbbb.cccc"
    taken(alice, text)
    key, bearer = {"X-API-Key": text}, {"Authorization": f"Bearer {text}"}
    for headers, status in ((key, 200), (key | bearer, 200), (bearer, 401)):
        assert alice.client.get("/v1/auth/me", headers=headers).status_code == status


@pytest.mark.parametrize("text", FORMS, ids=["django", "better-auth", "plain"])
def test_the_database_holds_no_digest_that_can_be_computed_without_the_secret(
    app: Flask, alice: Person, text: str
) -> None:
    taken(alice, text)
    for _ in range(2):
        kept = stored(app)
        for digest in (text, sha256_hex(text), sha512_django(text)[8:], sha256_base64url(text)):
            assert digest not in kept
        assert me(alice, text).status_code == 200


def test_all_properties_of_a_key_are_imported(app: Flask, alice: Person, root: Person) -> None:
    wanted = {
        "name": "deploys",
        "description": "of the old system",
        "scopes": ["reports:read"],
        "metadata": {"team": "search"},
        "allowed_ips": ["127.0.0.1/32"],
        "rate_limit": {"limit": 5, "window_seconds": 60},
        "quota": {"remaining": 3, "refill_amount": 10, "refill_interval": "daily"},
        "expires_at": "2999-01-01T00:00:00Z",
        "created_at": "2020-01-02T03:04:05Z",
        "hint": "pxvV5qEU...",
    }
    key = taken(alice, DJANGO, **wanted)
    assert {name: key[name] for name in wanted} == wanted
    assert (key["status"], key["owner_id"]) == ("active", alice.id)
    assert me(alice, DJANGO).status_code == 200
    [event] = root.get("/v1/audit-events?action=key.import").json["items"]
    assert (event["target_id"], event["outcome"]) == (key["id"], "success")
    assert event["detail"] == {"actor": "console", "owner_id": alice.id}


def test_an_imported_key_is_managed_like_others(app: Flask, alice: Person) -> None:
    key = taken(alice, DJANGO)
    assert key["hint"] == "imported"
    path = f"/v1/api-keys/{key['id']}"
    rotated = alice.post(f"{path}/rotate", {"grace_seconds": 0}).json
    assert me(alice, DJANGO).status_code == 200
    assert me(alice, rotated["key"]).status_code == 200
    assert_problem(me(alice, DJANGO), 401, "invalid_credentials")
    other = taken(alice, PLAIN)
    assert alice.client.post("/v1/api-keys/revoke", json={"key": PLAIN}).status_code == 204
    assert alice.get(f"/v1/api-keys/{other['id']}").json["status"] == "revoked"
    assert_problem(me(alice, PLAIN), 401, "invalid_credentials")


def test_an_imported_key_moves_to_a_new_secret_at_its_next_use(
    make_app: Callable[..., Flask],
) -> None:
    first = make_app(secret_key=OLD)
    add_user(client_of(first), "alice")
    alice = sign_in(client_of(first), "alice")
    for text in (DJANGO, PLAIN):
        taken(alice, text)

    def doctor(app: Flask) -> str:
        return app.test_cli_runner().invoke(args=["doctor"]).output

    assert "API keys" not in doctor(first)
    between = make_app(database_url=url_of(first), secret_key=NEW, secret_key_fallbacks=OLD)
    there = sign_in(client_of(between), "alice")
    assert "number 1 is still needed by 2 API keys" in doctor(between)
    for text in (DJANGO, PLAIN):
        assert me(there, text).status_code == 200
    assert "API keys" not in doctor(between)
    after = make_app(database_url=url_of(first), secret_key=NEW)
    for text in (DJANGO, PLAIN):
        assert me(sign_in(client_of(after), "alice"), text).status_code == 200


@pytest.mark.parametrize("text", FORMS, ids=["django", "better-auth", "plain"])
def test_a_key_that_moved_to_a_new_secret_is_recognised_and_stays_revoked(
    make_app: Callable[..., Flask], text: str
) -> None:
    first = make_app(secret_key=OLD)
    add_user(client_of(first), "alice")
    key = taken(sign_in(client_of(first), "alice"), text)
    between = make_app(database_url=url_of(first), secret_key=NEW, secret_key_fallbacks=OLD)
    after = make_app(database_url=url_of(first), secret_key=NEW)
    there = sign_in(client_of(between), "alice")

    def assert_known(*apps: Flask) -> None:
        for app in apps:
            again = take_over(app, line(text))
            assert again.stderr == "Error: line 1: This key already exists.\n"

    assert_known(first, between)
    assert me(there, text).status_code == 200
    assert_known(between, after)
    assert there.post(f"/v1/api-keys/{key['id']}/revoke").status_code == 200
    assert_known(between, after)
    for app in (between, after):
        assert_problem(me(sign_in(client_of(app), "alice"), text), 401, "invalid_credentials")


BOTH = [(sha512_django, sha256_hex), (sha256_hex, sha512_django)]


def twice(person: Person, forms: Any) -> list[dict[str, Any]]:
    """The two keys of one text that was imported in both forms, the first one first."""
    return [taken(person, DJANGO, digest=form(DJANGO)) for form in forms]


@pytest.mark.parametrize("forms", BOTH, ids=["sha512-first", "sha256-first"])
def test_of_a_text_imported_in_both_forms_the_first_counts_and_moves_to_a_new_secret(
    make_app: Callable[..., Flask], forms: Any
) -> None:
    first = make_app(secret_key=OLD)
    add_user(client_of(first), "alice")
    key, other = twice(sign_in(client_of(first), "alice"), forms)
    between = make_app(database_url=url_of(first), secret_key=NEW, secret_key_fallbacks=OLD)
    for app in (first, between, between, make_app(database_url=url_of(first), secret_key=NEW)):
        there = sign_in(client_of(app), "alice")
        assert me(there, DJANGO).json["auth"]["key_id"] == key["id"]
    service_of(first).flush()
    service_of(between).flush()
    assert there.get(f"/v1/api-keys/{key['id']}").json["last_used_at"]
    assert there.get(f"/v1/api-keys/{other['id']}").json["last_used_at"] is None


@pytest.mark.parametrize("forms", BOTH, ids=["sha512-first", "sha256-first"])
@pytest.mark.parametrize("by", ["first", "second", "possession"])
def test_a_text_imported_in_both_forms_is_refused_once_revoked(
    app: Flask, make_app: Callable[..., Flask], alice: Person, root: Person, forms: Any, by: str
) -> None:
    found = twice(alice, forms)
    assert me(alice, DJANGO).status_code == 200
    if by == "possession":
        assert alice.client.post("/v1/api-keys/revoke", json={"key": DJANGO}).status_code == 204
    else:
        alice.post(f"/v1/api-keys/{found[by == 'second']['id']}/revoke")
    states = [alice.get(f"/v1/api-keys/{key['id']}").json["status"] for key in found]
    assert (
        states
        == {
            "first": ["revoked", "active"],
            "second": ["active", "revoked"],
            "possession": ["revoked", "revoked"],
        }[by]
    )
    assert_problem(me(alice, DJANGO), 401, "invalid_credentials")
    assert root.post("/v1/api-keys/verify", {"key": DJANGO}).json["code"] == "revoked"
    for form in forms:
        again = take_over(app, line(DJANGO, digest=form(DJANGO)))
        assert again.stderr == "Error: line 1: This key already exists.\n"


def test_a_key_imported_again_without_its_earlier_secret_causes_no_error(
    make_app: Callable[..., Flask],
) -> None:
    first = make_app(secret_key=OLD)
    add_user(client_of(first), "alice")
    key = taken(sign_in(client_of(first), "alice"), DJANGO)
    taken(sign_in(client_of(make_app(database_url=url_of(first), secret_key=NEW)), "alice"), DJANGO)
    between = make_app(database_url=url_of(first), secret_key=NEW, secret_key_fallbacks=OLD)
    there = sign_in(client_of(between), "alice")
    for _ in range(2):
        assert me(there, DJANGO).json["auth"]["key_id"] == key["id"]
    assert there.client.post("/v1/api-keys/revoke", json={"key": DJANGO}).status_code == 204
    assert_problem(me(there, DJANGO), 401, "invalid_credentials")


def test_one_faulty_line_is_reported_and_nothing_is_imported(app: Flask, alice: Person) -> None:
    good = line(PLAIN)
    for fault, sentence in [
        ("[]", "this is not a JSON object."),
        ("{", "this is not a JSON object."),
        ('{"name": "x", "name": "y"}', "this is not a JSON object."),
        (line(DJANGO, owner="nobody"), "There is no such user."),
        (line(DJANGO, name=""), "name: Length must be between 1 and 100."),
        (line(DJANGO, name="a\u0007"), "name: Contains control characters."),
        (line(DJANGO, owner_id=alice.id), "owner_id: Unknown field."),
        (line(DJANGO, key="x"), "key: Unknown field."),
        (line(DJANGO, expires_at="2020-01-01T00:00:00Z"), "expires_at: Must be in the future."),
        (
            line(DJANGO, created_at="2999-01-01T00:00:00Z"),
            "created_at: Must not be in the future.",
        ),
        (line(DJANGO, scopes=["users:write"]), "The owner's role does not allow these scopes."),
        (good, "This key already exists."),
        (line(PLAIN, digest=sha256_base64url(PLAIN)), "This key already exists."),
    ]:
        result = take_over(app, good, "", fault)
        assert (result.exit_code, result.stdout) == (1, ""), fault
        assert result.stderr == f"Error: line 3: {sentence}\n"
        assert alice.get("/v1/api-keys").json["items"] == []
    assert_problem(me(alice, PLAIN), 401, "invalid_credentials")


@pytest.mark.parametrize(
    "digest",
    [
        "",
        5,
        PLAIN,
        sha256_hex(PLAIN)[:-1],
        sha256_hex(PLAIN) + "\n",
        sha256_hex(PLAIN).upper(),
        sha512_django(PLAIN)[8:],
        sha256_base64url(PLAIN)[:-1] + "B",
        "pbkdf2_sha256$1000000$salt$aGFzaA==",
        "$2b$12$abcdefghijklmnopqrstuuJ9X3w0B7mNQb0K9rjcMzq3fIuT1yWwS",
    ],
)
def test_invalid_digests_are_refused(app: Flask, alice: Person, digest: Any) -> None:
    result = take_over(app, {**line(PLAIN), "digest": digest})
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: line 1: digest: ")


def test_many_faults_are_reported_in_few_lines(app: Flask, alice: Person) -> None:
    result = take_over(app, *[line(PLAIN, name="")] * 25)
    lines = result.stderr.splitlines()
    assert len(lines) == 21
    assert lines[-1] == "Error: and 5 more."


def test_a_key_is_imported_once_even_if_used_or_revoked(app: Flask, alice: Person) -> None:
    for text in FORMS:
        key = taken(alice, text)
        assert me(alice, text).status_code == 200
        alice.post(f"/v1/api-keys/{key['id']}/revoke")
        again = take_over(app, line(text))
        assert again.stderr == "Error: line 1: This key already exists.\n"
        assert_problem(me(alice, text), 401, "invalid_credentials")


def test_an_import_respects_the_limit_of_each_owner(
    make_app: Callable[..., Flask],
) -> None:
    app = make_app(max_keys_per_user=3)
    add_user(client_of(app), "alice")
    alice = sign_in(client_of(app), "alice")
    result = take_over(app, *[line(f"text-{number}") for number in range(4)])
    assert (
        result.stderr
        == "Error: line 4: An owner may have at most 3 keys, not counting revoked ones.\n"
    )
    assert alice.get("/v1/api-keys").json["items"] == []
    result = take_over(app, *[line(f"text-{number}") for number in range(3)])
    assert result.stdout == "3 keys imported.\n"


def test_old_keys_are_not_disabled_as_unused_the_day_they_are_imported(
    make_app: Callable[..., Flask],
) -> None:
    app = make_app(disable_keys_unused_days=30)
    add_user(client_of(app), "alice")
    alice = sign_in(client_of(app), "alice")
    taken(alice, DJANGO, created_at="2020-01-01T00:00:00Z")
    assert app.test_cli_runner().invoke(args=["prune"]).exit_code == 0
    assert me(alice, DJANGO).status_code == 200


def test_a_text_of_our_form_never_matches_an_imported_key(app: Flask, alice: Person) -> None:
    key = alice.new_key()["key"]
    typo = key[:-1] + ("0" if key[-1] != "0" else "1")
    for text in (key, typo):
        taken(alice, text)
    with statements(app) as ran:
        assert_problem(me(alice, typo), 401, "invalid_credentials")
    assert ran == []
    assert alice.client.get("/v1/auth/me", headers=by_key(key)).status_code == 200


def test_a_file_is_read_and_a_missing_one_is_reported(
    app: Flask, alice: Person, tmp_path: Path
) -> None:
    path = tmp_path / "keys.jsonl"
    runner = app.test_cli_runner()
    missing = runner.invoke(args=["keys", "import", str(path)])
    assert (missing.exit_code, missing.stdout) == (2, "")
    path.write_text(json.dumps(line(DJANGO)) + "\r\n" + json.dumps(line(PLAIN)) + "\n", "utf-8")
    assert runner.invoke(args=["keys", "import", str(path)]).stdout == "2 keys imported.\n"
    path.write_text(json.dumps(line("a text")) + "\n\n", "utf-8-sig")  # as Windows writes it
    assert runner.invoke(args=["keys", "import", str(path)]).stdout == "1 key imported.\n"
    path.write_text(f"\n\ufeff{json.dumps(line('another'))}\n", "utf-8")
    refused = runner.invoke(args=["keys", "import", str(path)])
    assert refused.stderr == "Error: line 2: this is not a JSON object.\n"
    path.write_bytes(b"\xff\n")
    refused = runner.invoke(args=["keys", "import", str(path)])
    assert refused.stderr == "Error: line 1: this is not a JSON object.\n"
    assert service_of(app).database.is_closed()
