"""What an owner may not exceed or lift: RATE_LIMIT_MAX, and what an administrator has set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from .support.apps import client_of, url_of
from .support.keys import codes, limit, path_of, quota, verify
from .support.people import Person, add_user, sign_in
from .support.problems import assert_problem

# --- RATE_LIMIT_MAX ---


@pytest.fixture
def bounded(make_app: Callable[..., Flask]) -> tuple[Person, Person]:
    """Alice and Root where RATE_LIMIT_MAX is 6/60."""
    client = client_of(make_app(rate_limit_max="6/60"))
    add_user(client, "alice")
    add_user(client, "root", role="admin")
    return sign_in(client, "alice"), sign_in(client, "root")


@pytest.mark.parametrize(
    ("wanted", "allowed"),
    [
        (limit(6, 60), True),
        (limit(6, 3600), True),
        (limit(3, 30), True),
        (limit(1, 10), True),
        (limit(7, 60), False),
        (limit(7, 3600), False),
        (limit(6, 59), False),
        (limit(1, 9), False),
    ],
)
def test_an_owner_cannot_exceed_the_highest_limit_in_a_burst_or_over_time(
    bounded: tuple[Person, Person], wanted: dict[str, int], allowed: bool
) -> None:
    alice, root = bounded
    key = alice.new_key(scopes=["keys:write"])
    manager = alice.with_key(alice.new_key(scopes=["keys:write"]))
    for who in (alice, manager):
        answers = [
            who.post("/v1/api-keys", {"name": "x", "rate_limit": wanted}),
            who.patch(path_of(key), {"rate_limit": wanted}),
        ]
        if allowed:
            assert [answer.status_code for answer in answers] == [201, 200]
        else:
            for answer in answers:
                assert_problem(answer, 422, "validation_error", "json.rate_limit")
    answer = root.patch(path_of(key), {"rate_limit": wanted})
    assert answer.json["rate_limit"] == wanted


def test_at_use_the_stricter_of_the_keys_limit_and_the_highest_counts(
    bounded: tuple[Person, Person],
) -> None:
    alice, root = bounded
    free, lower = alice.new_key(), alice.new_key(rate_limit=limit(2))
    higher = root.new_key(rate_limit=limit(50, 60))  # an administrator may
    across = root.new_key(rate_limit=limit(60, 3600))
    assert higher["rate_limit"] == limit(50, 60)
    for key, passing, told in (
        (free, 6, limit(6, 60)),
        (lower, 2, limit(2)),
        (higher, 6, limit(6, 60)),
        (across, 6, limit(6, 360)),  # no more at once than 6, and 1 in 60 seconds
    ):
        assert codes(root, key, passing + 2) == {"valid": passing, "rate_limited": 2}
        assert verify(root, key["key"])["rate_limit"]["limit"] == told["limit"]
        refused = alice.client.get("/v1/auth/me", headers={"X-API-Key": key["key"]})
        policy = f'"key";q={told["limit"]};w={told["window_seconds"]}'
        assert refused.headers["RateLimit-Policy"] == policy


def test_a_key_with_a_higher_limit_from_before_keeps_it_until_it_is_changed(
    make_app: Callable[..., Flask],
) -> None:
    first = make_app()
    add_user(client_of(first), "alice")
    key = sign_in(client_of(first), "alice").new_key(rate_limit=limit(50, 60))
    alice = sign_in(client_of(make_app(database_url=url_of(first), rate_limit_max="6/60")), "alice")
    assert alice.patch(path_of(key), {"name": "new"}).json["rate_limit"] == limit(50, 60)
    refused = alice.patch(path_of(key), {"rate_limit": {"limit": 40}})
    assert_problem(refused, 422, "validation_error", "json.rate_limit")
    assert alice.patch(path_of(key), {"rate_limit": {"limit": 5}}).status_code == 200


def test_a_default_above_the_highest_limit_is_no_way_around_it(
    make_app: Callable[..., Flask],
) -> None:
    client = client_of(make_app(rate_limit_default="50/60", rate_limit_max="3/60"))
    add_user(client, "root", role="admin")
    root = sign_in(client, "root")
    assert codes(root, root.new_key(), 5) == {"valid": 3, "rate_limited": 2}
    manager = root.with_key(root.new_key(scopes=["keys:write"]))
    assert manager.post("/v1/api-keys", {"name": "x"}).status_code == 201


# --- what an administrator has set ---

WIDER: dict[str, list[Any]] = {
    "disabled": [False],
    "quota": [None, {"remaining": 6}, {"refill_amount": 11}, {"refill_interval": "daily"}],
    "rate_limit": [None, {"limit": 5}, {"window_seconds": 59}, limit(1, 1)],
    "allowed_ips": [[], ["192.0.2.0/23"], ["192.0.2.0/24", "198.51.100.1/32"]],
}
NARROWER: dict[str, list[Any]] = {
    "disabled": [True],
    "quota": [{}, {"remaining": 4}, {"refill_amount": 9}, quota(1)],
    "rate_limit": [{}, {"limit": 3}, {"window_seconds": 120}],
    "allowed_ips": [["192.0.2.0/24"], ["192.0.2.0/25", "192.0.2.200/32"]],
}
SET: dict[str, Any] = {
    "disabled": True,
    "quota": quota(5, 10, "monthly"),
    "rate_limit": limit(4, 60),
    "allowed_ips": ["192.0.2.0/24"],
}


@pytest.mark.parametrize("name", SET)
def test_an_owner_can_only_narrow_what_an_admin_has_set(
    alice: Person, root: Person, name: str
) -> None:
    key = alice.new_key()
    path = path_of(key)
    manager = alice.with_key(alice.new_key(scopes=["keys:read", "keys:write"]))
    assert key["locked_by_admin"] == []
    assert alice.patch(path, {name: SET[name]}).json["locked_by_admin"] == []
    locked = root.patch(path, {name: SET[name]}).json
    assert (locked[name], locked["locked_by_admin"]) == (SET[name], [name])
    for value in WIDER[name]:
        for who in (alice, manager):
            refused = who.patch(path, {"name": "new", name: value})
            assert_problem(refused, 403, "forbidden")
    kept = alice.get(path).json
    assert (kept[name], kept["name"]) == (SET[name], key["name"])
    for value in NARROWER[name]:
        answer = alice.patch(path, {name: value})
        assert answer.status_code == 200, (value, answer.text)
        assert answer.json["locked_by_admin"] == [name]
    others = {each: SET[each] for each in SET if each != name}
    assert alice.patch(path, {"name": "new", **others}).status_code == 200
    assert alice.patch(path, {each: lifted(each) for each in others}).status_code == 200
    assert root.patch(path, {name: lifted(name)}).json["locked_by_admin"] == []
    assert alice.patch(path, {name: SET[name]}).status_code == 200
    assert alice.patch(path, {name: lifted(name)}).status_code == 200


def lifted(name: str) -> Any:
    return {"disabled": False, "allowed_ips": []}.get(name)


def test_a_narrowed_lock_is_not_widened_again(alice: Person, root: Person) -> None:
    key = alice.new_key()
    root.patch(path_of(key), {"rate_limit": limit(10, 60)})
    assert alice.patch(path_of(key), {"rate_limit": {"limit": 5}}).status_code == 200
    assert_problem(alice.patch(path_of(key), {"rate_limit": {"limit": 10}}), 403, "forbidden")


def test_only_an_admin_rotates_or_enables_a_key_that_an_admin_disabled(
    alice: Person, root: Person
) -> None:
    key = alice.new_key()
    alice.patch(path_of(key), {"disabled": True})
    assert_problem(alice.post(f"{path_of(key)}/rotate"), 409, "conflict")
    root.patch(path_of(key), {"disabled": True})
    assert_problem(alice.post(f"{path_of(key)}/rotate"), 403, "forbidden")
    assert verify(root, key["key"])["code"] == "disabled"
    assert alice.post(f"{path_of(key)}/explain").json["code"] == "disabled"
    enabled = root.patch(path_of(key), {"disabled": False}).json
    assert (enabled["status"], enabled["locked_by_admin"]) == ("active", [])
    assert alice.post(f"{path_of(key)}/rotate").status_code == 200
    root.patch(path_of(key), {"disabled": True})
    assert alice.delete(path_of(key)).status_code == 204


def test_admins_lock_nothing_on_their_own_keys_and_lift_all_locks_at_once(
    alice: Person, root: Person
) -> None:
    own, key = root.new_key(), alice.new_key()
    assert root.patch(path_of(own), SET).json["locked_by_admin"] == []
    assert root.patch(path_of(own), {name: lifted(name) for name in SET}).status_code == 200
    assert root.patch(path_of(key), SET).json["locked_by_admin"] == sorted(SET)
    assert root.patch(path_of(key), {"name": "new"}).json["locked_by_admin"] == sorted(SET)
    [listed] = alice.get("/v1/api-keys").json["items"]
    assert listed["locked_by_admin"] == sorted(SET)
    answer = root.patch(path_of(key), {name: lifted(name) for name in SET})
    assert answer.json["locked_by_admin"] == []
    keyed = root.with_key(root.new_key(scopes=["keys:read", "keys:write"]))
    assert keyed.patch(path_of(own), {"disabled": True}).json["locked_by_admin"] == []
