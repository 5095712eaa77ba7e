"""Administration: making, listing, changing and removing accounts, in person and by key."""

import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from backend.users.rows import UserRow

from .support.mail import mails_of, token_in
from .support.mfa import enrol
from .support.people import PASSWORD, Person, add_user, sign_in
from .support.problems import assert_problem

USER = set(UserRow._fields)


def register(admin: Person, username: str = "carol", **account: Any) -> TestResponse:
    """The answer to registering a person, or whom `account` describes."""
    usual = {"email": f"{username}@example.com", "password": PASSWORD}
    return admin.post("/v1/auth/register", {"username": username, **usual, **account})


def register_service(admin: Person, username: str = "robot", **account: Any) -> TestResponse:
    """The answer to registering a service account."""
    return admin.post(
        "/v1/auth/register", {"username": username, "kind": "service", "role": "user", **account}
    )


def second_admin(root: Person, username: str = "carol") -> Person:
    """Another administrator, signed in."""
    assert register(root, username, role="admin").status_code == 201
    return sign_in(root.client, username)


def path_of(who: Person | TestResponse) -> str:
    """Where the account is found."""
    return f"/v1/users/{who.id if isinstance(who, Person) else who.json['id']}"


def names(response: TestResponse) -> list[str]:
    """The usernames of a listing, in its order."""
    assert response.status_code == 200, response.json
    return [item["username"] for item in response.json["items"]]


# --- registering ---


def test_a_registered_person_can_sign_in(root: Person) -> None:
    response = register(root)
    assert response.status_code == 201
    assert set(response.json) == USER
    assert response.headers["Location"] == f"/v1/users/{response.json['id']}"
    assert (response.json["role"], response.json["kind"]) == ("user", "person")
    assert (response.json["is_active"], response.json["mfa_enabled"]) == (True, False)
    assert (response.json["pending_email"], response.json["last_login_at"]) == (None, None)
    assert response.json["created_at"] == response.json["updated_at"]
    assert uuid.UUID(response.json["id"]).version == 7
    assert root.get(response.headers["Location"]).json == response.json
    assert sign_in(root.client, "carol").id == response.json["id"]


def test_an_admin_in_person_may_register_an_admin(root: Person) -> None:
    assert second_admin(root).get("/v1/users").status_code == 200


def test_a_person_needs_an_email_address(root: Person) -> None:
    for email in ({}, {"email": None}):
        body = {"username": "carol", "password": PASSWORD, **email}
        response = root.post("/v1/auth/register", body)
        assert_problem(response, 422, "validation_error", "json.email")


def test_a_weak_password_is_refused_by_name(root: Person) -> None:
    response = register(root, password="x" * 14)
    assert_problem(response, 422, "password_too_weak", "json.password")
    response = register(root, password="x" * 1025)
    assert_problem(response, 422, "validation_error", "json.password")


def test_the_password_is_in_no_answer(root: Person) -> None:
    secret = "never to be seen again by anyone"
    answers = [
        register(root, password=secret),
        register(root, password=secret),
        register(root, "dave", password=[secret]),
        root.get("/v1/users"),
    ]
    assert [answer.status_code for answer in answers] == [201, 409, 422, 200]
    for answer in answers:
        assert secret not in answer.text
        assert "$2b$" not in answer.text


def test_other_roles_and_kinds_are_refused(root: Person) -> None:
    for name, values in {"role": ["root", "Admin", "", None, 1], "kind": ["bot", "", None]}.items():
        for value in values:
            response = register(root, **{name: value})
            assert_problem(response, 422, "validation_error", f"json.{name}")


def test_registering_requires_an_administrator(client: FlaskClient, alice: Person) -> None:
    assert_problem(register(alice), 403, "forbidden")
    assert_problem(client.post("/v1/auth/register", json={}), 401, "unauthenticated")


# --- service accounts ---


