"""Counts of the use of keys: what counts, how it is added up, and that nothing is lost."""

from __future__ import annotations

import os
import secrets
import signal
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from backend.core import clock

from .support.apps import client_of, service_of, statements, url_of
from .support.concurrency import until
from .support.people import Person, add_user, by_key, sign_in
from .support.problems import assert_problem
from .support.servers import Server
from .support.usage import counts, flush, usage

Travel = Callable[..., None]
SECRET = secrets.token_urlsafe(48)


def use(person: Person, key: dict[str, Any], times: int = 1, status: int = 200) -> None:
    """Present the key to a route that any key opens."""
    for _ in range(times):
        response = person.client.get("/v1/auth/me", headers=by_key(key["key"]))
        assert response.status_code == status, response.json


# --- what counts ---


def test_each_decision_is_counted_by_its_code(alice: Person, root: Person, travel: Travel) -> None:
    key = alice.new_key(scopes=["reports:read"])
    limited = alice.new_key(rate_limit={"limit": 2, "window_seconds": 86_400})
    metered = alice.new_key(quota={"remaining": 3})
    elsewhere = alice.new_key(allowed_ips=["192.0.2.0/24"])
    brief = alice.new_key(expires_in_days=1)
    use(alice, key, 3)
    assert alice.with_key(key).get("/v1/api-keys").status_code == 403
    use(alice, limited, 2)
    use(alice, limited, 3, status=429)
    use(alice, metered, 3)
    use(alice, metered, 2, status=429)
    use(alice, elsewhere, 4, status=403)
    root.patch(f"/v1/users/{alice.id}", {"is_active": False})
    use(alice, key, 2, status=401)
    root.patch(f"/v1/users/{alice.id}", {"is_active": True})
    alice = alice.again()
    alice.patch(f"/v1/api-keys/{key['id']}", {"disabled": True})
    use(alice, key, 1, status=401)
    alice.post(f"/v1/api-keys/{key['id']}/revoke")
    use(alice, key, 5, status=401)
    travel(days=1, seconds=1)
    use(alice, brief, 1, status=401)
    alice = alice.again()
    assert counts(alice, key) == {
        "valid": 3,
        "insufficient_scope": 1,
        "owner_inactive": 2,
        "disabled": 1,
        "revoked": 5,
    }
    assert counts(alice, limited) == {"valid": 2, "rate_limited": 3}
    assert counts(alice, metered) == {"valid": 3, "usage_exceeded": 2}
    assert counts(alice, elsewhere) == {"valid": 0, "ip_not_allowed": 4}
    assert counts(alice, brief) == {"valid": 0, "expired": 1}


def test_a_use_counts_once_at_every_door_whatever_it_costs(alice: Person, root: Person) -> None:
    key = alice.new_key(quota={"remaining": 100})
    for asked in ({}, {"cost": 60}, {"cost": 60}, {"scopes": ["reports:read"]}):
        root.post("/v1/api-keys/verify", {"key": key["key"], **asked})
    assert counts(alice, key) == {"valid": 2, "usage_exceeded": 1, "insufficient_scope": 1}


def test_calls_that_are_not_uses_count_nothing(app: Flask, alice: Person, root: Person) -> None:
    key = alice.new_key()
    for asked in ({"cost": 0}, {"explain": True}, {"cost": 0, "scopes": ["reports:read"]}):
        assert root.post("/v1/api-keys/verify", {"key": key["key"], **asked}).status_code == 200
    assert alice.post(f"/v1/api-keys/{key['id']}/explain").status_code == 200
    assert_problem(alice.with_key(key).post("/v1/auth/logout"), 403, "session_required")
    use(alice, {"key": "nobody's"}, status=401)
    with statements(app) as ran:
        flush(app)
    assert ran == []
    assert usage(alice, key) == []


# --- how counts are returned ---


