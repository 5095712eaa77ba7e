"""The commands of `flask --app wsgi`: what they print, what they refuse, and how they say so."""

from __future__ import annotations

import json
import logging
import os
import pty
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import click
import pytest
from click.testing import Result
from flask import Flask

from backend.api_keys import service as keys
from backend.api_keys.models import ApiKeySecret
from backend.core.identity import CONSOLE
from backend.core.logs import TextFormatter
from backend.db import migrations
from backend.db.database import release
from backend.users.models import User

from .support.apps import client_of, service_of
from .support.commands import Flasks, assert_done, assert_misused, assert_refused, flask_of
from .support.databases import migrate
from .support.mail import Inbox, message_of
from .support.people import PASSWORD, Person, by_key, sign_in
from .support.problems import assert_problem
from .support.processes import run
from .support.settings import process_environ

OTHER_PASSWORD = "another horse another battery"
PRODUCTION = {"environment": "production", "secret_key": "k7Jx-q2Wd" * 5}
UNKNOWN_ID = "0192d3a4-5b6c-7d8e-9f01-23456789abcd"


def commands(app: Flask) -> Iterator[tuple[str, click.Command]]:
    """All our commands, with the words that call them."""
    for name, group in app.cli.commands.items():
        if isinstance(group, click.Group):
            for verb, command in group.commands.items():
                yield f"{name} {verb}", command
        else:
            yield name, group


def test_every_command_says_what_it_does_and_takes_no_secret_as_an_argument(app: Flask) -> None:
    found = dict(commands(app))
    assert len(found) >= 20
    for name, command in found.items():
        assert re.match(r"[A-Z].+\.", command.help or ""), name
        for parameter in command.params:
            flag = getattr(parameter, "is_flag", False)
            assert flag or not re.search("password|secret|text", str(parameter.name)), name


def test_an_unknown_option_or_argument_is_reported(app: Flask, flask: Flasks) -> None:
    for name, _ in commands(app):
        message = ["-m", "x"] if name == "db revision" else []
        surplus = flask(*name.split(), *message, *["surplus"] * 9)
        assert "surplus" in surplus.stderr
        assert (surplus.exit_code, surplus.stdout) == (2, "")
        if name != "db downgrade":  # takes -1
            assert_misused(flask(*name.split(), "--nonsense"), "No such option")


# --- db ---


@pytest.mark.slow
def test_db_upgrade_current_history_downgrade_and_stamp(
    empty_database: str, app_on: Callable[..., Flask]
) -> None:
    app = app_on(empty_database)
    flask = flask_of(app)
    names = migrations.known()
    assert_done(flask("db", "current"), "none")
    assert_done(flask("db", "history"), *[f"[ ] {name}" for name in names])
    assert_done(flask("db", "upgrade"), *[f"applied {name}" for name in names])
    assert_done(flask("db", "upgrade"), "The database is up to date.")
    assert_done(flask("db", "current"), names[-1])
    assert_done(flask("db", "downgrade"), f"undone {names[-1]}")
    assert_done(flask("db", "downgrade", "-1"), f"undone {names[-2]}")
    assert_done(flask("db", "upgrade"), *[f"applied {name}" for name in names[-2:]])
    assert_done(flask("db", "downgrade", names[0]), *[f"undone {name}" for name in names[:0:-1]])
    marked = [f"[ ] {name}" for name in names]
    assert_done(flask("db", "history"), marked[0].replace(" ", "x", 1), *marked[1:])
    assert_done(flask("db", "stamp", names[-1]), f"stamped {names[-1]}")
    assert_done(flask("db", "current"), names[-1])


def test_db_refuses_what_it_cannot_do(flask: Flasks) -> None:
    newest = migrations.known()[-1]
    assert_refused(flask("db", "stamp", "nonsense"), "There is no migration nonsense.")
    nonsense = "nonsense is not among the applied migrations."
    assert_refused(flask("db", "downgrade", "nonsense"), nonsense)
    assert_refused(flask("db", "downgrade", "-2"), nonsense.replace("nonsense", "-2"))
    assert_refused(flask("db", "downgrade", newest), "There is nothing to undo.")
    assert_misused(flask("db", "stamp"), "Missing argument 'NAME'")
    assert_misused(flask("db", "revision"), "Missing option '-m'")


