"""Rate limits of keys: how they are set, what counts, and how they are reported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from .support.apps import client_of, url_of
from .support.concurrency import at_once, statuses
from .support.keys import codes, limit, me, path_of, verify
from .support.openapi import NOTHING
from .support.people import Person, add_user, sign_in
from .support.problems import assert_problem

Travel = Callable[..., None]


# --- what is set ---


def test_a_limit_is_stored_as_sent(alice: Person) -> None:
    assert alice.new_key()["rate_limit"] is None
    for wanted in (limit(1, 1), limit(100, 60), limit(1_000_000, 86_400)):
        key = alice.new_key(rate_limit=wanted)
        assert key["rate_limit"] == wanted
        assert alice.get(path_of(key)).json["rate_limit"] == wanted
    assert alice.patch(path_of(key), {"name": "new"}).json["rate_limit"] == wanted
    assert alice.patch(path_of(key), {"rate_limit": limit(5)}).json["rate_limit"] == limit(5)
    assert alice.patch(path_of(key), {"rate_limit": {}}).json["rate_limit"] == limit(5)
    assert alice.patch(path_of(key), {"rate_limit": {"limit": 6}}).json["rate_limit"] == limit(6)
    window = {"window_seconds": 9}
    assert alice.patch(path_of(key), {"rate_limit": window}).json["rate_limit"] == limit(6, 9)
    assert alice.patch(path_of(key), {"rate_limit": None}).json["rate_limit"] is None
    assert alice.get(path_of(key)).json["rate_limit"] is None


# What is a part of a limit: of that which a key has, if it has one.
PARTS: list[Any] = [{"limit": 5}, {"window_seconds": 60}, {}]
NO_LIMITS: list[Any] = [
    limit(0),
    limit(-1),
    limit(1_000_001),
    limit(10**300),
    limit(5, 0),
    limit(5, -60),
    limit(5, 86_401),
    {"limit": None, "window_seconds": 60},
    {"limit": 5.0, "window_seconds": 60},
    {"limit": "5", "window_seconds": 60},
    {"limit": True, "window_seconds": 60},
    {**limit(5), "burst": 3},
    [],
    5,
    "5/60",
    False,
]


def test_invalid_limits_are_refused(alice: Person) -> None:
    key = alice.new_key(rate_limit=limit(7))
    for wanted in NO_LIMITS:
        for answer in (
            alice.post("/v1/api-keys", {"name": "x", "rate_limit": wanted}),
            alice.patch(path_of(key), {"rate_limit": wanted}),
        ):
            assert_problem(answer, 422, "validation_error", "json.rate_limit")
    assert alice.get(path_of(key)).json["rate_limit"] == limit(7)
    free = alice.new_key()
    for part in PARTS:
        for answer in (
            alice.post("/v1/api-keys", {"name": "x", "rate_limit": part}),
            alice.patch(path_of(free), {"rate_limit": part}),
        ):
            assert_problem(answer, 422, "validation_error", "json.rate_limit")


# --- what counts ---


def test_exactly_as_many_pass_as_the_limit_says(
    client: FlaskClient, root: Person, alice: Person, travel: Travel
) -> None:
    key = alice.new_key(rate_limit=limit(5, 60))
    assert codes(root, key, 8) == {"valid": 5, "rate_limited": 3}
    assert me(client, key).status_code == 429
    travel(seconds=90)
    assert codes(root, key, 8) == {"valid": 2, "rate_limited": 6}
    travel(seconds=120)
    assert [me(client, key).status_code for _ in range(6)] == [200] * 5 + [429]


def test_parallel_uses_through_several_doors_count_for_one_limit(
    client: FlaskClient, root: Person, alice: Person
) -> None:
    key = alice.new_key(rate_limit=limit(10))
    asked = {"key": key["key"]}
    answers = at_once(
        *[lambda: me(client, key)] * 16,
        *[lambda: root.post("/v1/api-keys/verify", asked)] * 16,
    )
    passed = statuses(answers[:16]).get(200, 0)
    passed += sum(answer.json["valid"] for answer in answers[16:])
    assert passed == 10


def test_denials_and_reads_do_not_count_as_uses(
    client: FlaskClient, root: Person, alice: Person
) -> None:
    key = alice.new_key(rate_limit=limit(2), scopes=["a:b"], allowed_ips=["192.0.2.0/24"])
    text, ip = key["key"], "192.0.2.1"
    assert verify(root, text)["code"] == "ip_not_allowed"
    assert verify(root, text, ip=ip, scopes=["a:c"])["code"] == "insufficient_scope"
    for asked in ({"cost": 0}, {"explain": True}):
        answer = verify(root, text, ip=ip, **asked)
        assert answer["rate_limit"] == {"limit": 2, "remaining": 2, "reset_seconds": 3600}
    alice.post(f"{path_of(key)}/explain", {"ip": ip})
    assert me(client, key).status_code == 403
    assert codes(root, key, 3, ip=ip) == {"valid": 2, "rate_limited": 1}
    for asked in ({"cost": 0}, {"explain": True}):
        assert verify(root, text, ip=ip, **asked)["code"] == "rate_limited"


def test_routes_closed_to_keys_do_not_count_as_uses(client: FlaskClient, alice: Person) -> None:
    key = alice.new_key(rate_limit=limit(1))
    holder = alice.with_key(key)
    for _ in range(2):
        refused = holder.post("/v1/auth/logout")
        assert_problem(refused, 403, "session_required")
        assert refused.headers["RateLimit"] == '"key";r=1;t=3600'
    assert holder.get("/v1/auth/me").status_code == 200
    assert_problem(holder.post("/v1/auth/logout"), 403, "session_required")


def test_earlier_uses_count_when_the_limit_is_changed(root: Person, alice: Person) -> None:
    key = alice.new_key(rate_limit=limit(3))
    assert codes(root, key, 4) == {"valid": 3, "rate_limited": 1}
    alice.patch(path_of(key), {"rate_limit": limit(5)})
    assert codes(root, key, 4) == {"valid": 2, "rate_limited": 2}
    alice.patch(path_of(key), {"rate_limit": limit(2)})
    assert codes(root, key, 1) == {"rate_limited": 1}
    alice.patch(path_of(key), {"rate_limit": None})
    assert codes(root, key, 9) == {"valid": 9}
    assert "rate_limit" not in verify(root, key["key"])


def test_a_key_without_a_limit_has_the_one_of_the_settings(
    make_app: Callable[..., Flask],
) -> None:
    client = client_of(make_app(rate_limit_default="3/60"))
    add_user(client, "root", role="admin")
    root = sign_in(client, "root")
    key = root.new_key()
    assert key["rate_limit"] is None
    assert verify(root, key["key"])["rate_limit"]["limit"] == 3
    assert codes(root, key, 3) == {"valid": 2, "rate_limited": 1}
    root.patch(path_of(key), {"rate_limit": limit(5)})
    assert codes(root, key, 6) == {"valid": 5, "rate_limited": 1}
    asker = root.with_key(root.new_key(scopes=["keys:verify"], rate_limit=limit(50)))
    assert verify(asker, root.new_key(rate_limit=limit(4))["key"])["rate_limit"]["remaining"] == 3


def test_sessions_have_no_limit(make_app: Callable[..., Flask]) -> None:
    client = client_of(make_app(rate_limit_default="1/60"))
    add_user(client, "alice")
    alice = sign_in(client, "alice")
    answers = [alice.get("/v1/auth/me") for _ in range(3)]
    assert statuses(answers) == {200: 3}
    assert not any("RateLimit" in answer.headers for answer in answers)


# --- what is told ---


def test_every_answer_to_a_limited_key_reports_the_state_of_the_limit(
    client: FlaskClient, alice: Person, travel: Travel
) -> None:
    key = alice.new_key(scopes=["keys:read"], rate_limit=limit(6, 60))
    holder = alice.with_key(key)
    answers = [
        (holder.get("/v1/auth/me"), 200, 5),
        (holder.get("/v1/api-keys?limit=0"), 422, 4),
        (holder.get(f"/v1/api-keys/{NOTHING}"), 404, 3),
        (holder.post("/v1/api-keys", {"name": "x"}), 403, 3),
        (holder.delete(f"/v1/users/{NOTHING}"), 403, 3),
        (holder.post("/v1/auth/logout-all"), 403, 3),
        (client.head("/v1/auth/me", headers=holder.headers), 200, 2),
        (holder.get("/v1/api-keys"), 200, 1),
        (holder.get("/v1/api-keys"), 200, 0),
        (holder.get("/v1/api-keys"), 429, 0),
    ]
    for answer, status, left in answers:
        assert answer.status_code == status
        assert answer.headers.getlist("RateLimit-Policy") == ['"key";q=6;w=60']
        [stands] = answer.headers.getlist("RateLimit")
        assert stands.startswith(f'"key";r={left};t='), (status, stands)


def test_an_unlimited_or_invalid_key_gets_no_rate_headers(
    client: FlaskClient, alice: Person
) -> None:
    free, revoked = alice.new_key(), alice.new_key(rate_limit=limit(5))
    alice.post(f"{path_of(revoked)}/revoke")
    answers = [me(client, free), me(client, revoked), me(client, {"key": "garbage"})]
    assert [answer.status_code for answer in answers] == [200, 401, 401]
    for answer in answers:
        assert not {"RateLimit", "RateLimit-Policy", "Retry-After"} & set(answer.headers.keys())


def test_a_reached_limit_says_when_to_retry(
    client: FlaskClient, alice: Person, travel: Travel
) -> None:
    key = alice.new_key(rate_limit=limit(2, 60))
    assert statuses([me(client, key) for _ in range(2)]) == {200: 2}
    refused = me(client, key)
    assert_problem(refused, 429, "rate_limited")
    wait = int(refused.headers["Retry-After"])
    assert 60 < wait <= 90
    assert refused.headers["RateLimit"] == f'"key";r=0;t={wait}'
    assert "WWW-Authenticate" not in refused.headers
    travel(seconds=wait - 2)
    assert me(client, key).status_code == 429
    travel(seconds=2)
    assert me(client, key).status_code == 200


@pytest.mark.parametrize(("most", "longest"), [(1, 120), (2, 90), (3, 80), (60, 61)])
def test_the_next_use_passes_once_retry_after_is_over_and_no_sooner(
    client: FlaskClient, alice: Person, travel: Travel, most: int, longest: int
) -> None:
    key = alice.new_key(rate_limit=limit(most, 60))
    assert statuses([me(client, key) for _ in range(most)]) == {200: most}
    for number in range(4):
        refused = me(client, key)
        wait = int(refused.headers["Retry-After"])
        assert refused.headers["RateLimit"].endswith(f"t={wait}")
        if not number:
            assert longest - 2 < wait <= longest
        travel(seconds=wait - 1.5)
        assert me(client, key).status_code == 429
        travel(seconds=1.5)
        assert me(client, key).status_code == 200
        while me(client, key).status_code == 200:
            pass


def test_verifying_reports_the_state_of_the_limit(root: Person, alice: Person) -> None:
    key = alice.new_key(rate_limit=limit(2))
    told = [verify(root, key["key"])["rate_limit"] for _ in range(3)]
    assert told[:2] == [
        {"limit": 2, "remaining": 1, "reset_seconds": 3600},
        {"limit": 2, "remaining": 0, "reset_seconds": 3600},
    ]
    assert (told[2]["limit"], told[2]["remaining"]) == (2, 0)
    assert 3600 < told[2]["reset_seconds"] <= 5400
    explained = verify(root, key["key"], explain=True)
    assert (explained["valid"], explained["code"]) == (False, "rate_limited")
    assert explained["checks"][-2:] == [
        {"code": "rate_limited", "passed": False},
        {"code": "usage_exceeded", "passed": True},
    ]


# --- several processes ---


def test_two_processes_count_together_in_redis_and_separately_without_it(
    make_app: Callable[..., Flask], redis_url: str
) -> None:
    first = make_app(redis_url=redis_url)
    client = client_of(first)
    add_user(client, "alice")
    key = sign_in(client, "alice").new_key(rate_limit=limit(10, 60))
    second = client_of(make_app(database_url=url_of(first), redis_url=redis_url))
    answers = at_once(*[lambda: me(client, key)] * 16, *[lambda: me(second, key)] * 16)
    assert statuses(answers) == {200: 10, 429: 22}
    alone = client_of(make_app(database_url=url_of(first)))
    assert statuses([me(alone, key) for _ in range(12)]) == {200: 10, 429: 2}


# --- keys that manage keys ---


@pytest.mark.parametrize(
    ("own", "wanted", "allowed"),
    [
        (limit(100, 60), limit(100, 60), True),
        (limit(100, 60), limit(99, 60), True),
        (limit(100, 60), limit(100, 3600), True),
        (limit(100, 60), limit(50, 30), True),
        (limit(100, 60), limit(101, 60), False),
        (limit(100, 60), limit(101, 3600), False),
        (limit(100, 60), limit(51, 30), False),
        (limit(100, 60), limit(2, 1), False),
        (limit(100, 60), limit(1, 1), True),
        (limit(100, 60), None, False),
        (None, limit(1_000_000, 1), True),
        (None, None, True),
    ],
)
def test_a_key_cannot_give_a_higher_limit_than_its_own(
    alice: Person, own: dict[str, int] | None, wanted: dict[str, int] | None, allowed: bool
) -> None:
    manager = alice.with_key(alice.new_key(scopes=["keys:write"], rate_limit=own))
    target = alice.new_key(rate_limit=limit(1, 86_400))
    answers = [
        manager.post("/v1/api-keys", {"name": "x", "rate_limit": wanted}),
        manager.patch(path_of(target), {"rate_limit": wanted}),
    ]
    if allowed:
        assert [answer.status_code for answer in answers] == [201, 200]
        assert all(answer.json["rate_limit"] == wanted for answer in answers)
    else:
        for answer in answers:
            assert_problem(answer, 403, "insufficient_scope")
        assert alice.get(path_of(target)).json["rate_limit"] == limit(1, 86_400)
        assert len(alice.get("/v1/api-keys").json["items"]) == 2


def test_a_key_cannot_change_or_rotate_a_key_with_a_higher_limit(alice: Person) -> None:
    manager = alice.with_key(alice.new_key(scopes=["keys:write"], rate_limit=limit(100, 60)))
    wider = alice.new_key(rate_limit=limit(200, 60))
    assert_problem(manager.patch(path_of(wider), {"name": "x"}), 403, "insufficient_scope")
    assert_problem(manager.post(f"{path_of(wider)}/rotate"), 403, "insufficient_scope")
    assert manager.patch(path_of(wider), {"rate_limit": limit(9, 60)}).status_code == 200
    assert manager.post(f"{path_of(wider)}/rotate").status_code == 200


def test_the_default_limit_limits_what_a_key_can_give(make_app: Callable[..., Flask]) -> None:
    client = client_of(make_app(rate_limit_default="50/60"))
    add_user(client, "alice")
    alice = sign_in(client, "alice")
    low = alice.with_key(alice.new_key(scopes=["keys:write"], rate_limit=limit(10, 60)))
    refused = low.post("/v1/api-keys", {"name": "x"})
    assert_problem(refused, 403, "insufficient_scope")
    plain = alice.with_key(alice.new_key(scopes=["keys:write"]))
    assert plain.post("/v1/api-keys", {"name": "x"}).status_code == 201
    refused = plain.post("/v1/api-keys", {"name": "x", "rate_limit": limit(51, 60)})
    assert_problem(refused, 403, "insufficient_scope")
