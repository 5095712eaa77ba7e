"""Quotas of keys: what is spent and what is not, refills, and many uses at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from backend.core import clock

from .support.apps import client_of, statements, url_of
from .support.concurrency import at_once, behind_the_guard, statuses
from .support.keys import left, me, path_of, quota, verify
from .support.people import Person, add_user, sign_in
from .support.problems import assert_problem

Travel = Callable[..., None]

MOST = 1_000_000_000_000
VERBS = ("SELECT", "INSERT", "UPDATE", "DELETE")


@pytest.fixture
def at(travel: Travel) -> Callable[..., None]:
    """A function that moves the clock to a time, in UTC: at(2031, 1, 31, 23, 59, 59)."""

    def move(*parts: int) -> None:
        travel(seconds=(datetime(*parts, tzinfo=UTC) - clock.now()).total_seconds())  # type: ignore[misc]

    return move


# --- what is set ---


def test_a_quota_is_stored_as_sent(alice: Person) -> None:
    assert alice.new_key()["quota"] is None
    for wanted in (quota(0), quota(MOST), quota(7, MOST, "daily"), quota(9, 5, "monthly")):
        key = alice.new_key(quota=wanted)
        assert key["quota"] == wanted == alice.get(path_of(key)).json["quota"]
    assert alice.patch(path_of(key), {"name": "new"}).json["quota"] == wanted
    assert alice.patch(path_of(key), {"quota": None}).json["quota"] is None
    full = {"refill_amount": 8, "refill_interval": "daily"}
    assert alice.patch(path_of(key), {"quota": full}).json["quota"] == quota(8, 8, "daily")
    assert alice.patch(path_of(key), {"quota": None}).json["quota"] is None
    assert alice.get(path_of(key)).json["quota"] is None


# What is a part of a quota: of that which a key has, if it has one.
PARTS: list[Any] = [{}, {"refill_amount": None, "refill_interval": None}]
NO_QUOTAS: list[Any] = [
    {"remaining": None},
    {"remaining": -1},
    {"remaining": MOST + 1},
    {"remaining": 10**300},
    {"remaining": 1.0},
    {"remaining": "1"},
    {"remaining": True},
    {"refill_amount": 5},
    {"refill_interval": "daily"},
    {"remaining": 5, "refill_amount": 5},
    {"remaining": 5, "refill_interval": "daily"},
    {"remaining": 5, "refill_amount": None, "refill_interval": "daily"},
    {"remaining": 5, "refill_amount": 5, "refill_interval": None},
    {"remaining": 5, "refill_amount": 0, "refill_interval": "daily"},
    {"remaining": 5, "refill_amount": MOST + 1, "refill_interval": "daily"},
    {"remaining": 5, "refill_amount": 5, "refill_interval": "weekly"},
    {"remaining": 5, "refill_amount": 5, "refill_interval": "Daily"},
    {"remaining": 5, "spent": 0},
    5,
    [5],
    False,
]


def test_invalid_quotas_are_refused(alice: Person) -> None:
    key = alice.new_key(quota=quota(7))
    for wanted in NO_QUOTAS:
        for answer in (
            alice.post("/v1/api-keys", {"name": "x", "quota": wanted}),
            alice.patch(path_of(key), {"quota": wanted}),
        ):
            assert_problem(answer, 422, "validation_error", "json.quota")
    assert alice.get(path_of(key)).json["quota"] == quota(7)
    free = alice.new_key()
    for part in PARTS:
        for answer in (
            alice.post("/v1/api-keys", {"name": "x", "quota": part}),
            alice.patch(path_of(free), {"quota": part}),
        ):
            assert_problem(answer, 422, "validation_error", "json.quota")


def test_members_of_a_quota_that_are_not_sent_stay_as_they_are(
    client: FlaskClient, alice: Person, at: Callable[..., None]
) -> None:
    key = alice.new_key(quota=quota(9, 5, "daily"))
    path = path_of(key)

    def after(**sent: Any) -> dict[str, Any]:
        return alice.patch(path, {"quota": sent}).json["quota"]

    assert after() == quota(9, 5, "daily")
    assert after(remaining=3) == quota(3, 5, "daily")
    assert me(client, key).status_code == 200
    assert after(refill_amount=8) == quota(2, 8, "daily")
    assert after(refill_interval="monthly") == quota(2, 8, "monthly")
    assert after(refill_amount=7, refill_interval="daily") == quota(2, 7, "daily")
    for part in ({"refill_amount": None}, {"refill_interval": None}):
        refused = alice.patch(path, {"quota": part})
        assert_problem(refused, 422, "validation_error", "json.quota")
    at(2031, 6, 2, 0, 0, 0)
    alice = alice.again()
    assert after(refill_amount=6) == quota(7, 6, "daily")  # a new day had begun
    assert me(client, key).status_code == 200
    assert after(refill_amount=None, refill_interval=None) == quota(6)
    assert after(remaining=1) == quota(1)


# --- what is spent ---


def test_each_valid_use_spends_its_cost(client: FlaskClient, root: Person, alice: Person) -> None:
    key = alice.new_key(quota=quota(10))
    assert verify(root, key["key"])["quota"] == {"remaining": 9}
    assert verify(root, key["key"], cost=5)["quota"] == {"remaining": 4}
    assert me(client, key).status_code == 200
    assert left(alice, key) == 3
    refused = verify(root, key["key"], cost=4)
    assert (refused["valid"], refused["code"]) == (False, "usage_exceeded")
    assert refused["quota"] == {"remaining": 3}
    assert verify(root, key["key"], cost=3)["quota"] == {"remaining": 0}
    assert verify(root, key["key"])["code"] == "usage_exceeded"
    assert verify(root, key["key"], cost=0)["valid"] is True
    assert left(alice, key) == 0


def test_the_largest_numbers_are_counted_to_the_unit(root: Person, alice: Person) -> None:
    key = alice.new_key(quota=quota(MOST, MOST, "monthly"))
    assert verify(root, key["key"])["quota"] == {"remaining": MOST - 1}
    assert verify(root, key["key"], cost=1_000_000)["quota"] == {"remaining": MOST - 1_000_001}
    assert left(alice, key) == MOST - 1_000_001


def test_denials_and_reads_cost_nothing(client: FlaskClient, root: Person, alice: Person) -> None:
    key = alice.new_key(
        quota=quota(5),
        scopes=["a:b"],
        allowed_ips=["192.0.2.0/24"],
        rate_limit={"limit": 1, "window_seconds": 3600},
    )
    text, path, ip = key["key"], path_of(key), "192.0.2.1"
    seen = [
        verify(root, text)["code"],
        verify(root, text, ip=ip, scopes=["a:c"])["code"],
        verify(root, text, ip=ip, cost=0)["code"],
        verify(root, text, ip=ip, explain=True)["code"],
        verify(root, text, ip=ip, cost=6, explain=True)["code"],
        alice.post(f"{path}/explain", {"ip": ip}).json["code"],
        verify(root, text, ip=ip, cost=5)["code"],
    ]
    looks = ["valid", "valid", "usage_exceeded", "valid"]
    assert seen == ["ip_not_allowed", "insufficient_scope", *looks, "valid"]
    alice.patch(path, {"quota": quota(5)})
    assert verify(root, text, ip=ip)["code"] == "rate_limited"
    alice.patch(path, {"rate_limit": None, "disabled": True})
    assert verify(root, text, ip=ip)["code"] == "disabled"
    alice.post(f"{path}/revoke")
    assert verify(root, text, ip=ip)["code"] == "revoked"
    assert left(alice, key) == 5


def test_a_use_that_exceeds_the_quota_may_use_the_limit(root: Person, alice: Person) -> None:
    key = alice.new_key(quota=quota(0), rate_limit={"limit": 2, "window_seconds": 3600})
    seen = [verify(root, key["key"])["code"] for _ in range(3)]
    assert seen == ["usage_exceeded", "usage_exceeded", "rate_limited"]


def test_a_key_that_is_used_up_learns_when_it_is_refilled(
    client: FlaskClient, alice: Person, at: Callable[..., None]
) -> None:
    never, daily = alice.new_key(quota=quota(0)), alice.new_key(quota=quota(0, 5, "daily"))
    monthly = alice.new_key(quota=quota(0, 5, "monthly"))
    at(2031, 12, 30, 23, 0, 0)
    alice = alice.again()
    alice.patch(path_of(daily), {"quota": quota(0, 5, "daily")})
    alice.patch(path_of(monthly), {"quota": quota(0, 5, "monthly")})
    for key, wait in ((daily, 3600), (monthly, 90_000)):
        refused = me(client, key)
        assert_problem(refused, 429, "usage_exceeded")
        assert wait - 30 < int(refused.headers["Retry-After"]) <= wait
    refused = me(client, never)
    assert_problem(refused, 429, "usage_exceeded")
    assert refused.headers["Retry-After"] == "86400"


def test_only_the_quota_is_written_immediately(
    app: Flask, root: Person, alice: Person, travel: Travel
) -> None:
    plain = alice.new_key(rate_limit={"limit": 9, "window_seconds": 60})
    limited = alice.new_key(quota=quota(1, 1, "daily"))
    for key, uses, written in (
        (plain, {}, []),
        (limited, {"cost": 0}, []),
        (limited, {"explain": True}, []),
        (limited, {"scopes": ["a:b"]}, []),
        (limited, {}, ["UPDATE"]),
        (limited, {}, ["UPDATE"]),  # which finds nothing to spend
    ):
        with statements(app) as ran:
            verify(root, key["key"], **uses)
        verbs = [sql.split()[0] for sql in ran]
        assert [verb for verb in verbs if verb in VERBS and verb != "SELECT"] == written


def test_spending_does_not_change_the_key(root: Person, alice: Person) -> None:
    key = alice.new_key(quota=quota(5, 5, "daily"))
    verify(root, key["key"])
    kept = alice.get(path_of(key)).json
    assert (kept["quota"]["remaining"], kept["updated_at"]) == (4, key["updated_at"])


# --- refills ---


@pytest.mark.parametrize(
    ("interval", "before", "after"),
    [
        ("daily", (2031, 3, 4, 23, 59, 58), (2031, 3, 5)),
        ("daily", (2032, 2, 28, 23, 59, 58), (2032, 2, 29)),
        ("monthly", (2031, 3, 31, 23, 59, 58), (2031, 4, 1)),
        ("monthly", (2031, 12, 31, 23, 59, 58), (2032, 1, 1)),
        ("monthly", (2032, 2, 29, 23, 59, 58), (2032, 3, 1)),
    ],
)
def test_a_refill_comes_with_the_day_or_month_in_utc_and_sets_to_the_amount(
    make_app: Callable[..., Flask],
    at: Callable[..., None],
    interval: str,
    before: tuple[int, ...],
    after: tuple[int, ...],
) -> None:
    client = client_of(make_app())
    add_user(client, "alice")
    at(*before)
    alice = sign_in(client, "alice")
    low, high = (alice.new_key(quota=quota(n, 3, interval)) for n in (2, 9))
    assert statuses([me(client, low) for _ in range(3)]) == {200: 2, 429: 1}
    assert left(alice, low) == 0
    assert left(alice, high) == 9
    at(*after)
    assert left(alice, low) == left(alice, high) == 3, "it shows before the first use"
    assert statuses([me(client, low) for _ in range(4)]) == {200: 3, 429: 1}
    assert me(client, high).status_code == 200
    assert left(alice, high) == 2, "there is one refill for a period"


def test_missed_refills_do_not_add_up(
    client: FlaskClient, root: Person, alice: Person, travel: Travel
) -> None:
    key = alice.new_key(quota=quota(1, 4, "daily"))
    travel(days=5)
    root = root.again()
    assert verify(root, key["key"], cost=5)["code"] == "usage_exceeded", "no refill holds it"
    assert verify(root, key["key"], cost=4)["quota"] == {"remaining": 0}


def test_without_an_interval_there_is_no_refill(
    client: FlaskClient, alice: Person, travel: Travel
) -> None:
    key = alice.new_key(quota=quota(1))
    assert me(client, key).status_code == 200
    travel(days=400)
    assert me(client, key).status_code == 429


def test_setting_a_quota_starts_a_new_period(
    client: FlaskClient, alice: Person, at: Callable[..., None]
) -> None:
    at(2031, 5, 10, 12, 0, 0)
    alice = alice.again()
    key = alice.new_key(quota=quota(1))
    at(2031, 6, 10, 12, 0, 0)
    alice = alice.again()
    alice.patch(path_of(key), {"quota": quota(2, 9, "monthly")})
    assert left(alice, key) == 2, "the first refill is yet to come"
    assert me(client, key).status_code == 200
    alice.patch(path_of(key), {"quota": quota(1, 9, "daily")})
    assert left(alice, key) == 1
    at(2031, 6, 11, 0, 0, 0)
    assert left(alice.again(), key) == 9


def test_a_clock_that_is_set_back_refills_nothing_twice(
    client: FlaskClient, alice: Person, at: Callable[..., None]
) -> None:
    at(2031, 5, 10, 23, 59, 0)
    key = alice.again().new_key(quota=quota(0, 2, "daily"))
    at(2031, 5, 11, 0, 0, 1)
    assert me(client, key).status_code == 200
    at(2031, 5, 10, 23, 59, 30)
    assert me(client, key).status_code == 200
    assert me(client, key).status_code == 429
    at(2031, 5, 11, 0, 0, 2)
    assert me(client, key).status_code == 429


# --- many at once ---


def test_of_64_parallel_uses_as_many_are_valid_as_the_quota_allows(
    make_app: Callable[..., Flask], root: Person, alice: Person
) -> None:
    """Through two apps on one database, and through two doors each."""
    second = client_of(make_app(database_url=url_of(root.client.application)))
    key = alice.new_key(quota=quota(10))
    calls = []
    for door in (root.client, second):
        asker = Person(door, root.id, "root", root.access_token, "")
        calls += [partial(asker.post, "/v1/api-keys/verify", {"key": key["key"]})] * 16
        calls += [partial(me, door, key)] * 16
    answers = at_once(*calls)
    valid = sum(answer.json.get("valid", answer.status_code == 200) for answer in answers)
    assert valid == 10
    assert left(alice, key) == 0


def test_parallel_uses_of_different_costs_never_spend_more_than_there_is(
    root: Person, alice: Person
) -> None:
    key = alice.new_key(quota=quota(50))
    costs = [1, 2, 3, 5, 7, 11, 13, 17] * 3
    ask = [partial(root.post, "/v1/api-keys/verify", {"key": key["key"], "cost": n}) for n in costs]
    answers = at_once(*ask)
    spent = sum(cost for cost, answer in zip(costs, answers, strict=True) if answer.json["valid"])
    assert left(alice, key) == 50 - spent >= 0
    assert all(answer.json["quota"]["remaining"] >= 0 for answer in answers)


def test_parallel_first_uses_of_a_day_refill_once(
    client: FlaskClient, alice: Person, at: Callable[..., None]
) -> None:
    at(2031, 5, 10, 12, 0, 0)
    key = alice.again().new_key(quota=quota(0, 6, "daily"))
    at(2031, 5, 11, 12, 0, 0)
    assert statuses(at_once(*[partial(me, client, key)] * 24)) == {200: 6, 429: 18}


def test_a_concurrent_change_of_the_key_loses_no_spending(
    client: FlaskClient, alice: Person
) -> None:
    key = alice.new_key(quota=quota(100))
    uses = [partial(me, client, key)] * 20
    changes = [partial(alice.patch, path_of(key), {"name": f"n{n}"}) for n in range(10)]
    assert statuses(at_once(*uses, *changes)) == {200: 30}
    assert left(alice, key) == 80


def test_a_quota_that_is_set_while_it_is_spent_is_never_overspent(
    client: FlaskClient, alice: Person
) -> None:
    key = alice.new_key(quota=quota(8))
    uses = [partial(me, client, key)] * 32
    answers = at_once(*uses, partial(alice.patch, path_of(key), {"quota": quota(4)}))
    assert answers[-1].status_code == 200
    counted = Counter(answer.status_code for answer in answers[:-1])
    assert set(counted) <= {200, 429}
    assert 4 <= counted[200] <= 8 + 4
    assert counted[200] + left(alice, key) <= 8 + 4


@pytest.mark.parametrize(
    ("meanwhile", "status", "kept"),
    [({"quota": None}, 200, None), ({"quota": quota(0)}, 429, quota(0)), (None, 401, None)],
)
def test_changes_and_deletions_during_a_use_count(
    app: Flask,
    client: FlaskClient,
    alice: Person,
    meanwhile: dict[str, Any] | None,
    status: int,
    kept: dict[str, Any] | None,
) -> None:
    key = alice.new_key(quota=quota(5))
    path = path_of(key)
    act = partial(alice.patch, path, meanwhile) if meanwhile else partial(alice.delete, path)
    with behind_the_guard(app, act):
        assert me(client, key).status_code == status
    if meanwhile:
        assert alice.get(path).json["quota"] == kept


# --- keys that manage keys ---


@pytest.mark.parametrize(
    ("own", "wanted", "allowed"),
    [
        (quota(100), quota(90), True),
        (quota(100), quota(100), False),  # one is spent with this very call
        (quota(100), quota(9, 9, "monthly"), False),
        (quota(100), None, False),
        (quota(100, 100, "daily"), quota(50), True),
        (quota(100, 100, "daily"), quota(50, 100, "daily"), True),
        (quota(100, 100, "daily"), quota(50, 101, "daily"), False),
        (quota(100, 100, "daily"), quota(50, 100, "monthly"), True),
        (quota(100, 310, "monthly"), quota(50, 10, "daily"), True),
        (quota(100, 309, "monthly"), quota(50, 10, "daily"), False),
        (None, quota(MOST, MOST, "daily"), True),
        (None, None, True),
    ],
)
def test_a_key_cannot_give_a_higher_quota_than_its_own(
    alice: Person, own: dict[str, Any] | None, wanted: dict[str, Any] | None, allowed: bool
) -> None:
    manager = alice.with_key(alice.new_key(scopes=["keys:write"], quota=own))
    target = alice.new_key(quota=quota(1))
    answers = [
        manager.post("/v1/api-keys", {"name": "x", "quota": wanted}),
        manager.patch(path_of(target), {"quota": wanted}),
    ]
    if allowed:
        assert [answer.status_code for answer in answers] == [201, 200]
        assert all(answer.json["quota"] == wanted for answer in answers)
    else:
        for answer in answers:
            assert_problem(answer, 403, "insufficient_scope")
        assert alice.get(path_of(target)).json["quota"] == quota(1)


def test_a_key_cannot_change_or_rotate_a_key_with_a_higher_quota(alice: Person) -> None:
    manager = alice.with_key(alice.new_key(scopes=["keys:write"], quota=quota(20)))
    wider = alice.new_key(quota=quota(30))
    assert_problem(manager.patch(path_of(wider), {"name": "x"}), 403, "insufficient_scope")
    assert_problem(manager.post(f"{path_of(wider)}/rotate"), 403, "insufficient_scope")
    assert manager.patch(path_of(wider), {"quota": quota(5)}).status_code == 200
    assert manager.post(f"{path_of(wider)}/rotate").status_code == 200