@pytest.mark.parametrize("number", range(len(migrations.known())))
def test_db_upgrade_after_stamping_too_few_migrations_says_so_and_the_right_stamp_fixes_it(
    number: int, empty_database: str, app_on: Callable[..., Flask], logged: Any
) -> None:
    migrate(empty_database)
    flask, names = flask_of(app_on(empty_database)), migrations.known()
    assert_done(flask("db", "stamp", names[number]), f"stamped {names[number]}")
    result = flask("db", "upgrade")
    if result.exit_code:  # a table that exists is passed by, a column or an index is not
        assert isinstance(result.exception, SystemExit), repr(result.exception)
        assert re.fullmatch(
            r"Error: \w+ cannot be applied: .+ `flask db stamp` .+\n", result.stderr
        )
        assert not [line for line in logged() if "Traceback" in line]
        assert flask("db", "stamp", names[-1]).exit_code == 0
    assert_done(flask("db", "upgrade"), "The database is up to date.")
    assert_done(flask("db", "verify"), "The database is sound.")


@pytest.mark.parametrize("number", range(len(migrations.known())))
def test_db_upgrade_after_stamping_too_many_migrations_says_so(
    number: int, empty_database: str, app_on: Callable[..., Flask], logged: Any
) -> None:
    flask, names = flask_of(app_on(empty_database)), migrations.known()
    assert_done(flask("db", "stamp", names[number]), f"stamped {names[number]}")
    result = flask("db", "upgrade")
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    wrong = r"Error: (\w+ cannot be applied: .+|The database lacks .+) `flask db stamp`.+\n"
    assert re.fullmatch(wrong, result.stderr)
    assert re.search("fatal: (Migrations are pending|The database lacks)", flask("doctor").stderr)
    undone = flask("db", "downgrade")  # what drops a table or an index that is missing succeeds
    assert undone.exit_code == 0 or re.match(r"Error: \w+ cannot be undone: ", undone.stderr)
    assert not [line for line in logged() if "Traceback" in line]


def test_db_stamp_none_clears_a_wrong_record(
    empty_database: str, app_on: Callable[..., Flask]
) -> None:
    flask, names = flask_of(app_on(empty_database)), migrations.known()
    assert_done(flask("db", "stamp", names[-1]), f"stamped {names[-1]}")
    assert_done(flask("db", "stamp", "none"), "stamped none")
    assert_done(flask("db", "upgrade"), *[f"applied {name}" for name in names])


def test_db_upgrade_reports_a_table_of_another_program_and_changes_nothing(
    empty_database: str, app_on: Callable[..., Flask]
) -> None:
    app = app_on(empty_database)
    database = service_of(app).database
    database.execute_sql("CREATE TABLE users (id INTEGER, name VARCHAR(10))")
    release(database)
    refused = flask_of(app)("db", "upgrade")
    assert isinstance(refused.exception, SystemExit), repr(refused.exception)
    assert "these tables exist: users. If they belong to another program, give" in refused.stderr
    assert [column.name for column in database.get_columns("users")] == ["id", "name"]
    assert database.get_tables() == ["users"]
    release(database)


def test_a_database_of_a_newer_release_is_reported_and_left_alone(
    empty_database: str, app_on: Callable[..., Flask]
) -> None:
    migrate(empty_database)
    app, names = app_on(empty_database), migrations.known()
    database = service_of(app).database
    database.execute_sql(
        f"UPDATE {migrations.HISTORY} SET name = '900_newer' WHERE name = '{names[-1]}'"
    )
    release(database)
    for command in ("upgrade", "downgrade"):
        refused = flask_of(app)("db", command)
        assert isinstance(refused.exception, SystemExit), repr(refused.exception)
        assert re.match(r"Error: .+ that are not in .+: 900_newer\. Use the", refused.stderr)


def test_db_check_and_revision_find_nothing_to_do(flask: Flasks) -> None:
    assert_done(flask("db", "check"), "The models match the migrations.")
    assert_done(flask("db", "revision", "-m", "More"), "The models match the migrations.")


def test_db_check_fails_where_a_migration_is_missing(
    flask: Flasks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "migrations").mkdir()
    for name in migrations.known()[:-1]:
        text = (migrations.FOLDER / f"{name}.py").read_text("utf-8")
        (tmp_path / "migrations" / f"{name}.py").write_text(text, "utf-8")
    monkeypatch.setattr(migrations, "FOLDER", tmp_path / "migrations")
    checked = flask("db", "check")
    assert checked.exit_code == 1
    assert "migrator." in checked.stdout
    assert "flask db revision" in checked.stderr


# --- users ---