def test_a_service_account_has_no_password_and_needs_no_email(root: Person) -> None:
    response = register_service(root)
    assert response.status_code == 201
    assert (response.json["kind"], response.json["email"]) == ("service", None)
    assert register_service(root, "robot-2", email=None).status_code == 201
    assert register_service(root, "robot-3", email="robot@example.com").status_code == 201
    response = register_service(root, "robot-4", email="ROBOT@example.com")
    assert_problem(response, 409, "email_taken")


def test_a_service_account_cannot_be_given_a_password(root: Person) -> None:
    for password in (PASSWORD, "short", ""):
        response = register_service(root, password=password)
        assert_problem(response, 422, "validation_error", "json.password")
    assert names(root.get("/v1/users?kind=service")) == []


def test_a_service_account_cannot_sign_in(client: FlaskClient, root: Person) -> None:
    register_service(root, email="robot@example.com")
    for name in ("robot", "robot@example.com"):
        for password in (PASSWORD, "null", "None"):
            body = {"username": name, "password": password}
            response = client.post("/v1/auth/login", json=body)
            assert_problem(response, 401, "invalid_credentials")


# --- listing ---


def test_accounts_are_listed_newest_first_page_by_page(root: Person) -> None:
    for number in range(4):
        add_user(root.client, f"user-{number}")
    expected = ["user-3", "user-2", "user-1", "user-0", "root"]
    everything = root.get("/v1/users")
    assert set(everything.json) == {"items", "next"}
    assert names(everything) == expected
    assert everything.json["next"] is None
    assert all(set(item) == USER for item in everything.json["items"])
    found: list[str] = []
    query = "?limit=2"
    for size in (2, 2, 1):
        page = root.get(f"/v1/users{query}")
        assert len(page.json["items"]) == size
        found += names(page)
        query = f"?limit=2&cursor={page.json['next']}"
    assert found == expected
    assert page.json["next"] is None


def test_a_last_page_that_is_full_has_no_next(root: Person, alice: Person) -> None:
    page = root.get("/v1/users?limit=2")
    assert (len(page.json["items"]), page.json["next"]) == (2, None)


def test_a_cursor_outlives_its_row_and_new_rows_do_not_shift_it(root: Person) -> None:
    for number in range(3):
        add_user(root.client, f"user-{number}")
    first = root.get("/v1/users?limit=2")
    assert names(first) == ["user-2", "user-1"]
    for item in first.json["items"]:
        assert root.delete(f"/v1/users/{item['id']}").status_code == 204
    add_user(root.client, "user-3")
    second = root.get(f"/v1/users?cursor={first.json['next']}")
    assert names(second) == ["user-0", "root"]


def test_a_page_has_50_items_by_default_and_at_most_100(root: Person) -> None:
    for number in range(51):
        register_service(root, f"robot-{number}")
    page = root.get("/v1/users")
    assert len(page.json["items"]) == 50
    assert len(root.get("/v1/users?limit=100").json["items"]) == 52
    assert len(root.get(f"/v1/users?cursor={page.json['next']}").json["items"]) == 2


def test_bad_limits_and_cursors_are_refused(root: Person) -> None:
    limits = ["0", "101", "-1", "1.0", "%2012%20", "abc", "", "0x10", "1e1", "9" * 500]
    limits += ["%D9%A1", "%00", "null"]  # an Arabic digit one
    for limit in limits:
        response = root.get(f"/v1/users?limit={limit}")
        assert_problem(response, 422, "validation_error", "query.limit")
    real = "AZLTpFtsfY6fASNFZ4mrzQ"
    assert root.get(f"/v1/users?cursor={real}").status_code == 200
    for cursor in ("", "x", real[:-1], real + "A", real + "%3D%3D", real[:-1] + "R", "%C3%A4" * 22):
        response = root.get(f"/v1/users?cursor={cursor}")
        assert_problem(response, 422, "validation_error", "query.cursor")


def test_unknown_and_repeated_parameters_are_refused(root: Person) -> None:
    queries = {"sort=name": "sort", "limit=1&limit=1": "limit", "role=user&role=admin": "role"}
    for query, name in queries.items():
        response = root.get(f"/v1/users?{query}")
        assert_problem(response, 422, "validation_error", f"query.{name}")


