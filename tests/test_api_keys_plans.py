"""With thousands of keys in the database, each statement reads those that it is about."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import peewee as pw
import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from backend.core.database import execute, on_postgres, release
from backend.core.identity import CONSOLE
from backend.users import service as users

from .conftest import Person, by_key, service_of
from .test_api_keys_import import line, take_over
from .test_api_keys_races import path_of

OWNERS, KEYS_EACH = 100, 40


@pytest.fixture
def crowded(app: Flask, root: Person) -> Flask:
    """An app with thousands of keys, many of them revoked, disabled or expired."""
    service = service_of(app)
    with service.active():
        for number in range(OWNERS):
            users.create(CONSOLE, username=f"owner{number}", email=None, kind="service")
        new_id = "gen_random_uuid()" if on_postgres() else "lower(hex(randomblob(16)))"
        execute(
            "WITH RECURSIVE counted(n) AS"
            f" (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < {KEYS_EACH})"
            " INSERT INTO api_keys (id, owner_id, name, scopes, disabled, created_at, updated_at,"
            " current_secret, revoked_at, expires_at)"
            f" SELECT {new_id}, u.id, 'seeded', '[]', n & 7 = 0, u.created_at, u.created_at,"
            f" {new_id}, CASE WHEN n & 3 > 0 THEN u.created_at END,"
            " CASE WHEN n & 4 = 0 THEN u.created_at END FROM users u, counted"
            " WHERE u.kind = 'service'"
        )
        execute(
            "INSERT INTO api_key_secrets (id, created_at, key_id, digest, secret_id, hint)"
            " SELECT current_secret, created_at, id, CAST(id AS text), 'seeded', 'bt_...seed'"
            " FROM api_keys"
        )
        execute("ANALYZE")
        release(service.database)
    return app


def plans(app: Flask, act: Callable[[], TestResponse]) -> list[tuple[str, str]]:
    """The statements about keys that are run meanwhile, and how the database carries each out."""
    database, ran = service_of(app).database, []

    def hook(event: Any) -> None:
        if "api_key" in event.sql and not event.sql.startswith("INSERT"):
            ran.append((event.sql, event.params))

    database.query_hooks.append(hook)
    assert act().status_code < 300
    database.query_hooks.remove(hook)
    how = "EXPLAIN QUERY PLAN"
    if isinstance(database, pw.PostgresqlDatabase):
        how = "EXPLAIN"
        # Of a few thousand rows it may prefer to read all, though an index leads to the right ones.
        database.execute_sql("SET enable_seqscan = off")
    found = []
    for sql, params in ran:
        lines = database.execute_sql(f"{how} {sql}", params).fetchall()
        found.append((sql, "\n".join(line[-1] for line in lines)))
    release(database)
    return found


def test_every_statement_about_keys_is_led_by_an_index(
    crowded: Flask, client: FlaskClient, root: Person
) -> None:
    key = root.new_key(quota={"remaining": 5})
    new = root.post(f"{path_of(key)}/rotate").json
    assert take_over(crowded, line("foreign", owner="root")).exit_code == 0
    page = root.get("/v1/api-keys?owner_id=any").json
    of_one = f"/v1/api-keys?owner_id={page['items'][-1]['owner_id']}"
    acts: dict[str, Callable[[], TestResponse]] = {
        "first use": lambda: client.get("/v1/auth/me", headers=by_key(new["key"])),
        "use": lambda: client.get("/v1/auth/me", headers=by_key(new["key"])),
        "use of an imported one": lambda: client.get("/v1/auth/me", headers=by_key("foreign")),
        "page": lambda: root.get(f"/v1/api-keys?owner_id=any&cursor={page['next']}"),
        "one": lambda: root.get(path_of(key)),
        "an owner's": lambda: root.get(of_one),
        **{
            f"an owner's {status}": lambda status=status: root.get(f"{of_one}&status={status}")  # type: ignore[misc]
            for status in ("active", "disabled", "expired", "revoked")
        },
        "mint": lambda: root.post("/v1/api-keys", {"name": "x"}),
        "change": lambda: root.patch(path_of(key), {"name": "x"}),
        "rotate": lambda: root.post(f"{path_of(key)}/rotate"),
        "revoke": lambda: client.post("/v1/api-keys/revoke", json={"key": new["key"]}),
        "delete": lambda: root.delete(path_of(key)),
    }
    for name, act in acts.items():
        ran = plans(crowded, act)
        assert ran, name
        for sql, plan in ran:
            assert not re.search(r"SCAN|Seq Scan", plan), f"{name}: {sql}\n{plan}"


def test_the_first_page_of_all_keys_reads_in_order_and_stops(crowded: Flask, root: Person) -> None:
    [(_, plan)] = plans(crowded, lambda: root.get("/v1/api-keys?owner_id=any"))
    in_order = (
        r"SCAN t1 USING INDEX sqlite_autoindex_api_keys_1|Index Scan Backward using api_keys_pkey"
    )
    assert re.search(in_order, plan), plan
    assert not re.search(r"TEMP B-TREE|Sort", plan), plan


def test_counting_against_the_limit_reads_no_revoked_key(crowded: Flask, root: Person) -> None:
    [some] = root.get("/v1/api-keys?owner_id=any&limit=1").json["items"]
    wanted = {"name": "x", "owner_id": some["owner_id"]}
    ran = plans(crowded, lambda: root.post("/v1/api-keys", wanted))
    [counting] = [plan for sql, plan in ran if "COUNT" in sql]
    assert "api_keys_owner_id_revoked_at" in counting