def test_users_create_prints_the_id_and_the_account_can_sign_in(app: Flask, flask: Flasks) -> None:
    made = flask(
        "users", "create", "alice", "alice@example.com", "--password-stdin", stdin=f"{PASSWORD}\n"
    )
    assert made.exit_code == 0, made.output
    alice = sign_in(client_of(app), "alice")
    assert made.stdout == f"{UUID(alice.id)}\n"
    me = alice.get("/v1/auth/me").json
    assert (me["role"], me["kind"], me["email"]) == ("user", "person", "alice@example.com")


def test_users_create_makes_administrators_and_service_accounts(app: Flask, flask: Flasks) -> None:
    root = ("root", "root@example.com", "--admin", "--password-stdin")
    assert flask("users", "create", *root, stdin=PASSWORD).exit_code == 0
    assert flask("users", "create", "robot", "--service").exit_code == 0
    listed = sign_in(client_of(app), "root").get("/v1/users").json["items"]
    assert {(user["username"], user["role"], user["kind"]) for user in listed} == {
        ("root", "admin", "person"),
        ("robot", "user", "service"),
    }


def test_users_create_does_not_silently_ignore_a_password(flask: Flasks) -> None:
    done = flask("users", "create", "robot", "--service", "--password-stdin", stdin=PASSWORD)
    assert done.exit_code != 0
    assert "a service account has no password" in done.stderr
    assert flask("users", "list").stdout == ""


def test_users_create_refuses_in_sentences(flask: Flasks, alice: Person) -> None:
    def create(*arguments: str, password: str = PASSWORD) -> Result:
        return flask("users", "create", *arguments, "--password-stdin", stdin=f"{password}\n")

    rule = "3 to 64 ASCII letters, digits, dots, _ and -."
    assert_refused(create("a b", "b@example.com"), f"username: {rule}")
    assert_refused(create("bob", "nonsense"), "email: Not a valid email address.")
    assert_refused(create("ALICE", "b@example.com"), "That username is taken.")
    assert_refused(create("bob", "alice@EXAMPLE.com"), "That e-mail address is taken.")
    short = "At least 15 characters."
    weak = create("bob", "b@example.com", password="short")
    assert_refused(weak, f"password: {short}")
    assert flask("users", "create", "bob").exit_code == 1
    unasked = flask("users", "create", "bob", "b@example.com", stdin=f"{PASSWORD}\n")
    assert_refused(unasked, "there is no terminal to ask for a password; use --password-stdin.")
    assert_misused(flask("users", "create"), "Missing argument 'USERNAME'")
    listed = flask("users", "list")
    assert [line.split()[1] for line in listed.stdout.splitlines()] == ["alice"]


def test_a_person_needs_an_address_and_a_password(flask: Flasks) -> None:
    nowhere = flask("users", "create", "bob", "--password-stdin", stdin=f"{PASSWORD}\n")
    needed = "A person needs an e-mail address."
    assert_refused(nowhere, f"email: {needed}")
    empty = flask("users", "create", "bob", "b@example.com", "--password-stdin", stdin="\n")
    assert_refused(empty, "password: 1 to 1024 characters.")
    assert_done(flask("users", "list"))


@pytest.mark.slow
def test_users_list_shows_all_newest_first(
    app: Flask, flask: Flasks, root: Person, alice: Person
) -> None:
    for number in range(105):
        assert flask("users", "create", f"robot-{number}", "--service").exit_code == 0
    assert flask("users", "disable", "alice").exit_code == 0
    lines = [line.split() for line in flask("users", "list").stdout.splitlines()]
    assert len(lines) == 107
    assert lines[0][1:] == ["robot-104", "user", "service", "active"]
    assert lines[-2] == [alice.id, "alice", "user", "person", "disabled"]
    assert lines[-1] == [root.id, "root", "admin", "person", "active"]
    shown = [json.loads(line) for line in flask("users", "list", "--json").stdout.splitlines()]
    assert [user["id"] for user in shown] == [line[0] for line in lines]
    assert shown[-1] == root.get(f"/v1/users/{root.id}").json
    assert not any("hash" in name for name in shown[0])


def test_users_set_password_ends_the_sessions(flask: Flasks, alice: Person) -> None:
    given = f"{OTHER_PASSWORD}\r\n"
    assert_done(flask("users", "set-password", "alice", "--password-stdin", stdin=given))
    assert_problem(alice.get("/v1/auth/me"), 401, "invalid_credentials")
    assert sign_in(alice.client, "alice", OTHER_PASSWORD).id == alice.id


