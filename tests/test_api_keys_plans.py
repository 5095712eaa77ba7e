"""With forty thousand keys of two thousand owners, each statement does what it does with a hundred.

In both databases an owner has 20 keys, so that what depends on those is the same.
"""

from __future__ import annotations

import base64
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from backend.api_keys.models import ApiKey
from backend.db.database import execute, on_postgres, release
from benchmarks import seed

from .support.apps import client_of, service_of, url_of
from .support.imports import line, take_over
from .support.keys import path_of
from .support.people import Person, by_key

FEW, MANY = 100, 40_000  # keys in the database
EACH = 20  # keys of an owner
SIZE = 20  # keys of a page of all of them

# What PostgreSQL's planner may not do, as plans could not be compared: collect rows before they are
# read, read them from an index alone, which is not counted, keep those that it may meet again, and
# find those that are the same by hashing where there are few.
COMPARABLE = (
    "enable_bitmapscan=off",
    "enable_indexonlyscan=off",
    "enable_memoize=off",
    "enable_hashagg=off",
)
# A hundred rows are two pages, which are soonest read whole. So there a page costs nothing and each
# row does, as if there were many. With many keys the planner weighs as it always does.
BY_ROWS = (
    "seq_page_cost=0",
    "random_page_cost=0",
    "cpu_tuple_cost=1",
    "cpu_index_tuple_cost=1",
    "enable_hashjoin=off",
    "enable_mergejoin=off",
)
ROWS_READ = "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables"


class Ran(NamedTuple):
    """A statement, how it is carried out, and how much it reads.

    PostgreSQL counts rows, SQLite the steps of its machine, which takes some for each row.
    """

    sql: str
    plan: str
    read: int


Filled = Callable[[int], tuple[Flask, list[seed.Known]]]