def test_counts_are_returned_by_hour_or_day_oldest_first(alice: Person, travel: Travel) -> None:
    key = alice.new_key(scopes=["reports:read"])
    midnight = clock.now().replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    travel(seconds=(midnight - clock.now()).total_seconds() + 60)
    use(alice, key, 2)
    travel(hours=1)
    use(alice, key, 1)
    assert alice.with_key(key).get("/v1/api-keys").status_code == 403
    travel(hours=23)
    use(alice, key, 4)
    alice = alice.again()

    def at(hours: int) -> str:
        return f"{midnight + timedelta(hours=hours):%Y-%m-%dT%H:%M:%SZ}"

    first = {"start": at(0), "valid": 2, "denied": {}}
    second = {"start": at(1), "valid": 1, "denied": {"insufficient_scope": 1}}
    third = {"start": at(24), "valid": 4, "denied": {}}
    assert usage(alice, key) == [first, second, third]
    assert usage(alice, key, "?interval=day") == [
        {"start": at(0), "valid": 3, "denied": {"insufficient_scope": 1}},
        third,
    ]
    for query, expected in {
        f"?since={at(1)}": [second, third],
        f"?since={at(1)}&until={at(24)}": [second],
        f"?until={at(1)}": [first],
        f"?since={at(0)[:-7]}:30:00Z&until={at(1)[:-7]}:00:01Z": [first, second],
        f"?since={at(2)}&until={at(24)}": [],
        f"?interval=day&since={at(23)}&until={at(24)}": [
            {"start": at(0), "valid": 3, "denied": {"insufficient_scope": 1}}
        ],
    }.items():
        assert usage(alice, key, query) == expected, query
    travel(hours=25)
    assert usage(alice.again(), key) == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("since=2026-01-01T00:00:00Z&until=2026-01-01T00:00:00Z", "since"),
        ("since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z", "since"),
        ("since=2999-01-01T00:00:00Z", "since"),
        ("since=2026-01-01T00:00:00Z&until=2026-02-01T00:00:01Z", "since"),
        ("since=2025-01-01T00:00:00Z&until=2026-03-01T00:00:00Z&interval=day", "since"),
        ("since=0001-01-01T00:00:00Z", "since"),
        ("since=yesterday", "since"),
        ("until=2026-01-01", "until"),
        ("interval=week", "interval"),
        ("limit=5", "limit"),
    ],
)
def test_an_empty_or_too_long_span_is_refused(alice: Person, query: str, field: str) -> None:
    for key_id in (alice.new_key()["id"], alice.id):  # what is asked is judged before of what
        refused = alice.get(f"/v1/api-keys/{key_id}/usage?{query}")
        assert_problem(refused, 422, "validation_error", f"query.{field}")


def test_the_longest_spans_and_the_ends_of_time_are_accepted(alice: Person) -> None:
    key = alice.new_key()
    for query in (
        "?since=2026-01-01T00:00:00Z&until=2026-02-01T00:00:00Z",
        "?since=2025-01-01T00:00:00Z&until=2026-02-05T00:00:00Z&interval=day",
        "?until=0001-01-01T00:00:00Z",
        "?since=9999-12-31T00:00:00Z&until=9999-12-31T23:59:59.999999Z&interval=day",
    ):
        assert usage(alice, key, query) == []


def test_counts_are_for_the_owner_administrators_and_keys_that_may_read(
    alice: Person, bob: Person, root: Person
) -> None:
    key, reader = alice.new_key(), alice.new_key(scopes=["keys:read"])
    use(alice, key)
    assert usage(alice, key) == usage(root, key) == usage(alice.with_key(reader), key)
    path = f"/v1/api-keys/{key['id']}/usage"
    assert_problem(bob.get(path), 404, "not_found")
    assert_problem(alice.with_key(key).get(path), 403, "insufficient_scope")
    assert_problem(alice.client.get(path), 401, "unauthenticated")


# --- that none is lost, and at what cost ---


@pytest.mark.slow
def test_the_counts_of_many_keys_are_written_by_one_statement(
    app: Flask, alice: Person, bob: Person
) -> None:
    keys = [person.new_key() for person in (alice, bob) for _ in range(20)]
    for key in keys:
        use(alice, key, 2)
        assert alice.with_key(key).get("/v1/api-keys").status_code == 403
    alice.delete(f"/v1/api-keys/{keys[0]['id']}")
    with statements(app) as ran:
        flush(app)
    assert len([sql for sql in ran if "INTO key_usage" in sql]) == 1
    for owner, key in zip([alice] * 19 + [bob] * 20, keys[1:], strict=True):
        assert counts(owner, key) == {"valid": 2, "insufficient_scope": 1}
    alice.delete(f"/v1/api-keys/{keys[1]['id']}")
    kept = service_of(app).database.execute_sql("SELECT COUNT(*) FROM key_usage").fetchone()
    assert kept == (2 * 38,)


