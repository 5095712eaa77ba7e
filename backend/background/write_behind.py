"""Write-behind: notes are collected in memory, and written together every few seconds.

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
    """Merge two notes by keeping the later one."""
    return later


class WriteBehind:
    """Keeps one note per key, until `flush` passes all of them to `write`.

    `merge(earlier, later)` combines two notes of one key.
    """

    def __init__(self, write: Callable[[dict[Any, Any]], None], merge: Merge = newest) -> None:
        self._write = write
        self._merge = merge
        self._notes: dict[Any, Any] = {}
        self._since: float | None = None  # no unwritten note is older
        self._lock = threading.Lock()

    def note(self, key: Any, value: Any) -> None:
        """Remember `value` for `key`, merged with its earlier note, until the next flush."""
        with self._lock:
            notes = self._notes
            notes[key] = self._merge(notes[key], value) if key in notes else value
            if self._since is None:
                self._since = clock.monotonic()

    @property
    def lag(self) -> float:
        """Seconds since the oldest unwritten note; 0 if there is none."""
        since = self._since
        return 0 if since is None else clock.monotonic() - since

    def flush(self) -> None:
        """Write all notes, or raise the error. Keeps the notes only while the database is down."""
        with self._lock:
            notes, self._notes = self._notes, {}
        if not notes:
            return
        since: float | None = clock.monotonic()  # for notes made from now on
        try:
            self._write(notes)
        except Exception as error:
            # After any other error, they would fail again, and all later notes with them.
            if is_unavailable(error):
                with self._lock:
                    for key, value in self._notes.items():
                        notes[key] = self._merge(notes[key], value) if key in notes else value
                    self._notes = notes
                    since = self._since
            raise
        finally:
            with self._lock:
                self._since = since if self._notes else None