def test_search_looks_in_username_and_email_in_any_case(root: Person) -> None:
    add_user(root.client, "alice", email="wonder@example.com")
    add_user(root.client, "bob", email="alice.fan@example.com")
    assert names(root.get("/v1/users?search=ALIC")) == ["bob", "alice"]
    assert names(root.get("/v1/users?search=wonder")) == ["alice"]
    assert names(root.get("/v1/users?search=nobody")) == []


def test_search_for_users_ignores_case_in_every_script(root: Person) -> None:
    add_user(root.client, "alice", email="alice@bücher.example")
    add_user(root.client, "robot", email=None, password=None, kind="service")
    for text in ("BÜCHER", "bücher", "Ü"):
        assert names(root.get(f"/v1/users?search={quote(text)}")) == ["alice"]


def test_search_is_literal(root: Person) -> None:
    add_user(root.client, "a_b", email="100%@example.com")
    add_user(root.client, "axb", email="1000@example.com")
    assert names(root.get("/v1/users?search=a_b")) == ["a_b"]
    assert names(root.get("/v1/users?search=0%25@")) == ["a_b"]
    assert names(root.get("/v1/users?search=%25")) == ["a_b"]
    assert names(root.get("/v1/users?search=_")) == ["a_b"]
    for text in ("%5C", "%5C_", "a*b", "a.b", "%27", "%22", "%27%20OR%201=1--", "%5B"):
        assert names(root.get(f"/v1/users?search={text}")) == []


def test_a_search_with_control_characters_is_refused(root: Person) -> None:
    for text in ("%00", "a%0Ab", "%7F"):
        response = root.get(f"/v1/users?search={text}")
        assert_problem(response, 422, "validation_error", "query.search")


def test_accounts_are_filtered_by_role_kind_and_state(root: Person, alice: Person) -> None:
    register_service(root)
    register(root, "disabled")
    [item] = root.get("/v1/users?search=disabled").json["items"]
    root.patch(f"/v1/users/{item['id']}", {"is_active": False})
    assert names(root.get("/v1/users?role=admin")) == ["root"]
    assert names(root.get("/v1/users?role=user")) == ["disabled", "robot", "alice"]
    assert names(root.get("/v1/users?kind=service")) == ["robot"]
    assert names(root.get("/v1/users?is_active=false")) == ["disabled"]
    assert names(root.get("/v1/users?is_active=true&kind=person")) == ["alice", "root"]
    assert names(root.get("/v1/users?is_active=true&role=user&search=ali")) == ["alice"]
    assert names(root.get("/v1/users?is_active=false&role=admin")) == []


def test_filters_are_taken_literally(root: Person) -> None:
    bad = {
        "role": ["Admin", "", "root"],
        "kind": ["bot", ""],
        "is_active": ["1", "yes", "True", ""],
    }
    for name, values in bad.items():
        for value in values:
            response = root.get(f"/v1/users?{name}={value}")
            assert_problem(response, 422, "validation_error", f"query.{name}")


# --- changing ---


def test_a_change_counts_at_once(root: Person, alice: Person, travel: Callable[..., None]) -> None:
    before = root.get(path_of(alice)).json
    travel(seconds=60)
    wanted = {"username": "Alicia", "email": "Alicia@example.org", "role": "admin"}
    response = root.patch(path_of(alice), wanted)
    assert response.status_code == 200
    assert response.json == before | wanted | {"updated_at": response.json["updated_at"]}
    assert response.json["updated_at"] > before["updated_at"]
    assert root.get(path_of(alice)).json == response.json
    assert alice.get("/v1/auth/me").json["role"] == "admin"
    for name in ("alicia", "alicia@example.org"):
        assert sign_in(root.client, name).id == alice.id


def test_names_that_are_taken_are_refused_and_nothing_changes(
    root: Person, alice: Person, bob: Person
) -> None:
    before = root.get(path_of(alice)).json
    response = root.patch(path_of(alice), {"username": "BOB", "role": "admin"})
    assert_problem(response, 409, "username_taken")
    response = root.patch(path_of(alice), {"email": "BOB@example.com", "is_active": False})
    assert_problem(response, 409, "email_taken")
    assert root.get(path_of(alice)).json == before
    assert alice.get("/v1/auth/me").status_code == 200