@pytest.mark.slow
def test_users_set_password_lets_a_locked_out_owner_in(flask: Flasks, alice: Person) -> None:
    def sign_in_from(address: str, password: str) -> int:
        body = {"username": "alice", "password": password}
        where = {"REMOTE_ADDR": address}
        return alice.client.post("/v1/auth/login", json=body, environ_overrides=where).status_code

    for number in range(100):
        assert sign_in_from(f"198.51.100.{number}", "wrong") == 401
    assert sign_in_from("192.0.2.1", PASSWORD) == 429
    assert_done(
        flask("users", "set-password", "alice", "--password-stdin", stdin=OTHER_PASSWORD + "\n")
    )
    assert sign_in_from("192.0.2.1", OTHER_PASSWORD) == 200


def test_users_set_password_refuses_in_sentences(flask: Flasks, alice: Person) -> None:
    short = "At least 15 characters."
    weak = flask("users", "set-password", "alice", "--password-stdin", stdin="short\n")
    assert_refused(weak, f"password: {short}")
    assert flask("users", "set-password", "alice", "--password-stdin").exit_code == 1
    nobody = flask("users", "set-password", "nobody", "--password-stdin", stdin=PASSWORD)
    assert_refused(nobody, "There is no such user.")
    assert alice.get("/v1/auth/me").status_code == 200


def test_a_service_account_gets_no_password(flask: Flasks, root: Person) -> None:
    assert flask("users", "create", "robot", "--service").exit_code == 0
    given = flask("users", "set-password", "robot", "--password-stdin", stdin=f"{PASSWORD}\n")
    assert given.exit_code == 1
    account = {"username": "robot", "password": PASSWORD}
    assert_problem(root.client.post("/v1/auth/login", json=account), 401, "invalid_credentials")


def test_users_disable_and_enable(flask: Flasks, root: Person, alice: Person) -> None:
    key = alice.new_key()["key"]
    assert_done(flask("users", "disable", "ALICE"))
    refused = alice.client.get("/v1/auth/me", headers=by_key(key))
    assert_problem(refused, 401, "invalid_credentials")
    assert_done(flask("users", "enable", "alice@example.com"))
    assert alice.client.get("/v1/auth/me", headers=by_key(key)).status_code == 200
    assert_problem(alice.get("/v1/auth/me"), 401, "invalid_credentials")
    last = "The last administrator cannot be removed."
    assert_refused(flask("users", "disable", "root"), last)
    for verb in ("disable", "enable"):
        assert_refused(flask("users", verb, "nobody"), "There is no such user.")


# --- users bootstrap ---


def test_users_bootstrap_makes_the_first_administrator_once(
    make_app: Callable[..., Flask],
) -> None:
    account = {"admin_username": "boss", "admin_email": "boss@example.com"}
    app = make_app(**account, admin_password=PASSWORD)
    flask = flask_of(app)
    assert_done(flask("users", "bootstrap"), "First administrator: boss")
    boss = sign_in(client_of(app), "boss")
    assert boss.get(f"/v1/users/{boss.id}").json["role"] == "admin"
    for _ in range(2):
        assert_done(flask("users", "bootstrap"), "There is an administrator already.")
    assert boss.get("/v1/auth/me").status_code == 200


def test_users_bootstrap_leaves_another_administrator_alone(flask: Flasks, root: Person) -> None:
    assert_done(flask("users", "bootstrap"), "There is an administrator already.")
    assert len(root.get("/v1/users").json["items"]) == 1


def test_users_bootstrap_refuses_in_sentences(make_app: Callable[..., Flask]) -> None:
    short = "At least 15 characters."
    weak = flask_of(make_app(admin_password="short"))("users", "bootstrap")
    assert_refused(weak, f"password: {short}")
    app = make_app(admin_password=PASSWORD, admin_email="root@..example")
    refused = flask_of(app)("users", "bootstrap")
    assert refused.exit_code == 1
    assert refused.stderr.startswith("Error: email: ")
    assert PASSWORD not in refused.output


def test_development_prints_a_generated_password_once(make_app: Callable[..., Flask]) -> None:
    app = make_app(environment="development", secret_key="k" * 40, bcrypt_rounds=4)
    made = flask_of(app)("users", "bootstrap")
    assert made.stdout.startswith("First administrator: admin\n")
    [password] = re.findall(r"^Password: +(\S{20,})   \(shown this once\)$", made.stdout, re.M)
    assert sign_in(client_of(app), "admin", password).username == "admin"
    assert password not in flask_of(app)("users", "bootstrap").output


def test_production_prints_no_password_where_there_is_no_terminal(
    make_app: Callable[..., Flask],
) -> None:
    refused = flask_of(make_app(**PRODUCTION))("users", "bootstrap")
    sentence = "ADMIN_PASSWORD is not set, and there is no terminal to show a generated one on."
    assert_refused(refused, sentence)


