"""SQLite with many writers: each gets its turn, in this process and among other processes.

A writer that waits for SQLite's lock sleeps longer and longer, and later writers overtake it: with
sixteen writers in two processes, some time out after three seconds. Skip it on a first reading.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peewee as pw
from playhouse.pool import PooledSqliteDatabase

from ..core.paths import ROOT
from ..core.settings import Settings
from .pool import BoundedPool

TRY_MILLISECONDS = 10  # how long SQLite itself waits before we call it again
_WRITES = ("INSERT", "UPDATE", "DELETE", "WITH")


def sqlite_path(settings: Settings) -> Path:
    """Return the database file; a relative path starts in the folder of wsgi.py."""
    return ROOT / settings.database_url.removeprefix("sqlite:///")


def open_sqlite(settings: Settings) -> SqliteDatabase:
    """Return the database that DATABASE_URL names; its file is created on first use."""
    return SqliteDatabase(
        str(sqlite_path(settings)),
        patience=settings.database_timeout,
        pragmas={
            "journal_mode": "wal",
            "synchronous": "full",  # an acknowledged write survives a power failure
            "foreign_keys": 1,
            "temp_store": "memory",  # a file would fail the transaction if /tmp is read-only
            "busy_timeout": settings.database_timeout * 1000,
        },
        timeout=settings.database_timeout,
        max_connections=settings.database_connections,
        # Without the write lock from the start, a transaction that reads and then writes would
        # fail immediately with "database is locked".
        lock_type="IMMEDIATE",
        check_same_thread=False,  # the pool hands a connection to one thread at a time
    )


def create_private(path: Path) -> None:
    """Create the file, readable only by its owner; SQLite gives -wal and -shm the same mode.

    SQLite itself would apply the umask. Never opens an existing file: closing it would drop the
    locks that SQLite holds on it in this process.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))


def copy_sqlite(database: Any, path: Path) -> None:
    """Copy a consistent snapshot of the database to an empty file."""
    with contextlib.closing(sqlite3.connect(path)) as target:
        database.connection().backup(target)


class SqliteDatabase(BoundedPool, PooledSqliteDatabase):
    """A pool in which one thread at a time tries to get the write lock, and tries often."""

    def __init__(self, *args: Any, patience: float, **kwargs: Any) -> None:
        self._patience = patience  # seconds
        self._turn = threading.Lock()
        super().__init__(*args, **kwargs)
        # SQLite's own LIKE ignores case only for a to z.
        self.register_function(_casefold, "casefold", 1, deterministic=True)

    def _connect(self) -> Any:
        with contextlib.suppress(OSError):  # SQLite raises its own error
            create_private(Path(self.database))
        return super()._connect()

    def begin(self, lock_type: str | None = None) -> None:
        """Begin a transaction; take the write lock unless `lock_type` is "DEFERRED"."""
        if lock_type == "DEFERRED":
            super().begin(lock_type)
        else:
            self._in_turn(lambda: super(SqliteDatabase, self).begin(lock_type))

    def execute_sql(self, sql: str, params: Any = None) -> Any:
        """Run a statement; outside of a transaction, one that writes waits for its turn."""
        if not sql.startswith(_WRITES) or self.in_transaction():
            return super().execute_sql(sql, params)
        return self._in_turn(lambda: super(SqliteDatabase, self).execute_sql(sql, params))

    def execute(self, query: Any, **options: Any) -> Any:
        """Run a query. An error of a foreign key gets the `missing` id, which SQLite leaves out."""
        try:
            return super().execute(query, **options)
        except pw.IntegrityError as error:
            if _code_of(error) == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
                error.missing = self._missing(query)
            raise

    def _missing(self, query: Any) -> str | None:
        """Return the first id for which there is no row, of those that a query writes."""
        written = getattr(query, "_insert", None) or getattr(query, "_update", None)
        rows = [written] if isinstance(written, dict) else written
        for row in rows if isinstance(rows, list) else ():  # not DELETE, nor INSERT ... SELECT
            named = row if isinstance(row, dict) else dict(zip(query._columns, row, strict=True))
            for key, value in named.items():
                field = query.model._meta.combined[key] if isinstance(key, str) else key
                if isinstance(field, pw.ForeignKeyField) and value is not None:
                    wanted = field.rel_model.select().where(field.rel_field == value)
                    if not wanted.exists(self):
                        return str(getattr(value, "pk", value))
        return None

    def rollback(self) -> None:
        """Roll back, unless SQLite has done so itself, as it does when the disk is full."""
        if self.connection().in_transaction:
            super().rollback()

    def dispose(self) -> None:
        """Forget all connections, as a child process must, and a turn that was held at the fork."""
        super().dispose()
        self._turn = threading.Lock()

    def _in_turn(self, act: Callable[[], Any]) -> Any:
        """Run `act` once it gets the write lock. Raises OperationalError if that takes too long."""
        connection = self.connection()  # before the turn, which must not be spent waiting for it
        deadline = time.monotonic() + self._patience
        if not self._turn.acquire(timeout=self._patience):
            raise pw.OperationalError("database is locked: other threads are waiting too")
        try:
            connection.execute(f"PRAGMA busy_timeout = {TRY_MILLISECONDS}")
            while True:
                try:
                    return act()
                except pw.OperationalError as error:
                    if not _is_busy(error) or time.monotonic() >= deadline:
                        raise
        finally:
            self._turn.release()
            connection.execute(f"PRAGMA busy_timeout = {int(self._patience * 1000)}")


def _casefold(text: str | None) -> str | None:
    return text.casefold() if text else text


def _is_busy(error: pw.OperationalError) -> bool:
    return _code_of(error) & 0xFF == sqlite3.SQLITE_BUSY


def _code_of(error: pw.DatabaseError) -> int:
    return getattr(error.__cause__ or error.__context__, "sqlite_errorcode", 0)