@pytest.fixture
def filled(fresh_database: Callable[[], str], make_app: Callable[..., Flask]) -> Filled:
    """A function that fills the database with so many keys: an app on it, and who is known there.

    Each key has been used. A quarter of an owner's are active, others revoked, disabled, expired.
    """

    def fill(keys: int) -> tuple[Flask, list[seed.Known]]:
        url = fresh_database()
        if url.startswith("postgresql:"):
            told = COMPARABLE + (BY_ROWS if keys == FEW else ())
            url += "?options=" + quote(" ".join(f"-c {each}" for each in told))
        app = make_app(database_url=url)
        service = service_of(app)
        service.periodic_tasks.stop()  # they would change rows meanwhile
        known = seed.fill(service, keys, keys // EACH)
        with service.active():
            execute(
                "UPDATE api_keys SET revoked_at = CASE WHEN place & 3 = 1 THEN created_at END,"
                " disabled = place & 3 = 2,"
                " expires_at = CASE WHEN place & 3 = 3 THEN created_at END FROM"
                " (SELECT id, row_number() OVER (PARTITION BY owner_id ORDER BY id) - 1 AS place"
                " FROM api_keys) placed WHERE placed.id = api_keys.id AND place & 3 > 0"
            )
            execute(
                "INSERT INTO key_usage (key_id, hour, code, uses)"
                " SELECT id, 0, 'valid', 1 FROM api_keys"
            )
            if on_postgres():  # which does so by itself after a while; SQLite does not
                execute("ANALYZE")
            release(service.database)
        return app, known

    return fill


def explained_by_postgres(connection: Any, sql: str, params: Any) -> tuple[str, int]:
    """The plan, and how many rows are read, those of foreign keys included. It is taken back."""
    counts, plan = [], []
    with connection.transaction(force_rollback=True):  # a savepoint, if one is open
        for options in ("COSTS OFF", "ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF"):
            counts.append(connection.execute(ROWS_READ).fetchone()[0])
            plan.append(connection.execute(f"EXPLAIN ({options}) {sql}", params).fetchall())
        counts.append(connection.execute(ROWS_READ).fetchone()[0])
    first, second, third = counts
    # Planning looks at rows too, to see where an index ends; it has been done twice.
    return "\n".join(line for (line,) in plan[0]), int(third - second - (second - first))


def explained_by_sqlite(connection: sqlite3.Connection, sql: str, params: Any) -> tuple[str, int]:
    """The plan, and how many steps are taken. What is written is taken back."""
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    plan = connection.execute(f"EXPLAIN QUERY PLAN {sql}", params).fetchall()
    connection.execute("SAVEPOINT explained")
    connection.set_progress_handler(count, 1)
    connection.execute(sql, params).fetchall()
    connection.set_progress_handler(None, 0)
    connection.execute("ROLLBACK TO explained")
    connection.execute("RELEASE explained")
    return "\n".join(line[-1] for line in plan), steps


def without_values(plan: str) -> str:
    """The plan for any key. A key that is looked for by its id may be found by its owner's too."""
    plan = re.sub(r"'[^']*'", "?", plan)
    return re.sub(
        r"(Index Scan using )api_keys_owner_id_id( on api_keys \w+\n)( *)"
        r"(Index Cond: \()\((owner_id = \S+)\) AND \((id = \S+)\)\)",
        r"\1api_keys_pkey\2\3\4\6)\n\3Filter: (\5)",
        plan,
    )


@contextmanager
def explained(app: Flask) -> Iterator[list[Ran]]:
    """What comes of the statements about keys that this thread runs while the block lasts."""
    database, thread, ran = service_of(app).database, threading.get_ident(), []
    run = database.execute_sql

    def explain_and_run(sql: str, params: Any = None) -> Any:
        if threading.get_ident() == thread and re.search("api_key|key_usage", sql):
            connection = database.connection()
            if isinstance(connection, sqlite3.Connection):
                plan, read = explained_by_sqlite(connection, sql, params or ())
            else:
                plan, read = explained_by_postgres(connection, sql, params)
            ran.append(Ran(sql, plan, read))
        return run(sql, params)

    database.execute_sql = explain_and_run
    yield ran
    del database.execute_sql


class Acts:
    """What may be done with keys, each done once: {name: its statements}."""

    def __init__(self, app: Flask, known: list[seed.Known]) -> None:
        self.app, self.client = app, client_of(app)
        self.counts_rows = url_of(app).startswith("postgresql:")
        self.root, self.owner = (self.person(each) for each in known[:2])
        self.ran: dict[str, list[Ran]] = {}
        self.text = known[1].api_key
        told = self.root.post("/v1/api-keys/verify", {"key": self.text}).json
        self.path, self.owner_id = path_of({"id": told["key_id"]}), told["owner"]["id"]

    def person(self, known: seed.Known) -> Person:
        return Person(self.client, "", known.username, known.access_token, known.refresh_token)

    def run(self, name: str, act: Callable[[], TestResponse]) -> Any:
        """The JSON that the act answers, if any."""
        with explained(self.app) as self.ran[name]:
            response = act()
        assert response.status_code < 300, f"{name}: {response.text}"
        return response.json

    def use(self, name: str, key: str) -> None:
        self.run(name, lambda: self.client.get("/v1/auth/me", headers=by_key(key)))

    def look(self) -> None:
        """Uses of a key, and what is asked about keys."""
        self.use("use", self.text)
        self.run("verify", lambda: self.root.post("/v1/api-keys/verify", {"key": self.text}))
        anybodys, owners = "/v1/api-keys?owner_id=any", f"/v1/api-keys?owner_id={self.owner_id}"
        self.list("first page", f"{anybodys}&limit={SIZE}", SIZE)
        self.list("deep page", f"{anybodys}&limit={SIZE}&cursor={self.cursor()}", SIZE)
        page = self.list("an owner's first", f"{owners}&limit=5", 5)
        self.list("an owner's second", f"{owners}&limit=5&cursor={page['next']}", 5)
        for status in ("active", "disabled", "expired", "revoked"):
            self.list(f"an owner's {status}", f"{owners}&limit=4&status={status}", 4)
        self.run("one of one's own", lambda: self.owner.get(self.path))
        self.run("one", lambda: self.root.get(self.path))

    def list(self, name: str, path: str, length: int) -> Any:
        """The page, which has so many keys."""
        page = self.run(name, lambda: self.root.get(path))
        assert len(page["items"]) == length, name
        return page

    def cursor(self) -> str:
        """The cursor before the last page but one of all keys."""
        with service_of(self.app).active():
            oldest = ApiKey.select(ApiKey.id).order_by(ApiKey.id)
            [last] = oldest.offset(2 * SIZE).limit(1)
            release(service_of(self.app).database)
        return base64.urlsafe_b64encode(last.id.bytes).rstrip(b"=").decode()

    def change(self) -> None:
        """A key's life, and what of it is written behind."""
        wanted = {"name": "new", "quota": {"remaining": 5}}
        minted = self.run("mint", lambda: self.owner.post("/v1/api-keys", wanted))
        self.use("use that counts", minted["key"])
        wanted["scopes"] = ["keys:read", "keys:write"]
        manager = self.owner.with_key(self.owner.post("/v1/api-keys", wanted).json)
        child = self.run(
            "mint with a key",
            lambda: manager.post("/v1/api-keys", {**wanted, "quota": {"remaining": 2}}),
        )
        self.use("use of a child", child["key"])
        self.run("list with a key", lambda: manager.get("/v1/api-keys?limit=2"))
        self.run(
            "revoke all", lambda: self.owner.post(f"{path_of(child)}/revoke", {"cascade": True})
        )
        self.run("delete all", lambda: self.owner.delete(f"{path_of(child)}?cascade=true"))
        self.run("change", lambda: self.owner.patch(self.path, {"name": "changed"}))
        rotated = self.run("rotate", lambda: self.owner.post(f"{self.path}/rotate"))
        self.use("first use", rotated["key"])
        held = {"key": rotated["key"]}
        with explained(self.app) as self.ran["write behind"]:
            service_of(self.app).flush()
            service_of(self.app).flush()
        self.run("revoke", lambda: self.owner.post(f"{path_of(minted)}/revoke"))
        self.run("revoke by possession", lambda: self.client.post("/v1/api-keys/revoke", json=held))
        self.run("delete", lambda: self.owner.delete(self.path))
        assert take_over(self.app, line("foreign", owner=self.owner.username)).exit_code == 0
        self.use("use of an imported key", "foreign")


def all_of(app: Flask, known: list[seed.Known]) -> dict[str, list[Ran]]:
    """What comes of all acts in the database."""
    acts = Acts(app, known)
    acts.look()
    acts.change()
    return acts.ran


@pytest.mark.slow
def test_no_statement_about_keys_does_more_with_more_keys(filled: Filled) -> None:
    few, many = (all_of(*filled(keys)) for keys in (FEW, MANY))
    for name, expected in few.items():
        assert expected, name
        assert len(many[name]) == len(expected), name
        for one, other in zip(expected, many[name], strict=True):
            assert one.sql == other.sql, name
            assert without_values(one.plan) == without_values(other.plan), f"{name}: {one.sql}"
            # Of several digests one is there, and SQLite ends when it has met it.
            few_steps = "imported" in name and max(one.read, other.read) < 200
            assert one.read == other.read or few_steps, f"{name}: {one.sql}\n{other.plan}"


def test_pages_are_read_in_order_and_no_further(filled: Filled) -> None:
    acts = Acts(*filled(FEW))
    acts.look()
    for name, length in {
        "first page": SIZE,
        "deep page": SIZE,
        "an owner's first": 5,
        "an owner's second": 5,
    }.items():
        [(_, plan, read)] = acts.ran[name]
        assert not re.search("TEMP B-TREE|Sort", plan), f"{name}: {plan}"
        if acts.counts_rows:
            assert read == 2 * (length + 1), f"{name}: {plan}"  # one more, each with its secret


def test_counting_against_the_limit_reads_no_revoked_key(filled: Filled) -> None:
    acts = Acts(*filled(FEW))
    acts.run("mint", lambda: acts.owner.post("/v1/api-keys", {"name": "x"}))
    [(_, plan, read)] = [each for each in acts.ran["mint"] if "COUNT" in each.sql]
    assert "api_keys_owner_id_revoked_at" in plan, plan
    if acts.counts_rows:
        assert read == EACH - EACH // 4, plan
