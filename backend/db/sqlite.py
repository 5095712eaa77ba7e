"""SQLite under many writers: each gets its turn, in this process and beside others.

SQLite lets who waits for the write lock sleep longer and longer, so that those who came later
overtake: of sixteen writers in two processes some wait three seconds in vain.
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

TRY_MILLISECONDS = 10  # for SQLite's own waiting, before it begins anew with short sleeps
_WRITES = ("INSERT", "UPDATE", "DELETE", "WITH")


def sqlite_path(settings: Settings) -> Path:
    """The database file; a relative path counts from the folder of wsgi.py."""
    return ROOT / settings.database_url.removeprefix("sqlite:///")


def open_sqlite(settings: Settings) -> SqliteDatabase:
    """The file that DATABASE_URL names. It is made when it is first used."""
    return SqliteDatabase(
        str(sqlite_path(settings)),
        patience=settings.database_timeout,
        pragmas={
            "journal_mode": "wal",
            "synchronous": "full",  # an acknowledged write survives a loss of power
            "foreign_keys": 1,
            "temp_store": "memory",  # where /tmp is read-only, a file would fail the transaction
            "busy_timeout": settings.database_timeout * 1000,
        },
        timeout=settings.database_timeout,
        max_connections=settings.database_connections,
        # A transaction that begins by reading and then writes would fail at once with
        # "database is locked" if it did not take the write lock at its start.
        lock_type="IMMEDIATE",
        check_same_thread=False,  # the pool hands a connection to one thread at a time
    )


def create_private(path: Path) -> None:
    """Create the file readable for its owner only. SQLite gives its -wal and -shm the same mode.

    SQLite itself would apply the umask. An existing file is never opened here: closing it would
    drop the locks that SQLite holds on it in this process.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))


class SqliteDatabase(BoundedPool, PooledSqliteDatabase):
    """One thread of this process at a time asks for the write lock, and asks often."""

    def __init__(self, *args: Any, patience: float, **kwargs: Any) -> None:
        self._patience = patience  # seconds
        self._turn = threading.Lock()
        super().__init__(*args, **kwargs)
        # SQLite's own LIKE knows the case of a to z alone.
        self.register_function(_casefold, "casefold", 1, deterministic=True)

    def _connect(self) -> Any:
        with contextlib.suppress(OSError):  # SQLite raises an error of its own
            create_private(Path(self.database))
        return super()._connect()

    def begin(self, lock_type: str | None = None) -> None:
        """Begin a transaction, which takes the write lock unless `lock_type` is "DEFERRED"."""
        if lock_type == "DEFERRED":
            super().begin(lock_type)
        else:
            self._in_turn(lambda: super(SqliteDatabase, self).begin(lock_type))

    def execute_sql(self, sql: str, params: Any = None) -> Any:
        """The cursor of a statement; one that writes is a transaction of its own outside of any."""
        if not sql.startswith(_WRITES) or self.in_transaction():
            return super().execute_sql(sql, params)
        return self._in_turn(lambda: super(SqliteDatabase, self).execute_sql(sql, params))

    def rollback(self) -> None:
        """End the transaction, unless SQLite has: it does so by itself when the disk is full."""
        if self.connection().in_transaction:
            super().rollback()

    def dispose(self) -> None:
        """Forget all connections, as a child process must; a turn that was taken stays taken."""
        super().dispose()
        self._turn = threading.Lock()

    def _in_turn(self, act: Callable[[], Any]) -> Any:
        """What `act` returns once it gets the write lock; OperationalError if it takes too long."""
        connection = self.connection()  # before the turn: who has that must not wait for this
        deadline = time.monotonic() + self._patience
        if not self._turn.acquire(timeout=self._patience):
            raise pw.OperationalError("database is locked: other threads wait for it too")
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
    code = getattr(error.__cause__ or error.__context__, "sqlite_errorcode", 0)
    return bool(code & 0xFF == sqlite3.SQLITE_BUSY)
