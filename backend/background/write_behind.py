"""Writing behind: notes gathered in memory and written together every few seconds.

For facts that may be a little late and that nobody is harmed by losing in a crash, such as when a
key was last used: a verification must not cost a write.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from ..core import clock
from ..db.database import is_unavailable


def _newest(earlier: Any, later: Any) -> Any:
    return later


class WriteBehind:
    """Keeps one note per key, until `flush` hands all of them to `write`.

    `merge(earlier, later)` makes one note of two; without it, the later replaces the earlier.
    """

    def __init__(
        self,
        write: Callable[[dict[Any, Any]], None],
        merge: Callable[[Any, Any], Any] = _newest,
    ) -> None:
        self._write = write
        self._merge = merge
        self._notes: dict[Any, Any] = {}
        self._since: float | None = None  # no note that is not written is older
        self._lock = threading.Lock()

    def note(self, key: Any, value: Any) -> None:
        """Remember `value` for `key`, merged with what is noted for it, until the next flush."""
        with self._lock:
            notes = self._notes
            notes[key] = self._merge(notes[key], value) if key in notes else value
            if self._since is None:
                self._since = clock.monotonic()

    @property
    def lag(self) -> float:
        """Seconds since the oldest note that is not written; 0 if all are."""
        since = self._since
        return 0 if since is None else clock.monotonic() - since

    def flush(self) -> None:
        """Write what has been noted, or raise why not. While the database is down it is kept."""
        with self._lock:
            notes, self._notes = self._notes, {}
        if not notes:
            return
        since: float | None = clock.monotonic()  # of what is noted from now on
        try:
            self._write(notes)
        except Exception as error:
            # Kept for another reason, they would fail again, and all that is noted after them too.
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