@pytest.mark.slow
def test_production_prints_a_generated_password_on_a_terminal(
    tree: Path, migrated: str, app_on: Callable[..., Flask]
) -> None:
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        [Path(sys.executable).parent / "flask", "--app", "wsgi", "users", "bootstrap"],
        cwd=tree,
        env=process_environ(database_url=migrated),
        stdin=end,
        stdout=end,
        stderr=subprocess.DEVNULL,
    )
    os.close(end)
    assert process.wait(30) == 0
    shown = os.read(terminal, 10_000).decode()
    os.close(terminal)
    [password] = re.findall(r"^Password: +(\S{20,})   \(shown this once\)\r$", shown, re.M)
    app = app_on(migrated)
    assert sign_in(client_of(app), "admin", password).username == "admin"


# --- keys ---


def test_keys_create_prints_the_text_and_the_key_works(flask: Flasks, alice: Person) -> None:
    made = flask("keys", "create", "alice", "deploys", "--expires-in-days", "30")
    assert made.exit_code == 0, made.output
    key = made.stdout.strip()
    assert re.fullmatch("bt_[0-9A-Za-z]{38}", key)
    assert alice.client.get("/v1/auth/me", headers=by_key(key)).json["id"] == alice.id
    [listed] = alice.get("/v1/api-keys").json["items"]
    assert (listed["name"], listed["status"]) == ("deploys", "active")


def test_keys_create_gives_scopes(flask: Flasks, root: Person) -> None:
    scopes = ["--scope", "users:read", "--scope", "keys:read"]
    assert flask("keys", "create", "root", "audit", *scopes).exit_code == 0
    [listed] = root.get("/v1/api-keys").json["items"]
    assert listed["scopes"] == ["keys:read", "users:read"]


def test_keys_create_refuses_in_sentences(make_app: Callable[..., Flask]) -> None:
    app = make_app(max_keys_per_user=1)
    flask = flask_of(app)
    assert flask("users", "create", "robot", "--service").exit_code == 0

    def create(*arguments: str) -> Result:
        return flask("keys", "create", *arguments)

    assert_refused(create("nobody", "x"), "There is no such user.")
    assert_refused(
        create("robot", "x", "--scope", "users:write"),
        "The owner's role does not allow these scopes.",
    )
    for wrong in (
        ["robot", ""],
        ["robot", "x" * 101],
        ["robot", "x", "--scope", "nonsense"],
        ["robot", "x", "--expires-in-days", "0"],
        ["robot", "x", "--expires-in-days", "99999999999"],
    ):
        refused = create(*wrong)
        assert (refused.exit_code, refused.stdout) == (1, ""), wrong
        assert re.match(r"Error: (name|scopes|expires_in_days): .+\n$", refused.stderr)
    assert_misused(create("robot", "x", "--expires-in-days", "soon"), "not a valid integer")
    assert_misused(create("robot"), "Missing argument 'NAME'")
    assert_done(flask("keys", "list"))
    assert create("robot", "first").exit_code == 0
    assert_refused(
        create("robot", "second"), "An owner may have at most 1 key, not counting revoked ones."
    )


def test_a_name_of_a_key_holds_no_control_characters(flask: Flasks, alice: Person) -> None:
    for name in ("two\nlines", "\x1b[31mred", "nul\x7f"):
        assert flask("keys", "create", "alice", name).exit_code == 1, name
    assert alice.get("/v1/api-keys").json["items"] == []


def test_keys_list_shows_the_keys_of_all_users_newest_first(
    flask: Flasks, alice: Person, bob: Person
) -> None:
    assert_done(flask("keys", "list"))
    first = alice.new_key(name="first")
    second = bob.new_key(name="second")
    bob.post(f"/v1/api-keys/{second['id']}/revoke")
    shown = flask("keys", "list").stdout.splitlines()
    assert [line.split()[0] for line in shown] == [second["id"], first["id"]]
    assert re.fullmatch(
        rf"\S+  bt_\.\.\.{second['key'][-4:]} +revoked +never used +second", shown[0]
    )
    assert re.fullmatch(rf"\S+  bt_\.\.\.{first['key'][-4:]} +active +never used +first", shown[1])
    rows = [json.loads(line) for line in flask("keys", "list", "--json").stdout.splitlines()]
    assert rows == [
        bob.get(f"/v1/api-keys/{second['id']}").json,
        alice.get(f"/v1/api-keys/{first['id']}").json,
    ]
    for text in (*shown, json.dumps(rows)):
        assert first["key"] not in text
        assert second["key"] not in text


