"""Chores: what is left for later, and done every few seconds beside the requests."""

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
    """Runs all chores together, in one thread, INTERVAL seconds after somebody said `wake`.

    The thread starts with the first reason, so that each process that forks off (gunicorn) has one
    of its own, and one that only imports has none. Without a reason nothing is run. What is left is
    done when the interpreter exits.
    """

    def __init__(self, *chores: Callable[[], object]) -> None:
        self._chores = chores
        self._told: dict[Callable[[], object], str] = {}  # the fault of each chore that fails
        self._reason = threading.Event()
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._pid: int | None = None

    def wake(self) -> None:
        """See to it that the chores are run soon."""
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
            except RuntimeError:  # there are too many; what has been done is done all the same
                self._thread = None
                log.exception("no thread for chores: they wait for the end of the process")

    def run(self) -> None:
        """Run all chores now. One that fails is logged, and the others go on."""
        self._reason.clear()
        for chore in self._chores:
            try:
                chore()
                self._told.pop(chore, None)
            except Exception as error:
                self._tell(chore, error)

    def _tell(self, chore: Callable[[], object], error: Exception) -> None:
        """Log why the chore failed, once as long as it is the same; if it may pass, try again."""
        is_new = self._told.get(chore) != str(error)
        self._told[chore] = str(error)
        if is_unavailable(error):
            if is_new:
                log.warning("a chore is put off: %s", explain(error))
            if not self._closed.is_set():
                self._reason.set()
        elif is_new:
            # A refusal says what to do; where it comes from helps with bugs alone.
            traceback = None if isinstance(error, Failure) else error
            log.error("a chore failed: %s", error, exc_info=traceback)

    def stop(self) -> None:
        """End the thread, in bounded time. What is left stays undone."""
        self._closed.set()
        atexit.unregister(self.close)
        if self._thread is not None:
            self._thread.join(CLOSING_SECONDS)

    def close(self) -> None:
        """End the thread and do what is left, in bounded time."""
        deadline = time.monotonic() + CLOSING_SECONDS
        self.stop()
        while self._reason.is_set() and time.monotonic() < deadline:
            self.run()
            if self._reason.is_set():  # another process is at it
                time.sleep(0.02)

    def _loop(self) -> None:
        while not self._closed.wait(INTERVAL):
            if self._reason.is_set():
                self.run()