def test_an_account_may_keep_its_names_in_another_case(root: Person, alice: Person) -> None:
    wanted = {"username": "ALICE", "email": "Alice@Example.com"}
    response = root.patch(path_of(alice), wanted)
    assert response.status_code == 200
    assert response.json.items() >= wanted.items()


def test_a_person_keeps_an_email_address_and_a_service_account_need_not(
    root: Person, alice: Person
) -> None:
    response = root.patch(path_of(alice), {"email": None})
    assert_problem(response, 422, "validation_error", "json.email")
    robot = path_of(register_service(root, email="robot@example.com"))
    assert root.patch(robot, {"email": None}).json["email"] is None
    assert register(root, email="robot@example.com").status_code == 201


def test_invalid_changes_are_refused(root: Person, alice: Person) -> None:
    bad: dict[str, list[Any]] = {
        "username": ["ab", None, 1, "a\N{RIGHT-TO-LEFT OVERRIDE}lice", "alice\0"],
        "email": ["alice", "", 1, "a@b.co\ud800"],
        "role": ["root", None, True],
        "is_active": ["yes", "true", 1, 0, None],
        "password": [PASSWORD],
        "password_hash": ["$2b$04$"],
        "kind": ["service"],
        "id": [str(uuid.uuid4())],
        "mfa_enabled": [False],
        "session_epoch": [0],
        "last_login_at": [None],
    }
    before = root.get(path_of(alice)).json
    for name, values in bad.items():
        for value in values:
            response = root.patch(path_of(alice), {name: value})
            assert_problem(response, 422, "validation_error", f"json.{name}")
    assert root.get(path_of(alice)).json == before


def test_missing_accounts_are_not_found(root: Person, alice: Person) -> None:
    unknown = f"/v1/users/{uuid.uuid4()}"
    for path in (
        unknown,
        path_of(alice).upper(),
        f"{path_of(alice)}/",
        "/v1/users/1",
        "/v1/users/",
    ):
        assert_problem(root.get(path), 404, "not_found")
        assert_problem(root.patch(path, {"role": "user"}), 404, "not_found")
        assert_problem(root.delete(path), 404, "not_found")
    assert_problem(root.patch(unknown, {"role": "king"}), 422, "validation_error", "json.role")


def test_a_user_cannot_administer_accounts(client: FlaskClient, alice: Person, bob: Person) -> None:
    for path in (path_of(alice), path_of(bob), f"/v1/users/{uuid.uuid4()}"):
        assert_problem(alice.get(path), 403, "forbidden")
        assert_problem(alice.patch(path, {"role": "king"}), 403, "forbidden")
        assert_problem(alice.delete(path), 403, "forbidden")
        assert_problem(client.get(path), 401, "unauthenticated")
    assert_problem(alice.get("/v1/users"), 403, "forbidden")


# --- removing ---


def test_deleting_an_account_frees_its_names_and_deletes_its_keys(
    root: Person, alice: Person
) -> None:
    key = alice.with_key(alice.new_key(scopes=["keys:read"]))
    response = root.delete(path_of(alice))
    assert (response.status_code, response.data) == (204, b"")
    assert_problem(key.get("/v1/auth/me"), 401, "invalid_credentials")
    assert_problem(root.get(path_of(alice)), 404, "not_found")
    assert_problem(root.delete(path_of(alice)), 404, "not_found")
    assert root.get("/v1/api-keys?owner_id=any").json["items"] == []
    again = register(root, "ALICE", email="ALICE@example.com")
    assert again.status_code == 201
    assert again.json["id"] != alice.id
    assert_problem(alice.get("/v1/auth/me"), 401, "invalid_credentials")