def test_keys_list_finds_keys_that_are_unused_since_a_day(
    app: Flask, flask: Flasks, alice: Person, travel: Callable[..., None]
) -> None:
    old = alice.new_key(name="old")
    travel(days=400)
    alice = alice.again()
    new = alice.new_key(name="new")
    day = new["created_at"][:10]
    listed = flask("keys", "list", "--unused-since", day)
    assert listed.exit_code == 0, listed.exception
    assert [line.split()[0] for line in listed.stdout.splitlines()] == [old["id"]]
    alice.client.get("/v1/auth/me", headers=by_key(old["key"]))
    service_of(app).flush()
    assert_done(flask("keys", "list", "--unused-since", day))
    for wrong in ("yesterday", "2026-13-01", "2026-02-30"):
        assert_misused(flask("keys", "list", "--unused-since", wrong), "does not match the format")


HOSTILE = "a\u202eb\u2028c\x9bd"  # turns the direction, ends a line, begins a terminal's command
ESCAPED = r"a\u202eb\u2028c\x9bd"


def test_names_cannot_control_the_terminal(app: Flask, flask: Flasks, alice: Person) -> None:
    with service_of(app).active():
        key = keys.issue(CONSOLE, owner_id=UUID(alice.id), name=HOSTILE)
        ApiKeySecret.update(hint=HOSTILE).execute()
        User.update(username=HOSTILE).execute()
        release(service_of(app).database)
    for listed in (("keys", "list"), ("users", "list"), ("audit", "list")):
        for arguments in (listed, (*listed, "--json")):
            result = flask(*arguments)
            assert result.exit_code == 0, result.output
            assert all(line.isprintable() for line in result.stdout.split("\n")), result.stdout
    assert flask("keys", "list").stdout.split("\n")[0].endswith(f"  {ESCAPED}")
    assert json.loads(flask("keys", "list", "--json").stdout)["name"] == HOSTILE
    line = json.dumps({"owner": "alice", "name": HOSTILE, "digest": "0" * 64, HOSTILE: 1})
    refused = flask("keys", "import", "-", stdin=line)
    assert refused.exit_code == 1
    assert ESCAPED in refused.stderr
    assert all(line.isprintable() for line in refused.stderr.split("\n")), refused.stderr
    formatted = TextFormatter().format(
        logging.makeLogRecord({"msg": "%s", "args": (HOSTILE,), "key": HOSTILE, "id": key.id})
    )
    assert formatted.isprintable()
    assert ESCAPED in formatted


def test_keys_revoke_ends_a_key(flask: Flasks, alice: Person) -> None:
    key = alice.new_key()
    for _ in range(2):
        assert_done(flask("keys", "revoke", key["id"]))
    refused = alice.client.get("/v1/auth/me", headers=by_key(key["key"]))
    assert_problem(refused, 401, "invalid_credentials")
    assert_refused(flask("keys", "revoke", UNKNOWN_ID), "There is no such resource.")
    assert_refused(flask("keys", "revoke", UNKNOWN_ID, "--cascade"), "There is no such resource.")
    assert_misused(flask("keys", "revoke", "nonsense"), "not a valid UUID")


def test_keys_revoke_cascades_to_the_keys_made_with_it(flask: Flasks, alice: Person) -> None:
    keys = [alice.new_key(scopes=["keys:write"])]
    for _ in range(2):
        minted = alice.with_key(keys[-1]).post(
            "/v1/api-keys", {"name": "x", "scopes": ["keys:write"]}
        )
        keys.append(minted.json)
    assert_done(flask("keys", "revoke", keys[1]["id"]))
    assert_done(flask("keys", "revoke", keys[0]["id"], "--cascade"))
    listed = alice.get("/v1/api-keys").json["items"]
    assert {key["status"] for key in listed} == {"revoked"}


