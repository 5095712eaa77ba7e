"""PostgreSQL when it is stopped, restarted or frozen: bounded waits and automatic recovery.

A frozen server does not enforce statement_timeout, and TCP timeouts do not end a query either. So
the client stops waiting and, until the server answers again, only a background thread contacts it.
Skip it on a first reading.
"""

from __future__ import annotations

import select
import threading
import time
from typing import Any

import peewee as pw
import psycopg
from playhouse.pool import PooledPostgresqlDatabase
from psycopg import conninfo

from ..core.settings import Settings
from .errors import UnsuitableDatabase
from .pool import BoundedPool

PROBE_SECONDS = 1.0  # for an idle connection to prove that it is alive
FRESH_SECONDS = 1.0  # within this time after its last use, it does not have to
REST_SECONDS = 0.25  # between two attempts to reach a silent server
RETRY_SECONDS = 2  # for such an attempt; libpq allows no less

# Session parameters that statements and drivers rely on, whatever the server's defaults are.
SESSION = {
    "timezone": "UTC",
    "datestyle": "ISO",
    "standard_conforming_strings": "on",
    "default_transaction_isolation": r"read\ committed",  # guarded UPDATEs must see committed rows
}
# Parameters that the server reports to each new client, the values that we need, and the remedy.
REPORTED = {
    "server_encoding": ("UTF8", "create a database with ENCODING 'UTF8' TEMPLATE template0"),
    "DateStyle": ("ISO", "run `ALTER ROLE ... SET datestyle = 'ISO'`"),
    "standard_conforming_strings": (
        "on",
        "run `ALTER ROLE ... SET standard_conforming_strings = on`",
    ),
}
_POOLER_ERROR = "unsupported startup parameter"


def open_postgres(settings: Settings) -> PostgresDatabase:
    """Return the database that DATABASE_URL names, with libpq's parameters (sslmode, ...)."""
    given = conninfo.conninfo_to_dict(settings.database_url)
    parameters: dict[str, Any] = {"application_name": given.get("application_name", "backend")}
    if settings.database_prepared_statements:
        ours = SESSION | {"statement_timeout": f"{settings.database_timeout}s"}
        options = [f"-c {name}={text}" for name, text in ours.items()]
        options.append(str(given.get("options", "")))  # the last one wins
        parameters["options"] = " ".join(options)
    else:  # behind a pooler, which has no sessions and so no options
        parameters["prepare_threshold"] = None
    return PostgresDatabase(
        settings.database_url,
        prefer_psycopg3=True,
        max_connections=settings.database_connections,
        timeout=settings.database_timeout,
        stale_timeout=300,
        connect_timeout=settings.database_timeout,
        client_encoding="utf8",
        **parameters,
    )


class BoundedConnection(psycopg.Connection):
    """A connection that gives up if the server is silent for `patience` seconds."""

    patience = 60.0
    used_at = 0.0
    database: PostgresDatabase

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """Wait as psycopg does; on a timeout, close the connection and raise OperationalError."""
        began, patience = time.monotonic(), timeout or self.patience
        try:
            return super().wait(gen, interval, patience)
        except psycopg.OperationalError as error:
            if error.sqlstate is None:  # not an error reported by a live server
                self.pgconn.finish()  # a late answer would be taken for that of the next query
                if time.monotonic() - began >= patience:
                    self.database.fell_silent()
            raise

    def has_ended(self) -> bool:
        """Return whether the server has closed the connection. Does not send anything to it."""
        if not hasattr(select, "poll"):  # Windows
            return False
        poll = select.poll()
        poll.register(self.pgconn.socket, select.POLLIN)
        return bool(poll.poll(0))


class _Adapter(pw.Psycopg3Adapter):
    def connect(self, db: Any, **params: Any) -> BoundedConnection:
        connection = BoundedConnection.connect(db.database, **params)
        # A live server ends a slow statement first.
        connection.patience = params["connect_timeout"] + 0.5
        connection.database = db
        return connection


def _unsuitable(connection: BoundedConnection) -> list[str]:
    """Return a sentence for each unsuitable parameter that the server reported on its own."""
    faults = []
    for name, (needed, remedy) in REPORTED.items():
        found = connection.info.parameter_status(name)
        if found and found.partition(",")[0] != needed:
            faults.append(f"{name} is {found}, but the service needs {needed}: {remedy}.")
    return faults


def _pooled(error: psycopg.OperationalError, parameters: dict[str, Any]) -> str:
    ours = "options" in parameters
    remedy = "set DATABASE_PREPARED_STATEMENTS=false" if ours else "remove it from DATABASE_URL"
    text = str(error)[str(error).index(_POOLER_ERROR) :].partition("\n")[0]  # the first host's
    return f"a pooler such as PgBouncer answers, with {text!r}: {remedy}."


class PostgresDatabase(BoundedPool, PooledPostgresqlDatabase):
    """A pool that refuses immediately while the server is silent. A background thread checks it.

    A server that refuses connections is tried each time, which takes only a millisecond.
    """

    psycopg3_adapter = _Adapter
    _silent = False
    _asked_at = 0.0

    def connect(self, reuse_if_open: bool = False) -> bool:
        """Take a connection. Raises OperationalError immediately while the server is silent."""
        self._refuse_while_silent()  # instead of queueing behind threads that try to connect
        return super().connect(reuse_if_open)

    def _connect(self) -> BoundedConnection:
        """Connect, one thread at a time. Those that queued do not try a server that fell silent."""
        self._refuse_while_silent()
        began = time.monotonic()
        try:
            connection: BoundedConnection = super()._connect()
        except psycopg.OperationalError as error:
            if _POOLER_ERROR in str(error):
                raise UnsuitableDatabase(_pooled(error, self.connect_params)) from None
            if time.monotonic() - began > PROBE_SECONDS:
                self.fell_silent()
            raise
        if faults := _unsuitable(connection):
            connection.close()
            raise UnsuitableDatabase(" ".join(faults))
        return connection

    def fell_silent(self) -> None:
        """Refuse connections until the server answers again."""
        self._silent = True

    def _refuse_while_silent(self) -> None:
        if not self._silent:
            return
        if time.monotonic() - self._asked_at > RETRY_SECONDS + REST_SECONDS:
            self._asked_at = time.monotonic()
            threading.Thread(target=self._ask, name="postgres", daemon=True).start()
        raise pw.OperationalError("the database did not answer a moment ago")

    def _ask(self) -> None:
        """Try to reach the server, in bounded time."""
        try:
            params = {**self.connect_params, "connect_timeout": RETRY_SECONDS}
            self._adapter.connect(self, **params).close()
            self._silent = False
        except psycopg.OperationalError:
            pass
        finally:
            self._asked_at = time.monotonic() - RETRY_SECONDS

    def _is_closed(self, conn: BoundedConnection) -> bool:
        """Return whether an idle connection is dead; drop all idle ones if so."""
        if time.monotonic() - conn.used_at < FRESH_SECONDS:
            closed = conn.has_ended()
        else:
            patience, conn.patience = conn.patience, PROBE_SECONDS
            closed = bool(super()._is_closed(conn))
            conn.patience = patience
        if closed:
            self._close_raw(conn)
            self.close_idle()
            self._refuse_while_silent()
        return closed

    def _can_reuse(self, conn: BoundedConnection) -> bool:
        conn.used_at = time.monotonic()
        return bool(super()._can_reuse(conn))

    def dispose(self) -> None:
        """Forget all connections and the background thread, as a child process must."""
        super().dispose()
        self._silent, self._asked_at = False, 0.0
