"""Waiting for a connection: bounded, and in vain once only.

When all connections are held by statements that do not come back (a table is locked, a disk hangs),
each further request would hold a thread as long as it may wait, and soon no thread would be left.
"""

from __future__ import annotations

from typing import Any

import peewee as pw
from playhouse.pool import MaxConnectionsExceeded, PooledDatabase

WAIT_SECONDS = 0.5  # for a connection that others hold; they do so for milliseconds


class BoundedPool(PooledDatabase):
    """A pool that makes nobody wait behind one who waited in vain, until a connection comes back.

    MaxConnectionsExceeded for who gets none.
    """

    _stuck = False

    def connect(self, reuse_if_open: bool = False) -> bool:
        """Take a connection for this thread."""
        if self._stuck:
            return bool(pw.Database.connect(self, reuse_if_open))  # takes one that is free
        try:
            return bool(super().connect(reuse_if_open))
        except MaxConnectionsExceeded:
            self._stuck = True
            raise

    def _close(self, conn: Any, close_conn: bool = False) -> None:
        self._stuck = False
        super()._close(conn, close_conn)