def test_keys_check_finds_keys_in_a_text_offline(app_on: Callable[..., Flask]) -> None:
    unreachable = "postgresql://nobody@127.0.0.1:1/nowhere"
    app = app_on(unreachable)
    flask = flask_of(app)
    key, other = (service_of(app).keyring.new_api_key() for _ in range(2))
    typo = key[:10] + ("a" if key[10] != "a" else "b") + key[11:]
    for text in (key, f"{key}\n", f"x{key}", f"{key}a", f"KEY={key!r};", f"é{key}é", f"\0{key}"):
        assert_done(flask("keys", "check", stdin=text), f"line 1: bt_...{key[-4:]}")
    diff = f"+++ b/.env\n+KEY={key}\r\n-{typo}\n\nbt_{other},{key}"
    hints = [f"bt_...{text[-4:]}" for text in (key, other, key)]
    lines = [f"line {number}: {hint}" for number, hint in zip((2, 5, 5), hints, strict=True)]
    assert_done(flask("keys", "check", stdin=diff), *lines)
    wrong = "there is no API key in that text: none with the right form and checksum."
    for text in (typo, key[:-1], key.replace("_", "_\n"), "", "nonsense\n" * 1000, "bt_" * 9999):
        assert_refused(flask("keys", "check", stdin=text), wrong)


@pytest.mark.slow
def test_keys_check_reads_bytes_of_every_kind(tree: Path, app: Flask) -> None:
    key = service_of(app).keyring.new_api_key()
    found = subprocess.run(
        [Path(sys.executable).parent / "flask", "--app", "wsgi", "keys", "check"],
        cwd=tree,
        env=process_environ(database_url="sqlite:///nowhere.db"),
        input=bytes(range(256)) + b"\xff" + key.encode() + b"\x80",
        capture_output=True,
        check=True,
    )
    assert found.stdout.decode() == f"line 2: bt_...{key[-4:]}\n"


def test_keys_scanner_rules_find_what_we_make_and_nothing_like_it(
    make_bare_app: Callable[..., Flask],
) -> None:
    app = make_bare_app(api_key_prefix="acme", public_url="https://id.example")
    result = flask_of(app)("keys", "scanner-rules")
    assert result.exit_code == 0, result.stderr
    config = tomllib.loads(result.stdout)
    rules = {rule["id"]: rule for rule in config["rules"]}
    assert list(rules) == ["acme-api-key", "acme-token"]
    keyring, nobody = service_of(app).keyring, UUID(UNKNOWN_ID)
    made = {
        "acme-api-key": [keyring.new_api_key() for _ in range(50)],
        "acme-token": [
            keyring.sign_refresh(nobody, 1),
            *[keyring.sign_for(kind, nobody, 1, timedelta(1)) for kind in "pem"],
        ],
    }
    for name, rule in rules.items():
        assert "id.example" in rule["description"]
        # As the scanner does it: one of the words must be there, in either case, then the pattern.
        for text in made[name]:
            for before, after in [("", ""), ("KEY=", "\n"), ('"', '"'), ("_", "/x"), ("x,", ",")]:
                assert any(word in text for word in rule["keywords"])
                found = re.search(rule["regex"], f"{before}{text}{after}")
                assert found, text
                assert found.groups() == (text,)  # the first group is the secret
            both = re.findall(rule["regex"], f"{text},{text}")
            assert both == [text, text]
        others = [text for kind, texts in made.items() if kind != name for text in texts]
        text = made[name][0]
        for near in (*others, f"x{text}", f"{text}x", text[:-1], text.replace("acme", "acne")):
            assert not re.search(rule["regex"], near), near


def test_keys_scanner_rules_extend_the_scanners_own(
    make_bare_app: Callable[..., Flask],
) -> None:
    result = flask_of(make_bare_app())("keys", "scanner-rules")
    config = tomllib.loads(result.stdout)
    assert config["extend"] == {"useDefault": True}
    # Scanners that descend from gitleaks refuse the members that they do not know.
    assert {name for rule in config["rules"] for name in rule} == {
        "id",
        "description",
        "regex",
        "keywords",
    }


# --- a database that cannot be used, and what goes where ---


