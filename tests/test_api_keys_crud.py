"""API keys as their owner sees them: creating, listing, changing, revoking, deleting."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask
from flask.testing import FlaskClient

from .support.apps import client_of
from .support.people import Person, add_user, by_key, sign_in
from .support.problems import assert_problem

FIELDS = {
    "id",
    "name",
    "description",
    "hint",
    "scopes",
    "expires_at",
    "disabled",
    "status",
    "created_at",
    "updated_at",
    "last_used_at",
    "last_used_ip",
    "owner_id",
}
NO_SUCH = "/v1/api-keys/0192d3a4-8888-7d8e-9f01-23456789abcd"


def path_of(key: dict[str, Any]) -> str:
    return f"/v1/api-keys/{key['id']}"


def names(person: Person, query: str = "") -> list[str]:
    """The names of the keys that the person is shown, in the order in which they come."""
    response = person.get(f"/v1/api-keys{query}")
    assert response.status_code == 200, response.json
    return [key["name"] for key in response.json["items"]]


def status_by(client: FlaskClient, key: dict[str, Any]) -> int:
    """What a request is answered that presents the key."""
    return client.get("/v1/auth/me", headers=by_key(key["key"])).status_code


# --- creating ---


def test_a_new_key_is_answered_with_its_text_and_its_place(alice: Person) -> None:
    response = alice.post("/v1/api-keys", {"name": "deploys"})
    assert response.status_code == 201
    key = response.json
    assert response.headers["Location"] == path_of(key)
    assert set(key) >= FIELDS | {"key"}
    assert key["hint"].startswith("bt_")
    assert key["hint"].endswith(key["key"][-4:])
    assert len(key["hint"]) < 16
    assert key["id"][14] == "7"
    assert key["owner_id"] == alice.id
    assert key["created_at"] == key["updated_at"]
    assert key["created_at"].endswith("Z")
    plain = {
        "name": "deploys",
        "description": None,
        "scopes": [],
        "expires_at": None,
        "disabled": False,
        "status": "active",
        "last_used_at": None,
        "last_used_ip": None,
    }
    assert {name: key[name] for name in plain} == plain


def test_a_key_text_is_shown_once_and_never_again(alice: Person, root: Person) -> None:
    key = alice.new_key()
    secret = key["key"][3:-4]  # but for what the hint shows
    answers = [
        alice.get(path_of(key)),
        root.get(path_of(key)),
        alice.get("/v1/api-keys"),
        root.get("/v1/api-keys?owner_id=any"),
        alice.patch(path_of(key), {"name": "other"}),
        alice.post(f"{path_of(key)}/revoke"),
    ]
    for response in answers:
        assert response.status_code == 200
        assert secret not in response.text
        assert '"key"' not in response.text
    assert set(answers[0].json) == set(key) - {"key"}


WITHIN_LIMITS = [
    {"name": "x"},
    {"name": "ü" * 100},
    {"description": "\N{KEY}" * 500},
    {"description": ""},
    {"description": None},
    {"scopes": []},
    {"scopes": [f"area{n}:act" for n in range(50)]},
    {"scopes": ["a:*", "a:b", f"a{'-' * 31}:b{'_' * 31}"]},
    {"expires_at": None},
]


def test_values_just_within_the_limits_are_stored_as_sent(
    alice: Person, subtests: pytest.Subtests
) -> None:
    for wanted in WITHIN_LIMITS:
        with subtests.test(wanted=wanted):
            key = alice.new_key(**wanted)
            kept = alice.get(path_of(key)).json
            for name, value in wanted.items():
                sent = sorted(value) if name == "scopes" else value
                assert (sorted(kept[name]) if name == "scopes" else kept[name]) == sent


BEYOND_LIMITS = [
    ({}, "json.name"),
    ({"name": ""}, "json.name"),
    ({"name": "x" * 101}, "json.name"),
    ({"name": None}, "json.name"),
    ({"name": 1}, "json.name"),
    ({"name": "a\nb"}, "json.name"),
    ({"name": "x", "description": "x" * 501}, "json.description"),
    ({"name": "x", "description": "a\0b"}, "json.description"),
    ({"name": "x", "scopes": None}, "json.scopes"),
    ({"name": "x", "scopes": "a:b"}, "json.scopes"),
    ({"name": "x", "scopes": [f"area{n}:act" for n in range(51)]}, "json.scopes"),
    ({"name": "x", "expires_in_days": 0}, "json.expires_in_days"),
    ({"name": "x", "expires_in_days": 3651}, "json.expires_in_days"),
    ({"name": "x", "expires_in_days": 1.0}, "json.expires_in_days"),
    ({"name": "x", "expires_in_days": "1"}, "json.expires_in_days"),
    ({"name": "x", "expires_in_days": True}, "json.expires_in_days"),
    (
        {"name": "x", "expires_in_days": 1, "expires_at": "2999-01-01T00:00:00Z"},
        "json.expires_at",
    ),
    ({"name": "x", "expires_in_days": 1, "expires_at": None}, "json.expires_at"),
    ({"name": "x", "disabled": True}, "json.disabled"),
    ({"name": "x", "key": "bt_mine"}, "json.key"),
]


def test_values_beyond_the_limits_are_refused(alice: Person, subtests: pytest.Subtests) -> None:
    for body, fault in BEYOND_LIMITS:
        with subtests.test(body=body):
            assert_problem(alice.post("/v1/api-keys", body), 422, "validation_error", fault)
            assert names(alice) == []


NO_SCOPES = ["", "a", "a:", ":b", "*", "*:b", "a:**", "a:b:c", "A:b", "a:B", "1a:b", "a:1b"]
NO_SCOPES += ["-a:b", "a:_b", "a.b:c", "a:b.c", "a/b:c", "ä:b", "a:ä", "a:b,c:d"]
NO_SCOPES += ["a b:c", " a:b", "a:b ", f"a{'x' * 32}:b", f"a:b{'x' * 32}"]


def test_a_scope_is_an_area_and_an_act(alice: Person, subtests: pytest.Subtests) -> None:
    for scope in NO_SCOPES:
        with subtests.test(scope=scope):
            refused = alice.post("/v1/api-keys", {"name": "x", "scopes": ["a:b", scope]})
            assert_problem(refused, 422, "validation_error", "json.scopes")


def test_the_input_is_checked_before_the_owner(root: Person, alice: Person) -> None:
    for owner in (alice.id, "0192d3a4-8888-7d8e-9f01-23456789abcd"):
        wanted = {"name": "x", "owner_id": owner, "expires_at": "2020-01-01T00:00:00Z"}
        refused = root.post("/v1/api-keys", wanted)
        assert_problem(refused, 422, "validation_error", "json.expires_at")


def test_a_key_without_days_never_expires(alice: Person) -> None:
    assert alice.new_key(expires_in_days=None)["expires_at"] is None


@pytest.mark.parametrize("days", [1, 3650])
def test_days_count_from_the_creation(alice: Person, days: int) -> None:
    key = alice.new_key(expires_in_days=days)
    created, expires = (datetime.fromisoformat(key[at]) for at in ("created_at", "expires_at"))
    assert abs(expires - created - timedelta(days=days)) < timedelta(seconds=1)


TIMES = [
    ("2999-01-01T00:00:00Z", "2999-01-01T00:00:00Z"),
    ("2999-01-01t00:00:00z", "2999-01-01T00:00:00Z"),
    ("2999-01-01T01:30:00+02:00", "2998-12-31T23:30:00Z"),
    ("2998-12-31T19:00:00-05:00", "2999-01-01T00:00:00Z"),
    ("2999-01-01T00:00:00.25Z", "2999-01-01T00:00:00.250000Z"),
    ("2999-01-01T00:00:00.123456789Z", "2999-01-01T00:00:00.123456Z"),
    ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z"),
    ("9999-12-31T23:59:59+23:59", "9999-12-31T00:00:59Z"),
]


def test_an_expiry_is_any_rfc_3339_time_and_shown_in_utc(
    alice: Person, subtests: pytest.Subtests
) -> None:
    for sent, kept in TIMES:
        with subtests.test(sent=sent):
            key = alice.new_key(expires_at=sent)
            assert key["expires_at"] == kept
            assert key["status"] == "active"
            assert alice.get(path_of(key)).json["expires_at"] == kept
            assert alice.patch(path_of(key), {"expires_at": sent}).json["expires_at"] == kept
            assert status_by(alice.client, key) == 200


NO_TIMES = [
    "2999-01-01T00:00:00",
    "2999-01-01",
    "2999-01-01 00:00:00Z",
    "2999-01-01T00:00Z",
    "2999-01-01T00:00:00 Z",
    "2999-01-01T00:00:00,5Z",
    "2999-01-01T00:00:00+0100",
    "2999-01-01T00:00:00+24:00",
    "2999-01-01T25:00:00Z",
    "2999-02-30T00:00:00Z",
    "2999-W01-1T00:00:00Z",
    "+12999-01-01T00:00:00Z",
    "\u0662999-01-01T00:00:00Z",
    "9999-12-31T23:59:59-00:01",
    "0001-01-01T00:00:00+00:01",
    "0000-01-01T00:00:00Z",
    "tomorrow",
    "",
    32503680000,
    True,
    ["2999-01-01T00:00:00Z"],
    "1999-01-01T00:00:00Z",  # well formed, and past
    "0001-01-01T00:00:00Z",
]


def test_other_times_and_past_ones_are_refused(alice: Person, subtests: pytest.Subtests) -> None:
    for sent in NO_TIMES:
        with subtests.test(sent=sent):
            refused = alice.post("/v1/api-keys", {"name": "x", "expires_at": sent})
            assert_problem(refused, 422, "validation_error", "json.expires_at")
            key = alice.new_key()
            refused = alice.patch(path_of(key), {"expires_at": sent})
            assert_problem(refused, 422, "validation_error", "json.expires_at")
            assert alice.get(path_of(key)).json["expires_at"] is None


def test_scopes_are_a_set(alice: Person) -> None:
    key = alice.new_key(scopes=["b:x", "a:x", "b:x"])
    assert sorted(key["scopes"]) == ["a:x", "b:x"]


# --- the limit ---


def test_keys_beyond_the_limit_are_refused_until_one_is_revoked_or_deleted(
    make_app: Callable[..., Flask],
) -> None:
    client = client_of(make_app(max_keys_per_user=2))
    for username in ("alice", "bob"):
        add_user(client, username)
    alice, bob = sign_in(client, "alice"), sign_in(client, "bob")
    first, second = alice.new_key(), alice.new_key()
    assert_problem(alice.post("/v1/api-keys", {"name": "x"}), 409, "limit_reached")
    bob.new_key()
    alice.patch(path_of(first), {"disabled": True})
    assert_problem(alice.post("/v1/api-keys", {"name": "x"}), 409, "limit_reached")
    alice.post(f"{path_of(first)}/revoke")
    alice.new_key()
    assert_problem(alice.post("/v1/api-keys", {"name": "x"}), 409, "limit_reached")
    alice.delete(path_of(second))
    alice.new_key()
    assert_problem(alice.post("/v1/api-keys", {"name": "x"}), 409, "limit_reached")


# --- listing ---


def test_keys_are_listed_page_by_page_newest_first(alice: Person) -> None:
    for number in range(5):
        alice.new_key(name=f"key {number}")
    first = alice.get("/v1/api-keys?limit=2").json
    second = alice.get(f"/v1/api-keys?limit=2&cursor={first['next']}").json
    third = alice.get(f"/v1/api-keys?limit=2&cursor={second['next']}").json
    shown = [[key["name"] for key in page["items"]] for page in (first, second, third)]
    assert shown == [["key 4", "key 3"], ["key 2", "key 1"], ["key 0"]]
    assert third["next"] is None
    assert alice.get("/v1/api-keys?limit=5").json["next"] is None
    assert set(first["items"][0]) >= FIELDS


def test_a_cursor_outlives_its_row_and_skips_what_came_later(alice: Person) -> None:
    for number in range(4):
        alice.new_key(name=f"key {number}")
    page = alice.get("/v1/api-keys?limit=2").json
    for key in page["items"]:
        alice.delete(path_of(key))
    alice.new_key(name="later")
    assert names(alice, f"?cursor={page['next']}") == ["key 1", "key 0"]


def test_a_page_holds_50_by_default_and_at_most_100(alice: Person) -> None:
    for _ in range(51):
        alice.new_key()
    assert len(names(alice)) == 50
    assert len(names(alice, "?limit=100")) == 51


BAD_QUERIES = [
    ("limit=0", "limit"),
    ("limit=101", "limit"),
    ("limit=-1", "limit"),
    ("limit=", "limit"),
    ("limit=1.0", "limit"),
    ("limit=%201", "limit"),
    ("limit=1&limit=1", "limit"),
    (f"limit={'9' * 30}", "limit"),
    ("cursor=", "cursor"),
    ("cursor=x", "cursor"),
    (f"cursor={'A' * 21}", "cursor"),
    (f"cursor={'A' * 21}B", "cursor"),  # spare bits set
    (f"cursor={'A' * 22}==", "cursor"),
    ("cursor=0192d3a4-8888-7d8e-9f01-23456789abcd", "cursor"),
    ("cursor=%C3%A9", "cursor"),
    ("status=gone", "status"),
    ("status=", "status"),
    ("search=", "search"),
    ("search=%00", "search"),
    (f"search={'x' * 101}", "search"),
    ("owner_id=me", "owner_id"),
    ("owner_id=0192D3A4-8888-7D8E-9F01-23456789ABCD", "owner_id"),
    ("order=name", "order"),
]


def test_a_bad_query_is_refused(root: Person, subtests: pytest.Subtests) -> None:
    for query, fault in BAD_QUERIES:
        with subtests.test(query=query):
            refused = root.get(f"/v1/api-keys?{query}")
            assert_problem(refused, 422, "validation_error", f"query.{fault}")


def test_keys_are_filtered_by_their_one_status(alice: Person, travel: Callable[..., None]) -> None:
    """Revoked outweighs disabled, and disabled outweighs expired."""
    states = {
        "plain": "active",
        "dated": "active",
        "late": "expired",
        "off": "disabled",
        "off late": "disabled",
        "gone": "revoked",
        "gone off late": "revoked",
    }
    for name in states:
        days = {"expires_in_days": 1} if "late" in name else {}
        days = {"expires_in_days": 9} if name == "dated" else days
        key = alice.new_key(name=name, **days)
        if "off" in name:
            alice.patch(path_of(key), {"disabled": True})
        if "gone" in name:
            alice.post(f"{path_of(key)}/revoke")
    travel(days=1, seconds=1)
    alice = alice.again()
    items = alice.get("/v1/api-keys").json["items"]
    assert {key["name"]: key["status"] for key in items} == states
    for status in ("active", "disabled", "expired", "revoked"):
        wanted = {name for name, state in states.items() if state == status}
        assert set(names(alice, f"?status={status}")) == wanted


def test_search_is_literal_and_looks_into_names_and_descriptions(alice: Person) -> None:
    for name in ("100%", "1000", "a_b", "axb", "back\\slash", "it's"):
        alice.new_key(name=name)
    alice.new_key(name="plain", description="Nightly BACKUP of 100% of it")
    assert names(alice, "?search=100%25") == ["plain", "100%"]
    assert names(alice, "?search=a_b") == ["a_b"]
    assert names(alice, "?search=_") == ["a_b"]
    assert names(alice, "?search=%5C") == ["back\\slash"]
    assert names(alice, "?search=t's") == ["it's"]
    assert names(alice, "?search=backup") == ["plain"]
    assert names(alice, "?search=LAI") == ["plain"]
    assert names(alice, "?search=nothing") == []


def test_search_ignores_case_in_every_script_on_both_databases(alice: Person) -> None:
    for name in ("Café", "ПРОЕКТ", "Ωμέγα", "日本語", "İzmir 100%", "plain"):
        alice.new_key(name=name, description=f"key of {name}")
    alice.new_key(name="none")
    for text, found in {
        "CAFÉ": ["Café"],
        "café": ["Café"],
        "É": ["Café"],
        "проект": ["ПРОЕКТ"],
        "ΩΜΈ": ["Ωμέγα"],
        "本": ["日本語"],
        "É%": [],
        "_É": [],
        "cafe": [],
        "KEY OF П": ["ПРОЕКТ"],
    }.items():
        assert names(alice, f"?search={quote(text)}") == found, text


def test_filters_add_up_and_pages_keep_to_them(alice: Person) -> None:
    for name in ("web 1", "job 1", "web 2", "web 3", "job 2"):
        key = alice.new_key(name=name)
        if name == "web 2":
            alice.post(f"{path_of(key)}/revoke")
    page = alice.get("/v1/api-keys?search=web&status=active&limit=1").json
    assert [key["name"] for key in page["items"]] == ["web 3"]
    query = f"?search=web&status=active&limit=1&cursor={page['next']}"
    assert names(alice, query) == ["web 1"]


def test_only_an_admins_session_lists_the_keys_of_others(
    client: FlaskClient, alice: Person, bob: Person, root: Person
) -> None:
    alice.new_key(name="alice's")
    bob.new_key(name="bob's")
    root.new_key(name="root's")
    assert names(alice) == ["alice's"]
    assert names(root) == ["root's"]
    assert names(root, f"?owner_id={alice.id}") == ["alice's"]
    assert names(root, "?owner_id=any") == ["root's", "bob's", "alice's"]
    assert names(root, "?owner_id=0192d3a4-8888-7d8e-9f01-23456789abcd") == []
    wide = root.with_key(root.new_key(scopes=["keys:*", "users:*"]))
    for person in (alice, wide):
        for owner in (bob.id, "any", "0192d3a4-8888-7d8e-9f01-23456789abcd"):
            refused = person.get(f"/v1/api-keys?owner_id={owner}")
            assert_problem(refused, 403, "forbidden")


# --- changing ---


def test_a_change_affects_only_what_is_sent(alice: Person, travel: Callable[..., None]) -> None:
    before = alice.new_key(name="old", description="old", scopes=["a:x"], expires_in_days=9)
    del before["key"]
    travel(seconds=5)
    changes = {
        "name": "new",
        "description": "new",
        "scopes": ["b:x"],
        "expires_at": "2999-01-01T00:00:00Z",
        "disabled": True,
    }
    for name, value in changes.items():
        response = alice.patch(path_of(before), {name: value})
        assert response.status_code == 200
        after = response.json
        assert after == alice.get(path_of(before)).json
        assert after["updated_at"] > before["updated_at"]
        updated = {"updated_at": after["updated_at"], "status": after["status"]}
        assert after == before | {name: value} | updated
        before = after
    assert after["status"] == "disabled"


def test_null_clears_description_and_expiry(alice: Person) -> None:
    key = alice.new_key(description="old", expires_in_days=1)
    response = alice.patch(path_of(key), {"description": None, "expires_at": None})
    assert response.status_code == 200
    kept = alice.get(path_of(key)).json
    assert (kept["description"], kept["expires_at"]) == (None, None)


BAD_CHANGES = [
    ({"name": None}, "name"),
    ({"name": ""}, "name"),
    ({"scopes": None}, "scopes"),
    ({"scopes": ["a"]}, "scopes"),
    ({"disabled": None}, "disabled"),
    ({"disabled": "yes"}, "disabled"),
    ({"disabled": 1}, "disabled"),
    ({"expires_in_days": 1}, "expires_in_days"),
    ({"status": "active"}, "status"),
    ({"owner_id": "0192d3a4-8888-7d8e-9f01-23456789abcd"}, "owner_id"),
    ({"revoked_at": None}, "revoked_at"),
]


def test_a_change_has_the_same_limits(alice: Person, subtests: pytest.Subtests) -> None:
    for changes, fault in BAD_CHANGES:
        with subtests.test(changes=changes):
            key = alice.new_key()
            refused = alice.patch(path_of(key), {"description": "never stored", **changes})
            assert_problem(refused, 422, "validation_error", f"json.{fault}")
            assert alice.get(path_of(key)).json["description"] is None


def test_a_disabled_key_is_refused_until_it_is_enabled(client: FlaskClient, alice: Person) -> None:
    key = alice.new_key()
    assert alice.patch(path_of(key), {"disabled": True}).json["status"] == "disabled"
    assert status_by(client, key) == 401
    assert alice.patch(path_of(key), {"disabled": False}).json["status"] == "active"
    assert status_by(client, key) == 200


def test_an_expired_key_lives_again_with_a_later_expiry(
    client: FlaskClient, alice: Person, travel: Callable[..., None]
) -> None:
    key = alice.new_key(expires_in_days=1)
    travel(days=1, seconds=1)
    alice = alice.again()
    assert alice.patch(path_of(key), {"name": "late"}).json["status"] == "expired"
    assert status_by(client, key) == 401
    assert alice.patch(path_of(key), {"expires_at": None}).json["status"] == "active"
    assert status_by(client, key) == 200


# --- revoking and deleting ---


def test_revoking_is_final_and_may_be_repeated(
    client: FlaskClient, alice: Person, travel: Callable[..., None]
) -> None:
    key = alice.new_key()
    first = alice.post(f"{path_of(key)}/revoke")
    assert first.status_code == 200
    assert first.json["status"] == "revoked"
    assert status_by(client, key) == 401
    travel(seconds=5)
    again = alice.post(f"{path_of(key)}/revoke")
    assert (again.status_code, again.json) == (200, first.json)
    for changes in ({"disabled": False}, {"name": "other"}, {"expires_at": None}, {}):
        assert_problem(alice.patch(path_of(key), changes), 409, "conflict")
    assert alice.get(path_of(key)).json == first.json


def test_a_deleted_key_is_gone(client: FlaskClient, alice: Person) -> None:
    key, other = alice.new_key(name="gone"), alice.new_key(name="other")
    response = alice.delete(path_of(key))
    assert (response.status_code, response.data) == (204, b"")
    assert status_by(client, key) == 401
    assert names(alice) == ["other"]
    assert_problem(alice.get(path_of(key)), 404, "not_found")
    assert_problem(alice.patch(path_of(key), {}), 404, "not_found")
    assert_problem(alice.delete(path_of(key)), 404, "not_found")
    assert_problem(alice.post(f"{path_of(key)}/revoke"), 404, "not_found")
    assert alice.post(f"{path_of(other)}/revoke").status_code == 200
    assert alice.delete(path_of(other)).status_code == 204


def test_deleting_an_account_deletes_its_keys(
    client: FlaskClient, alice: Person, root: Person
) -> None:
    key = alice.new_key()
    assert root.delete(f"/v1/users/{alice.id}").status_code == 204
    assert status_by(client, key) == 401
    assert_problem(root.get(path_of(key)), 404, "not_found")
    assert names(root, "?owner_id=any") == []


def test_whoever_holds_a_key_can_revoke_it(
    client: FlaskClient, alice: Person, bob: Person, travel: Callable[..., None]
) -> None:
    keys = [alice.new_key(expires_in_days=1) for _ in range(3)]
    alice.patch(path_of(keys[1]), {"disabled": True})
    headers = [{}, bob.headers, {"Authorization": "Bearer garbage", "X-API-Key": "other garbage"}]
    for number, key in enumerate(keys):
        if number == 2:
            travel(days=1, seconds=1)  # an expired one could be prolonged
        for _ in range(2):
            sent = {"key": key["key"]}
            response = client.post("/v1/api-keys/revoke", json=sent, headers=headers[number])
            assert (response.status_code, response.data) == (204, b"")
        assert alice.again().get(path_of(key)).json["status"] == "revoked"
        assert status_by(client, key) == 401


def test_revoking_by_possession_never_reveals_whether_a_key_exists(
    client: FlaskClient, alice: Person
) -> None:
    kept, gone = alice.new_key(), alice.new_key()
    alice.delete(path_of(gone))
    last = "0" if kept["key"][-1] != "0" else "1"
    texts = [gone["key"], kept["key"][:-1] + last, kept["id"], kept["hint"], alice.access_token]
    texts += ["x", " ", f" {kept['key']}", "é" * 512, "%", "' OR 1=1 --", "\U0010ffff"]
    for text in texts:
        response = client.post("/v1/api-keys/revoke", json={"key": text})
        assert (response.status_code, response.data) == (204, b"")
    assert status_by(client, kept) == 200


NO_TEXTS = [{}, {"key": None}, {"key": 1}, {"key": "a\0"}, {"token": "x"}]


def test_revoking_by_possession_requires_a_text(
    client: FlaskClient, subtests: pytest.Subtests
) -> None:
    for body in NO_TEXTS:
        with subtests.test(body=body):
            response = client.post("/v1/api-keys/revoke", json=body)
            assert (response.status_code, response.json["code"]) == (422, "validation_error")


# --- other people's keys ---


def test_the_keys_of_others_are_not_found(
    client: FlaskClient, alice: Person, bob: Person, root: Person
) -> None:
    key = alice.new_key(name="alice's")
    admin_by_key = root.with_key(root.new_key(scopes=["keys:*", "users:*"]))
    for person in (bob, bob.with_key(bob.new_key(scopes=["keys:read", "keys:write"]))):
        unknown = person.get(NO_SUCH)
        others = person.get(path_of(key))
        assert others.json | {"request_id": ""} == unknown.json | {"request_id": ""}
    for person in (bob, admin_by_key):
        assert_problem(person.get(path_of(key)), 404, "not_found")
        assert_problem(person.patch(path_of(key), {"name": "bob's"}), 404, "not_found")
        assert_problem(person.post(f"{path_of(key)}/revoke"), 404, "not_found")
        assert_problem(person.delete(path_of(key)), 404, "not_found")
    assert alice.get(path_of(key)).json["name"] == "alice's"
    assert status_by(client, key) == 200


def test_an_admins_session_manages_the_keys_of_others(
    client: FlaskClient, alice: Person, root: Person
) -> None:
    key, other = alice.new_key(), alice.new_key()
    assert root.get(path_of(key)).json["owner_id"] == alice.id
    changed = root.patch(path_of(key), {"name": "seen", "scopes": ["a:x"], "disabled": True})
    assert changed.status_code == 200
    assert changed.json["owner_id"] == alice.id
    assert alice.get(path_of(key)).json == changed.json
    assert status_by(client, key) == 401
    assert root.post(f"{path_of(key)}/revoke").json["status"] == "revoked"
    assert_problem(root.patch(path_of(key), {"name": "x"}), 409, "conflict")
    assert root.delete(path_of(other)).status_code == 204
    assert status_by(client, other) == 401


OTHER_PATHS = [
    "/v1/api-keys/",
    f"{NO_SUCH}/",
    f"{NO_SUCH}/revoke/",
    NO_SUCH.upper().replace("/V1/API-KEYS", "/v1/api-keys"),
    NO_SUCH.replace("-8888-", "8888"),
    NO_SUCH[:-1],
    "/v1/api-keys/1",
    "/v1/api-keys/any",
]


def test_other_spellings_of_a_path_lead_nowhere(alice: Person, subtests: pytest.Subtests) -> None:
    for path in OTHER_PATHS:
        with subtests.test(path=path):
            assert_problem(alice.get(path), 404, "not_found")
            assert_problem(alice.post(path), 404, "not_found")
