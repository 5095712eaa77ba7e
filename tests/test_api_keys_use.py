"""API keys in use: how they are presented, what stops them, and what is kept of their use."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from .support.apps import client_of, service_of, statements, url_of
from .support.people import PASSWORD, Person, add_user, by_key, sign_in
from .support.problems import assert_problem

OLD, NEW = "the-first-" * 5, "the-second-" * 5
VERBS = ("SELECT", "INSERT", "UPDATE", "DELETE")  # neither BEGIN nor COMMIT


def path_of(key: dict[str, Any]) -> str:
    return f"/v1/api-keys/{key['id']}"


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def me(client: FlaskClient, headers: Any, **kwargs: Any) -> TestResponse:
    return client.get("/v1/auth/me", headers=headers, **kwargs)


def assert_refused(client: FlaskClient, text: str) -> None:
    """The key is refused in either header."""
    for headers in (by_key(text), bearer(text)):
        assert_problem(me(client, headers), 401, "invalid_credentials")


@pytest.fixture
def two_apps(
    make_app: Callable[..., Flask],
) -> Callable[..., tuple[FlaskClient, Callable[..., FlaskClient]]]:
    """A function: a client of an app that knows alice, and how to get one of its next version."""

    def make(**values: str) -> tuple[FlaskClient, Callable[..., FlaskClient]]:
        first = make_app(**values)
        client = client_of(first)
        add_user(client, "alice")
        return client, lambda **values: client_of(make_app(database_url=url_of(first), **values))

    return make


# --- how a key is presented ---


def test_a_key_is_taken_from_either_header(client: FlaskClient, alice: Person) -> None:
    key = alice.new_key(scopes=["reports:read"])
    text = key["key"]
    for headers in (
        by_key(text),
        bearer(text),
        {"Authorization": f"bearer {text}"},
        {"Authorization": f"BEARER {text}"},
        {"x-api-key": text},
        {**by_key(text), **bearer(text)},
        {**by_key(text), "Authorization": ""},
        {**by_key(text), "Authorization": "Bearer"},
        {**by_key(text), "Authorization": "Bearer "},
        {**by_key(text), "Authorization": "Basic YWxpY2U6cGFzc3dvcmQ="},
        {**bearer(text), "X-API-Key": ""},
    ):
        response = me(client, headers)
        assert response.status_code == 200, headers
        assert response.json["id"] == alice.id
        expected = {"method": "api_key", "key_id": key["id"], "scopes": ["reports:read"]}
        assert response.json["auth"] == expected


def test_two_different_credentials_are_ambiguous_whether_good_or_not(
    client: FlaskClient, app: Flask, alice: Person
) -> None:
    one, two = alice.new_key()["key"], alice.new_key()["key"]
    for first, second in [
        (one, two),
        (one, "garbage"),
        ("garbage", one),
        ("garbage", "rubbish"),
        (one, one.swapcase()),
        (one, alice.access_token),
    ]:
        with statements(app) as ran:
            response = me(client, {**by_key(first), **bearer(second)})
        assert_problem(response, 400, "ambiguous_credentials")
        assert ran == []
        assert first not in response.text


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": ""},
        {"X-API-Key": "  "},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer  "},
        {"Authorization": "", "X-API-Key": ""},
        {"Authorization": "Basic YWxpY2U6cGFzc3dvcmQ="},
        {"Authorization": "Digest username=alice"},
        {"Authorization": "garbage"},
        {"Authorization": "Bearertoken x"},
        {"Api-Key": "bt_x"},
        {"Cookie": "X-API-Key=x; access_token=x; session=x"},
    ],
)
def test_anything_else_counts_as_nothing_sent(client: FlaskClient, headers: dict[str, str]) -> None:
    response = me(client, headers)
    assert_problem(response, 401, "unauthenticated")
    assert response.headers["WWW-Authenticate"] == "Bearer"


def test_a_key_in_the_wrong_place_counts_as_nothing_sent(
    client: FlaskClient, alice: Person
) -> None:
    text = alice.new_key()["key"]
    for headers in ({"Authorization": text}, {"Authorization": f"ApiKey {text}"}):
        assert_problem(me(client, headers), 401, "unauthenticated")
    for name in ("api_key", "key", "access_token"):
        response = client.get(f"/v1/auth/me?{name}={text}")
        assert_problem(response, 401, "unauthenticated")


def test_an_access_token_is_not_an_api_key(client: FlaskClient, alice: Person) -> None:
    response = me(client, by_key(alice.access_token))
    assert_problem(response, 401, "invalid_credentials")


def test_public_routes_do_not_read_credentials(client: FlaskClient, alice: Person) -> None:
    body = {"username": "alice", "password": PASSWORD}
    good = alice.new_key()["key"]
    for headers in (
        bearer("garbage"),
        bearer("a.b.c"),
        by_key("garbage"),
        {**by_key(good), **bearer("garbage")},
        {"Authorization": "\xff\xfe"},
    ):
        assert client.post("/v1/auth/login", json=body, headers=headers).status_code == 200
        assert client.get("/healthz", headers=headers).status_code == 200
        assert client.get("/", headers=headers).status_code == 200
    service_of(client.application).flush()
    assert [key["last_used_at"] for key in alice.get("/v1/api-keys").json["items"]] == [None]


# --- what stops a key ---


def test_all_invalid_keys_get_the_same_answer(
    client: FlaskClient, alice: Person, bob: Person, root: Person, travel: Callable[..., None]
) -> None:
    keys = {
        name: alice.new_key(expires_in_days=1 if name == "expired" else 9)
        for name in ("expired", "revoked", "disabled", "deleted", "typed wrong")
    }
    texts = {name: key["key"] for name, key in keys.items()}
    texts["typed wrong"] = texts["typed wrong"][:-1] + "~"
    texts["unknown"] = f"bt_{'0' * 32}01EomX"
    texts["garbage"] = "garbage"
    texts["owner disabled"] = bob.new_key()["key"]
    owner = root.new_key()["key"]
    alice.post(f"{path_of(keys['revoked'])}/revoke")
    alice.patch(path_of(keys["disabled"]), {"disabled": True})
    alice.delete(path_of(keys["deleted"]))
    root.patch(f"/v1/users/{bob.id}", {"is_active": False})
    travel(days=1, seconds=1)
    answers = {}
    for name, text in texts.items():
        for headers in (by_key(text), bearer(text), {**by_key(text), **bearer(text)}):
            response = me(client, headers)
            assert_problem(response, 401, "invalid_credentials")
            assert response.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
            assert text not in response.text
            answers[name] = response.json | {"request_id": ""}
    assert all(answer == answers["unknown"] for answer in answers.values())
    assert me(client, by_key(owner)).status_code == 200


def test_keys_stop_while_their_owner_is_disabled(
    client: FlaskClient, alice: Person, root: Person
) -> None:
    key = alice.new_key()
    root.patch(f"/v1/users/{alice.id}", {"is_active": False})
    assert_refused(client, key["key"])
    assert root.get(path_of(key)).json["status"] == "active"
    root.patch(f"/v1/users/{alice.id}", {"is_active": True})
    assert me(client, by_key(key["key"])).status_code == 200


def test_signing_out_everywhere_and_a_new_password_leave_keys_alone(
    client: FlaskClient, alice: Person
) -> None:
    key = alice.new_key()
    new = {"current_password": PASSWORD, "new_password": PASSWORD + "!"}
    assert alice.post("/v1/auth/password", new).status_code == 204
    assert alice.post("/v1/auth/logout-all").status_code == 204
    assert me(client, by_key(key["key"])).status_code == 200


def test_a_key_works_until_its_expiry_on_every_path(
    client: FlaskClient, alice: Person, travel: Callable[..., None]
) -> None:
    scopes = ["keys:read", "keys:write"]
    key = alice.new_key(scopes=scopes, expires_in_days=1)
    other = alice.new_key()
    travel(hours=23, minutes=59)
    holder = alice.with_key(key)
    assert holder.get("/v1/auth/me").status_code == 200
    assert me(client, by_key(key["key"])).status_code == 200
    assert holder.patch(path_of(other), {"expires_at": key["expires_at"]}).status_code == 200
    travel(minutes=2)
    assert_refused(client, key["key"])
    for response in (
        holder.get("/v1/api-keys"),
        holder.get(path_of(other)),
        holder.post("/v1/api-keys", {"name": "x"}),
        holder.patch(path_of(other), {"name": "x"}),
        holder.post(f"{path_of(other)}/revoke"),
        holder.delete(path_of(other)),
        holder.post("/v1/auth/logout"),
        holder.get("/v1/users"),
    ):
        assert_problem(response, 401, "invalid_credentials")
    assert alice.again().get(path_of(key)).json["status"] == "expired"
    assert_refused(client, other["key"])


# --- what is kept of its use ---


def test_the_last_use_is_written_behind_the_request(
    app: Flask, client: FlaskClient, alice: Person
) -> None:
    key, unused = alice.new_key(), alice.new_key()
    before = datetime.now(UTC)
    with statements(app) as ran:
        response = me(client, by_key(key["key"]), environ_base={"REMOTE_ADDR": "192.0.2.7"})
        assert response.status_code == 200
    assert len(ran) == 1
    assert ran[0].startswith("SELECT")
    service_of(app).flush()
    kept = alice.get(path_of(key)).json
    assert before <= datetime.fromisoformat(kept["last_used_at"]) <= datetime.now(UTC)
    assert kept["last_used_ip"] == "192.0.2.7"
    assert kept["updated_at"] == key["updated_at"]
    assert alice.get(path_of(unused)).json["last_used_at"] is None


def test_the_last_of_several_uses_counts(
    app: Flask, client: FlaskClient, alice: Person, travel: Callable[..., None]
) -> None:
    key = alice.new_key()
    seen = []
    for address in ("192.0.2.1", "192.0.2.2", "2001:db8::3"):
        travel(seconds=10)
        me(client, bearer(key["key"]), environ_base={"REMOTE_ADDR": address})
        if address != "192.0.2.1":
            service_of(app).flush()
            kept = alice.get(path_of(key)).json
            seen.append(kept["last_used_at"])
            assert kept["last_used_ip"] == address
    assert seen[0] < seen[1]


def test_an_older_use_does_not_overwrite_a_newer_one(
    two_apps: Any, travel: Callable[..., None]
) -> None:
    """Two processes on one database flush in any order."""
    first, make_next = two_apps()
    second = make_next()
    alice = sign_in(first, "alice")
    key = alice.new_key()
    me(first, by_key(key["key"]), environ_base={"REMOTE_ADDR": "192.0.2.1"})
    travel(seconds=10)
    me(second, by_key(key["key"]), environ_base={"REMOTE_ADDR": "192.0.2.2"})
    for client in (second, first):
        service_of(client.application).flush()
        assert alice.get(path_of(key)).json["last_used_ip"] == "192.0.2.2"


def test_the_uses_of_many_keys_are_written_by_one_statement(
    app: Flask, client: FlaskClient, alice: Person, bob: Person
) -> None:
    keys = [person.new_key() for person in (alice, bob) for _ in range(20)]
    for key in keys:
        for _ in range(2):
            assert me(client, by_key(key["key"])).status_code == 200
    alice.delete(path_of(keys[0]))
    with statements(app) as ran:
        service_of(app).flush()
    assert len([sql for sql in ran if "UPDATE api_keys" in sql]) == 1
    with statements(app) as ran:
        service_of(app).flush()
    assert ran == []
    for person in (alice, bob):
        assert all(key["last_used_at"] for key in person.get("/v1/api-keys").json["items"])


def test_a_refused_key_counts_as_not_used(app: Flask, client: FlaskClient, alice: Person) -> None:
    key = alice.new_key()
    alice.patch(path_of(key), {"disabled": True})
    assert_refused(client, key["key"])
    service_of(app).flush()
    assert alice.get(path_of(key)).json["last_used_at"] is None


# --- settings that change while keys live ---


def test_a_key_outlives_a_change_of_the_prefix(two_apps: Any) -> None:
    before, make_next = two_apps(api_key_prefix="old")
    key = sign_in(before, "alice").new_key()
    assert key["key"].startswith("old_")
    after = make_next(api_key_prefix="new")
    assert me(after, by_key(key["key"])).status_code == 200
    assert me(after, bearer(key["key"])).status_code == 200
    alice = sign_in(after, "alice")
    newer = alice.new_key()
    assert newer["key"].startswith("new_")
    assert me(before, by_key(newer["key"])).status_code == 200
    assert alice.get(path_of(key)).json["hint"] == key["hint"]
    assert after.post("/v1/api-keys/revoke", json={"key": key["key"]}).status_code == 204
    assert_refused(after, key["key"])


def test_a_key_moves_to_the_new_secret_at_its_next_use(two_apps: Any) -> None:
    before, make_next = two_apps(secret_key=OLD)
    alice = sign_in(before, "alice")
    used, unused, revoked = alice.new_key(), alice.new_key(), alice.new_key()
    between = make_next(secret_key=NEW, secret_key_fallbacks=f"another-one-entirely,{OLD}")
    for _ in range(2):
        assert me(between, by_key(used["key"])).json["auth"]["key_id"] == used["id"]
    sent = {"key": revoked["key"]}
    assert between.post("/v1/api-keys/revoke", json=sent).status_code == 204
    assert sign_in(between, "alice").get(path_of(revoked)).json["status"] == "revoked"
    after = make_next(secret_key=NEW)
    assert me(after, by_key(used["key"])).json["auth"]["key_id"] == used["id"]
    assert_refused(after, unused["key"])
    assert me(between, by_key(unused["key"])).status_code == 200
    assert me(after, by_key(unused["key"])).status_code == 200


def test_a_key_moves_once_in_one_write(two_apps: Any) -> None:
    before, make_next = two_apps(secret_key=OLD)
    key = sign_in(before, "alice").new_key()
    between = make_next(secret_key=NEW, secret_key_fallbacks=OLD)
    counts = []
    for _ in range(2):
        with statements(between.application) as ran:
            assert me(between, by_key(key["key"])).status_code == 200
        counts.append([sql.split()[0] for sql in ran if sql.split()[0] in VERBS])
    assert counts == [["SELECT", "UPDATE"], ["SELECT"]]


def test_without_the_old_secret_its_keys_are_refused(two_apps: Any) -> None:
    before, make_next = two_apps(secret_key=OLD)
    key = sign_in(before, "alice").new_key()
    after = make_next(secret_key=NEW)
    assert_refused(after, key["key"])
    assert me(before, by_key(key["key"])).status_code == 200