@pytest.mark.parametrize(
    "arguments",
    [
        ["db", "upgrade"],
        ["db", "downgrade"],
        ["db", "current"],
        ["db", "history"],
        ["db", "stamp", "001_users"],
        ["users", "bootstrap"],
        ["users", "list"],
        ["users", "create", "robot", "--service"],
        ["users", "disable", "alice"],
        ["keys", "list", "--json"],
        ["keys", "revoke", UNKNOWN_ID],
        ["doctor"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("kind", ["in the way", "no database", "unreachable"])
def test_an_unusable_database_is_reported_in_a_sentence(
    arguments: list[str], kind: str, tmp_path: Path, app_on: Callable[..., Flask]
) -> None:
    (tmp_path / "file").touch(mode=0o600)
    (tmp_path / "file").write_text("This is no database. " * 99)
    url = {
        "in the way": f"sqlite:///{tmp_path / 'file' / 'test.db'}",
        "no database": f"sqlite:///{tmp_path / 'file'}",
        "unreachable": "postgresql://nobody:hunter2@127.0.0.1:1/nowhere",
    }[kind]
    app = app_on(url, admin_password=PASSWORD)
    result = flask_of(app)(*arguments)
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert (result.exit_code, result.stdout) == (1, "")
    assert re.match("(Error|fatal): .+", result.stderr)
    assert "hunter2" not in result.stderr


def test_a_database_without_tables_is_reported_in_a_sentence(
    empty_database: str, app_on: Callable[..., Flask]
) -> None:
    app = app_on(empty_database)
    result = flask_of(app)("users", "list")
    assert (result.exit_code, result.stdout) == (1, "")
    assert re.match("Error: .*users", result.stderr)


@pytest.mark.slow
def test_stdout_holds_only_the_answer_and_logs_go_to_stderr(tree: Path, migrated: str) -> None:
    wanted = ["users", "create", "alice", "alice@example.com", "--password-stdin"]
    made = run(tree, "flask", "--app", "wsgi", *wanted, stdin=PASSWORD, database_url=migrated)
    assert made.returncode == 0, made.stderr
    assert str(UUID(made.stdout.strip())) + "\n" == made.stdout
    lines = [json.loads(line)["msg"] for line in made.stderr.splitlines()]
    assert lines[0] == "user.create"
    assert PASSWORD not in made.stderr

    key = run(tree, "flask", "--app", "wsgi", "keys", "create", "alice", "x", database_url=migrated)
    assert re.fullmatch("bt_[0-9A-Za-z]{38}\n", key.stdout)
    lines = [json.loads(line)["msg"] for line in key.stderr.splitlines()]
    assert lines[0] == "key.create"
    assert key.stdout.strip() not in key.stderr


def test_bytes_that_are_not_text_are_refused_in_a_sentence(flask: Flasks, alice: Person) -> None:
    no_text = os.fsdecode(b"\xff")  # what an argument that is not UTF-8 becomes
    for arguments in (
        ["users", "disable", no_text],
        ["users", "create", no_text, "--service"],
        ["keys", "create", "alice", no_text],
        ["keys", "create", no_text, "x"],
    ):
        result = flask(*arguments)
        assert isinstance(result.exception, SystemExit), (arguments, result.exception)
        assert result.exit_code == 1


def test_a_command_gives_its_connection_back(app: Flask, flask: Flasks) -> None:
    flask("users", "list")
    flask("users", "disable", "nobody")
    assert service_of(app).database.is_closed()


def test_upgrading_makes_the_folder_of_a_sqlite_file(
    tmp_path: Path, app_on: Callable[..., Flask]
) -> None:
    path = tmp_path / "new" / "folder" / "test.db"
    app = app_on(f"sqlite:///{path}")
    assert flask_of(app)("db", "upgrade").exit_code == 0
    assert path.stat().st_mode & 0o777 == 0o600
    assert migrations.pending(service_of(app).database) == []


# --- mail ---


@pytest.mark.filterwarnings("ignore:::aiosmtpd")
def test_mail_test_sends_a_mail_at_once(
    make_bare_app: Callable[..., Flask], smtp: Callable[..., int], inbox: Inbox
) -> None:
    app = make_bare_app(mail_url=f"smtp://127.0.0.1:{smtp()}", service_name="Accounts")
    assert_done(
        flask_of(app)("mail", "test", "alice@bücher.example"), "Sent to alice@bücher.example."
    )
    [(_, _, envelope)] = inbox.taken
    assert envelope.rcpt_tos == ["alice@xn--bcher-kva.example"]
    assert message_of(envelope)["Subject"] == "A test mail from Accounts"


@pytest.mark.filterwarnings("ignore:::aiosmtpd")
def test_mail_test_says_why_a_mail_was_not_sent(
    make_bare_app: Callable[..., Flask], smtp: Callable[..., int], inbox: Inbox
) -> None:
    inbox.replies = ["550 no such user"]
    app = make_bare_app(mail_url=f"smtp://127.0.0.1:{smtp()}")
    for address, said in {
        "alice@example.com": "not sent: SMTPRecipientsRefused 550.",
        "alice": "alice is not an e-mail address.",
    }.items():
        refused = flask_of(app)("mail", "test", address)
        assert (refused.exit_code, refused.stderr) == (1, f"Error: {said}\n")
    production = make_bare_app(**PRODUCTION)
    refused = flask_of(production)("mail", "test", "alice@example.com")
    assert (refused.exit_code, refused.stderr) == (
        1,
        "Error: MAIL_URL is not set: no mail is sent.\n",
    )
