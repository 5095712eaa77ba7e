"""Write-behind: entries are collected in memory, and written together every few seconds.

This is for facts that may be written a little late, or be lost in a crash without harm, such as
when a key was last used: a verification must not cost a write. Skip it on a first reading.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from ..core import clock
from ..db.database import is_unavailable

Merge = Callable[[Any, Any], Any]


def newest(earlier: Any, later: Any) -> Any:
    """Merge two entries by keeping the later one."""
    return later


class WriteBehind:
    """Keeps one entry per key, until `flush` passes all of them to `write`.

    `merge(earlier, later)` combines two entries with the same key.
    """

    def __init__(self, write: Callable[[dict[Any, Any]], None], merge: Merge = newest) -> None:
        self._write = write
        self._merge = merge
        self._entries: dict[Any, Any] = {}
        self._since: float | None = None  # when the oldest unwritten entry was added
        self._lock = threading.Lock()

    def add(self, key: Any, value: Any) -> None:
        """Keep `value` for `key`, merged with an earlier entry, until the next flush."""
        with self._lock:
            entries = self._entries
            entries[key] = self._merge(entries[key], value) if key in entries else value
            if self._since is None:
                self._since = clock.monotonic()

    @property
    def lag(self) -> float:
        """Seconds since the oldest unwritten entry; 0 if there is none."""
        since = self._since
        return 0 if since is None else clock.monotonic() - since

    def flush(self) -> None:
        """Write all entries, or raise the error. Keeps them only while the database is down."""
        with self._lock:
            entries, self._entries = self._entries, {}
        if not entries:
            return
        since: float | None = clock.monotonic()  # for entries added from now on
        try:
            self._write(entries)
        except Exception as error:
            # After any other error, they would fail again, and all later entries with them.
            if is_unavailable(error):
                with self._lock:
                    for key, value in self._entries.items():
                        entries[key] = self._merge(entries[key], value) if key in entries else value
                    self._entries = entries
                    since = self._since
            raise
        finally:
            with self._lock:
                self._since = since if self._entries else None
