"""`python -m benchmarks.seed N [--owners M]`: N API keys of M users in the migrated database.

The database is the one in the settings. The rows look as if the service had written them. The texts
of some keys (KNOWN) are known; the digests of the others are random. A million takes half a minute.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import peewee as pw
import psycopg

from backend.api_keys.models import ApiKey, ApiKeySecret
from backend.app import create_app
from backend.auth.models import Session
from backend.core import clock
from backend.core.settings import Settings
from backend.crypto import keyring
from backend.db.database import on_postgres
from backend.db.sqlite import sqlite_path
from backend.services import Services
from backend.users.models import User

KNOWN = 400  # users to act as; the first is an administrator
PASSWORD = "correct horse battery staple"

Row = dict[str, Any]
Table = tuple[str, list[str], Iterator[list[Any]]]  # name, columns, rows


@dataclass(frozen=True, slots=True)
class Known:
    """A user to act as, and the credentials to send."""

    username: str
    access_token: str
    refresh_token: str
    api_key: str


def fill(service: Services, keys: int, owners: int) -> list[Known]:
    """Add `keys` API keys of `owners` users, as evenly as possible; return the known users."""
    with service.active():
        return _fill(service, keys, max(1, min(owners, keys)))


def _fill(service: Services, keys: int, owners: int) -> list[Known]:
    write = _copy if on_postgres() else _execute_many
    user_ids, key_ids, secret_ids = _ids(owners), _ids(keys), _ids(keys)
    count, each_has = min(KNOWN, owners), keys // owners
    numbers = [number * owners // count for number in range(count)]
    session_ids = _ids(count)
    # Key n belongs to user n % owners: one key of each known user, from all over the table.
    texts = {
        user + owners * (n * each_has // count): service.keyring.new_api_key()
        for n, user in enumerate(numbers)
    }
    password = service.password_hasher.hash(PASSWORD)
    present = service.keyring.secret_ids[0]

    def users() -> Iterator[Row]:
        for number, user_id in enumerate(user_ids):
            name = f"user-{number}"
            email = f"{name}@example.com"
            names = {"username": name, "username_folded": name, "email": email}
            role = "user" if number else "admin"
            yield {"id": user_id, "email_folded": email, "role": role, **names}

    def secrets() -> Iterator[Row]:
        for number, (secret_id, key_id) in enumerate(zip(secret_ids, key_ids, strict=True)):
            digest, hint = os.urandom(32).hex(), "bt_...0000"
            if text := texts.get(number):
                digest, hint = service.keyring.digests(text)[0][1], keyring.hint(text)
            yield {"id": secret_id, "key": key_id, "digest": digest, "hint": hint}

    sessions = (
        {"id": each, "user": user_ids[number]}
        for each, number in zip(session_ids, numbers, strict=True)
    )
    owned = (
        {"id": key_id, "owner": user_ids[n % owners], "current_secret": secret_id}
        for n, (key_id, secret_id) in enumerate(zip(key_ids, secret_ids, strict=True))
    )
    week = clock.now() + timedelta(days=7)
    write(
        service.settings,
        _table(User(password_hash=password, kind="person"), users()),
        _table(Session(epoch=0, secret_id=present, expires_at=week), sessions),
        _table(ApiKey(name="seeded", scopes=[], metadata={}, allowed_ips=[]), owned),
        _table(ApiKeySecret(secret_id=present), secrets()),
    )
    return [
        Known(
            f"user-{number}",
            service.access_tokens.sign(user_ids[number], session_id),
            service.keyring.sign_refresh(session_id, 0),
            text,
        )
        for number, session_id, text in zip(numbers, session_ids, texts.values(), strict=True)
    ]


def _ids(count: int) -> list[uuid.UUID]:
    """Return UUIDv7s in ascending order, from the last `count` milliseconds."""
    first = int(clock.timestamp() * 1000) - count
    tails = (int.from_bytes(os.urandom(8)) & (1 << 62) - 1 for _ in range(count))
    return [
        uuid.UUID(int=first + number << 80 | 7 << 76 | 2 << 62 | tail)
        for number, tail in enumerate(tails)
    ]


def _table(pattern: pw.Model, rows: Iterable[Row]) -> Table:
    """Return the rows to insert: copies of `pattern`, with the values in `rows` replaced.

    The values in `rows` are texts and ids.
    """
    meta = pattern._meta
    values = {**meta.get_default_dict(), **pattern.__data__}
    template = [
        None if values.get(name) is None else field.db_value(values[name])
        for name, field in meta.fields.items()
    ]
    place = {name: number for number, name in enumerate(meta.fields)}

    def complete() -> Iterator[list[Any]]:
        for row in rows:
            filled = template.copy()
            for name, value in row.items():
                filled[place[name]] = value.hex if isinstance(value, uuid.UUID) else value
            yield filled

    return meta.table_name, [field.column_name for field in meta.fields.values()], complete()


def _copy(settings: Settings, *tables: Table) -> None:
    with psycopg.connect(settings.database_url, autocommit=True) as connection:
        for table, columns, rows in tables:
            statement = f"COPY {table} ({', '.join(columns)}) FROM STDIN"
            with connection.cursor().copy(statement.encode()) as copy:
                for row in rows:
                    copy.write_row(row)
            connection.execute(f"VACUUM ANALYZE {table}".encode())


def _execute_many(settings: Settings, *tables: Table) -> None:
    with closing(sqlite3.connect(sqlite_path(settings))) as connection:
        # Keeps the indexes in memory while they grow, and flushes writes at the end.
        connection.executescript("PRAGMA synchronous = off; PRAGMA cache_size = -500000")
        for table, columns, rows in tables:
            marks = ", ".join("?" * len(columns))
            statement = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"
            with connection:
                connection.executemany(statement, rows)
        connection.executescript("PRAGMA synchronous = full; PRAGMA wal_checkpoint(TRUNCATE)")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.seed", description=__doc__)
    parser.add_argument("keys", type=int)
    parser.add_argument("--owners", type=int, default=20_000)
    asked = parser.parse_args()
    started = time.perf_counter()
    known = fill(create_app(Settings.load()).extensions["backend"], asked.keys, asked.owners)
    print(f"{asked.keys} keys in {time.perf_counter() - started:.1f} s", file=sys.stderr)
    for each in known[:3]:
        print(f"{each.username} {each.api_key}")


if __name__ == "__main__":
    main()
