"""Chores: deferred work, run every few seconds beside the requests. Skip it on a first reading."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable

from ..core.errors import Failure
from ..db.errors import explain, is_unavailable

log = logging.getLogger(__name__)

INTERVAL = 3.0  # seconds
CLOSING_SECONDS = 5.0


class PeriodicTasks:
    """Runs all chores together, in one thread, within INTERVAL seconds of a call of `wake`.

    The thread starts with the first call, so that each forked process (gunicorn) has its own, and a
    process that only imports has none. Without a call nothing runs. Remaining work is done when the
    interpreter exits.
    """

    def __init__(self, *chores: Callable[[], object]) -> None:
        self._chores = chores
        self._told: dict[Callable[[], object], str] = {}  # the logged error of each failing chore
        self._reason = threading.Event()
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._pid: int | None = None

    def wake(self) -> None:
        """Have the chores run soon."""
        if not self._reason.is_set():  # setting it takes a lock
            self._reason.set()
        if self._pid != os.getpid():
            self._start()

    def _start(self) -> None:
        with self._lock:
            if self._pid == os.getpid():
                return
            self._pid = os.getpid()
            atexit.register(self.close)
            self._thread = threading.Thread(target=self._loop, name="chores", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # too many threads; the caller's work must not fail because of it
                self._thread = None
                log.exception("no thread for chores: they run when the process ends")

    def run(self) -> None:
        """Run all chores now. If one fails, log it and run the others."""
        self._reason.clear()
        for chore in self._chores:
            try:
                chore()
                self._told.pop(chore, None)
            except Exception as error:
                self._tell(chore, error)

    def _tell(self, chore: Callable[[], object], error: Exception) -> None:
        """Log why the chore failed, but not twice in a row; retry if the cause may pass."""
        is_new = self._told.get(chore) != str(error)
        self._told[chore] = str(error)
        if is_unavailable(error):
            if is_new:
                log.warning("a chore is postponed: %s", explain(error))
            if not self._closed.is_set():
                self._reason.set()
        elif is_new:
            # A refusal says what to do; only bugs need a traceback.
            traceback = None if isinstance(error, Failure) else error
            log.error("a chore failed: %s", error, exc_info=traceback)

    def stop(self) -> None:
        """End the thread, in bounded time. Remaining work stays undone."""
        self._closed.set()
        atexit.unregister(self.close)
        if self._thread is not None:
            self._thread.join(CLOSING_SECONDS)

    def close(self) -> None:
        """End the thread and do the remaining work, in bounded time."""
        deadline = time.monotonic() + CLOSING_SECONDS
        self.stop()
        while self._reason.is_set() and time.monotonic() < deadline:
            self.run()
            if self._reason.is_set():  # another process is doing it
                time.sleep(0.02)

    def _loop(self) -> None:
        while not self._closed.wait(INTERVAL):
            if self._reason.is_set():
                self.run()
