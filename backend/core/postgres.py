"""PostgreSQL that is stopped, restarted or frozen: bounded waiting, and healing by itself.

statement_timeout is kept by the server, and a frozen server keeps nothing; the timeouts of TCP do
not end a query either. So the client stops waiting, and then does not ask for a moment.
"""

from __future__ import annotations

import time
from typing import Any

import peewee as pw
import psycopg
from playhouse.pool import PooledPostgresqlDatabase

PROBE_SECONDS = 1.0  # for an idle connection to answer that it is alive
REST_SECONDS = 0.5  # without a further attempt after one has failed


class BoundedConnection(psycopg.Connection):
    """A connection that is given up when the server is silent for `patience` seconds."""

    patience = 60.0

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """What psycopg waits for, else OperationalError; the connection is closed then."""
        try:
            return super().wait(gen, interval, timeout or self.patience)
        except psycopg.OperationalError:
            self.pgconn.finish()  # an answer that came later would be taken for the next one's
            raise


class _Adapter(pw.Psycopg3Adapter):
    def connect(self, db: Any, **params: Any) -> BoundedConnection:
        connection = BoundedConnection.connect(db.database, **params)
        # The server ends a slow statement first, where it lives.
        connection.patience = params["connect_timeout"] + 1
        return connection


class PostgresDatabase(PooledPostgresqlDatabase):
    """A pool that refuses at once while the server does not answer, but for one who asks it."""

    psycopg3_adapter = _Adapter
    _failed = False
    _down_until = 0.0

    def connect(self, reuse_if_open: bool = False) -> bool:
        """Take a connection. OperationalError at once, if the server failed a moment ago."""
        self._refuse_while_down()  # before queueing behind those who connect
        return bool(super().connect(reuse_if_open))

    def _connect(self) -> BoundedConnection:
        """One thread at a time comes here; of those that waited, none asks what has just failed."""
        self._refuse_while_down()
        if self._failed:  # this one asks again, and others need not wait for it
            patience = PROBE_SECONDS + self.connect_params["connect_timeout"]
            self._down_until = time.monotonic() + patience
        try:
            connection: BoundedConnection = super()._connect()
        except psycopg.OperationalError:
            self._failed, self._down_until = True, time.monotonic() + REST_SECONDS
            raise
        self._failed, self._down_until = False, 0.0
        return connection

    def _refuse_while_down(self) -> None:
        if time.monotonic() < self._down_until:
            raise pw.OperationalError("the database did not answer a moment ago")

    def _is_closed(self, conn: BoundedConnection) -> bool:
        """Whether an idle connection is dead. If one is, so are probably all: none is asked."""
        patience, conn.patience = conn.patience, PROBE_SECONDS
        closed = bool(super()._is_closed(conn))
        conn.patience = patience
        if closed:
            self.close_idle()
        return closed