def test_counts_of_two_processes_add_up(make_app: Callable[..., Flask]) -> None:
    first = make_app()
    second = make_app(database_url=url_of(first))
    add_user(client_of(first), "alice")
    alice = sign_in(client_of(first), "alice")
    there = sign_in(client_of(second), "alice")
    key = alice.new_key()
    for _ in range(2):
        use(alice, key, 2)
        use(there, key, 3)
        flush(second, first)
    assert counts(alice, key) == counts(there, key) == {"valid": 10}


@pytest.mark.slow
def test_concurrent_flushes_uses_and_deletions_lose_and_double_nothing(
    make_app: Callable[..., Flask],
) -> None:
    first = make_app()
    apps = [first, make_app(database_url=url_of(first))]
    add_user(client_of(first), "alice")
    alice = sign_in(client_of(first), "alice")
    there = sign_in(client_of(apps[1]), "alice")
    keys = [alice.new_key() for _ in range(8)]
    kept, gone = keys[:4], keys[4:]

    def work(person: Person) -> None:
        for _ in range(5):
            for key in kept:
                use(person, key)
            flush(person.client.application)

    def delete() -> None:
        for key in gone:
            alice.client.get("/v1/auth/me", headers=by_key(key["key"]))
            assert alice.delete(f"/v1/api-keys/{key['id']}").status_code == 204

    calls = [partial(work, alice), partial(work, there)] * 3 + [delete]
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    flush(*apps)
    assert [counts(alice, key) for key in kept] == [{"valid": 30}] * 4


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="gunicorn needs it")
def test_a_server_of_several_processes_that_ends_has_counted_exactly(
    make_app: Callable[..., Flask], tree: Path, tmp_path: Path
) -> None:
    app = make_app(secret_key=SECRET)
    add_user(client_of(app), "alice")
    alice = sign_in(client_of(app), "alice")
    key = alice.new_key()
    settings = {"database_url": url_of(app), "secret_key": SECRET, "bcrypt_rounds": 10}
    server = Server("gunicorn", tree, tmp_path, **settings)
    try:
        server.wait_until_it_serves()
        assert [ask(server, key) for _ in range(40)] == [200] * 40
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(40) == 0
    finally:
        server.end()
    assert counts(alice, key) == {"valid": 40}


@pytest.mark.slow
def test_a_server_that_is_killed_loses_no_more_than_it_has_not_flushed(
    make_app: Callable[..., Flask], tree: Path, tmp_path: Path
) -> None:
    app = make_app(secret_key=SECRET)
    add_user(client_of(app), "alice")
    alice = sign_in(client_of(app), "alice")
    key = alice.new_key()
    settings = {"database_url": url_of(app), "secret_key": SECRET, "bcrypt_rounds": 10}
    server = Server("waitress", tree, tmp_path, **settings)
    try:
        server.wait_until_it_serves()
        assert [ask(server, key) for _ in range(5)] == [200] * 5
        until(lambda: counts(alice, key) == {"valid": 5}, seconds=10)
        assert [ask(server, key) for _ in range(3)] == [200] * 3
    finally:
        server.end()
    assert counts(alice, key) in [{"valid": 5}, {"valid": 8}]


def ask(server: Server, key: dict[str, Any]) -> int:
    """The status of a request with the key."""
    connection = server.connect()
    connection.request("GET", "/v1/auth/me", headers=by_key(key["key"]))
    status = connection.getresponse().status
    connection.close()
    return status


def test_counts_are_kept_for_400_days(app: Flask, alice: Person, travel: Travel) -> None:
    key = alice.new_key()
    use(alice, key)
    flush(app)
    travel(days=399)
    use(alice, key, 2)
    flush(app)
    prune = partial(app.test_cli_runner().invoke, args=["prune"])
    assert prune().exit_code == 0
    since = f"{datetime.now(UTC) - timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"
    query = f"?interval=day&since={since}"
    assert [item["valid"] for item in usage(alice.again(), key, query)] == [1, 2]
    travel(days=2)
    assert prune().exit_code == 0
    assert counts(alice.again(), key) == {"valid": 2}
    kept = service_of(app).database.execute_sql("SELECT COUNT(*) FROM key_usage").fetchone()
    assert kept == (1,)