def test_a_stolen_admin_session_cannot_take_over_the_admins_own_account(root: Person) -> None:
    """What /v1/auth asks proof for must not be had for nothing by one's id."""
    carol = second_admin(root)
    enrol(carol)
    before = root.get(path_of(carol)).json
    refused = [
        carol.patch(path_of(carol), {"email": "mallory@example.com"}),
        carol.patch(path_of(carol), {"email": before["email"], "username": "carol-2"}),
        carol.delete(f"{path_of(carol)}/mfa"),
        carol.delete(f"{path_of(carol)}/sessions"),
        carol.post(f"{path_of(carol)}/password-reset"),
        carol.delete(path_of(carol)),
    ]
    for response in refused:
        assert_problem(response, 403, "forbidden")
    assert root.get(path_of(carol)).json == before
    assert mails_of(root.client)[-1]["To"] == before["email"]
    assert "password" not in mails_of(root.client)[-1]["Subject"].lower()
    assert carol.get("/v1/auth/me").json["mfa_enabled"] is True
    harmless = {"username": "carol-2", "role": "admin", "is_active": True}
    assert carol.patch(path_of(carol), harmless).status_code == 200


def test_the_last_admin_is_refused_as_such_on_their_own_account(root: Person) -> None:
    moved = {"email": "mallory@example.com"}
    assert_problem(root.delete(path_of(root)), 409, "last_admin")
    assert_problem(root.patch(path_of(root), moved | {"role": "user"}), 409, "last_admin")
    assert_problem(root.patch(path_of(root), moved | {"is_active": False}), 409, "last_admin")
    assert_problem(root.patch(path_of(root), moved), 403, "forbidden")
    for path in ("mfa", "sessions"):
        assert_problem(root.delete(f"{path_of(root)}/{path}"), 403, "forbidden")
    assert_problem(root.post(f"{path_of(root)}/password-reset"), 403, "forbidden")


def test_an_admin_who_cannot_sign_in_yet_does_not_count(root: Person) -> None:
    invited = {"username": "carol", "email": "carol@example.com", "role": "admin"}
    assert root.post("/v1/auth/register", invited).status_code == 201
    assert_problem(root.delete(path_of(root)), 409, "last_admin")
    [message] = mails_of(root.client)
    link = {"token": token_in(message), "new_password": PASSWORD}
    assert root.client.post("/v1/auth/password/reset", json=link).status_code == 204
    carol = sign_in(root.client, "carol")
    assert carol.delete(path_of(root)).status_code == 204


# --- the last administrator ---


def assert_is_last_admin(root: Person) -> None:
    """Root can be neither demoted, disabled nor removed."""
    for change in ({"role": "user"}, {"is_active": False}, {"role": "user", "username": "former"}):
        assert_problem(root.patch(path_of(root), change), 409, "last_admin")
    assert_problem(root.delete(path_of(root)), 409, "last_admin")
    me = root.get("/v1/auth/me").json
    assert (me["username"], me["role"], me["is_active"]) == ("root", "admin", True)


def test_the_last_admin_stays(root: Person, alice: Person) -> None:
    assert_is_last_admin(root)
    harmless = {"role": "admin", "is_active": True, "username": "root-2"}
    assert root.patch(path_of(root), harmless).status_code == 200


def test_an_admin_who_is_disabled_does_not_count(root: Person) -> None:
    carol = second_admin(root)
    assert root.patch(path_of(carol), {"is_active": False}).status_code == 200
    assert_is_last_admin(root)
    assert root.patch(path_of(carol), {"role": "user"}).status_code == 200


def test_a_service_account_with_the_role_does_not_count(root: Person) -> None:
    robot = register_service(root, role="admin")
    assert robot.status_code == 201
    assert_is_last_admin(root)
    assert root.delete(path_of(robot)).status_code == 204


def test_an_admin_may_be_demoted_while_another_remains(root: Person) -> None:
    carol = second_admin(root)
    assert carol.patch(path_of(root), {"role": "user"}).json["role"] == "user"
    assert_problem(root.get("/v1/users"), 403, "forbidden")
    assert_problem(carol.patch(path_of(carol), {"role": "user"}), 409, "last_admin")


