"""Writing behind: notes gathered in memory and written together every few seconds.

For facts that may be a little late and that nobody is harmed by losing in a crash, such as when a
key was last used: a verification must not cost a write.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Callable
from typing import Any

from .database import is_unavailable

log = logging.getLogger(__name__)

INTERVAL = 3.0  # seconds


class WriteBehind:
    """Keeps the newest note per key; a thread hands all of them to `write` every INTERVAL seconds.

    The thread starts with the first note, so that each process that forks off (gunicorn) has one
    of its own. What is left is written when the interpreter exits.
    """

    def __init__(self, write: Callable[[dict[Any, Any]], None]) -> None:
        self._write = write
        self._notes: dict[Any, Any] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._pid: int | None = None

    def note(self, key: Any, value: Any) -> None:
        """Remember `value` for `key` until the next flush; a later note replaces an earlier."""
        with self._lock:
            self._notes[key] = value
            if self._pid != os.getpid():
                self._pid = os.getpid()
                threading.Thread(target=self._run, name="write-behind", daemon=True).start()
                atexit.register(self.close)

    def flush(self) -> None:
        """Write what has been noted. While the database is down it is kept."""
        with self._lock:
            notes, self._notes = self._notes, {}
        if not notes:
            return
        try:
            self._write(notes)
        except Exception as error:
            if not is_unavailable(error):
                # Kept, they would fail again, and all that is noted after them too.
                log.exception("written behind: %s notes dropped", len(notes))
                return
            log.warning("written behind: kept for the next flush: %s", error)
            with self._lock:
                self._notes = {**notes, **self._notes}

    def close(self) -> None:
        """End the thread and write what is left."""
        self._closed.set()
        atexit.unregister(self.close)
        self.flush()

    def _run(self) -> None:
        while not self._closed.wait(INTERVAL):
            self.flush()