# --- by key ---


def test_a_key_reads_accounts_with_one_scope_and_changes_them_with_another(
    root: Person, alice: Person
) -> None:
    reader = root.with_key(root.new_key(scopes=["users:read"]))
    writer = root.with_key(root.new_key(scopes=["users:write"]))
    bare = root.with_key(root.new_key(scopes=["keys:read"]))
    assert names(reader.get("/v1/users")) == ["alice", "root"]
    assert reader.get(path_of(alice)).json["id"] == alice.id
    assert writer.patch(path_of(alice), {"username": "alicia"}).status_code == 200
    created = register(writer)
    assert created.status_code == 201
    assert writer.delete(path_of(created)).status_code == 204
    for key, scope in ((bare, "users:read"), (writer, "users:read")):
        for path in ("/v1/users", path_of(alice)):
            response = key.get(path)
            assert_problem(response, 403, "insufficient_scope")
            challenge = f'Bearer error="insufficient_scope", scope="{scope}"'
            assert response.headers["WWW-Authenticate"] == challenge
    for key in (bare, reader):
        assert_problem(register(key), 403, "insufficient_scope")
        assert_problem(key.patch(path_of(alice), {}), 403, "insufficient_scope")
        assert_problem(key.delete(path_of(alice)), 403, "insufficient_scope")


def test_a_key_for_the_whole_area_reads_and_writes(root: Person, alice: Person) -> None:
    key = root.with_key(root.new_key(scopes=["users:*"]))
    assert key.get("/v1/users").status_code == 200
    assert key.patch(path_of(alice), {"is_active": False}).json["is_active"] is False


def test_a_key_cannot_make_anyone_an_admin(root: Person, alice: Person) -> None:
    key = root.with_key(root.new_key(scopes=["users:write"]))
    assert_problem(register(key, role="admin"), 403, "session_required")
    assert_problem(register_service(key, role="admin"), 403, "session_required")
    assert_problem(key.patch(path_of(alice), {"role": "admin"}), 403, "session_required")
    assert key.patch(path_of(alice), {"role": "user"}).status_code == 200
    assert names(root.get("/v1/users?role=admin")) == ["root"]


def test_a_key_cannot_change_an_admin(root: Person) -> None:
    key = root.with_key(root.new_key(scopes=["users:write"]))
    carol = path_of(second_admin(root))
    robot = path_of(register_service(root, role="admin"))
    for path in (carol, robot):
        for change in ({"username": "former"}, {"role": "user"}, {"is_active": False}):
            assert_problem(key.patch(path, change), 403, "session_required")
        assert_problem(key.delete(path), 403, "session_required")


def test_a_key_that_changes_the_last_admin_is_refused_for_being_a_key(root: Person) -> None:
    key = root.with_key(root.new_key(scopes=["users:write"]))
    assert_problem(key.delete(path_of(root)), 403, "session_required")
    for change in ({"role": "user"}, {"is_active": False}):
        assert_problem(key.patch(path_of(root), change), 403, "session_required")


def test_a_user_cannot_mint_keys_that_administer(alice: Person) -> None:
    for scope in ("users:read", "users:write", "users:*"):
        response = alice.post("/v1/api-keys", {"name": "test", "scopes": [scope]})
        assert_problem(response, 403, "insufficient_scope")


def test_the_keys_of_a_demoted_admin_can_no_longer_administer(root: Person) -> None:
    carol = second_admin(root)
    key = carol.with_key(carol.new_key(scopes=["users:*", "keys:read"]))
    assert key.get("/v1/users").status_code == 200
    assert root.patch(path_of(carol), {"role": "user"}).status_code == 200
    assert_problem(key.get("/v1/users"), 403, "insufficient_scope")
    assert_problem(register(key, "dave"), 403, "insufficient_scope")
    assert key.get("/v1/auth/me").json["auth"]["scopes"] == ["keys:read"]
    assert root.patch(path_of(carol), {"role": "admin"}).status_code == 200
    assert key.get("/v1/users").status_code == 200
