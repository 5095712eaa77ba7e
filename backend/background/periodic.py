"""Periodic tasks: work done in the background every few seconds. Skip it on a first reading."""

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
    """Runs all tasks in one thread, within INTERVAL seconds of a call of `wake`.

    The first call starts the thread, so that each forked process (gunicorn) has its own, and a
    process that only imports this has none. Without a call nothing runs. Remaining work is done
    when the interpreter exits.
    """

    def __init__(self, *tasks: Callable[[], object]) -> None:
        self._tasks = tasks
        self._logged: dict[Callable[[], object], str] = {}  # the last error of each failing task
        self._wanted = threading.Event()
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._pid: int | None = None

    def wake(self) -> None:
        """Have the tasks run soon."""
        if not self._wanted.is_set():  # setting it takes a lock
            self._wanted.set()
        if self._pid != os.getpid():
            self._start()

    def _start(self) -> None:
        with self._lock:
            if self._pid == os.getpid():
                return
            self._pid = os.getpid()
            atexit.register(self.close)
            self._thread = threading.Thread(target=self._loop, name="periodic", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # too many threads; the caller's work must not fail because of it
                self._thread = None
                log.exception("no thread for periodic tasks: they run when the process ends")

    def run(self) -> None:
        """Run all tasks now. If one fails, log it and run the others."""
        self._wanted.clear()
        for task in self._tasks:
            try:
                task()
                self._logged.pop(task, None)
            except Exception as error:
                self._log_failure(task, error)

    def _log_failure(self, task: Callable[[], object], error: Exception) -> None:
        """Log why the task failed, but not twice in a row; retry if the cause may pass."""
        is_new = self._logged.get(task) != str(error)
        self._logged[task] = str(error)
        if is_unavailable(error):
            if is_new:
                log.warning("a periodic task is postponed: %s", explain(error))
            if not self._closed.is_set():
                self._wanted.set()
        elif is_new:
            # A Failure says what to do; only bugs need a traceback.
            traceback = None if isinstance(error, Failure) else error
            log.error("a periodic task failed: %s", error, exc_info=traceback)

    def stop(self) -> None:
        """End the thread, in bounded time, without doing the remaining work."""
        self._closed.set()
        atexit.unregister(self.close)
        if self._thread is not None:
            self._thread.join(CLOSING_SECONDS)

    def close(self) -> None:
        """End the thread and do the remaining work, in bounded time."""
        deadline = time.monotonic() + CLOSING_SECONDS
        self.stop()
        while self._wanted.is_set() and time.monotonic() < deadline:
            self.run()
            if self._wanted.is_set():  # another process is doing the work
                time.sleep(0.02)

    def _loop(self) -> None:
        while not self._closed.wait(INTERVAL):
            if self._wanted.is_set():
                self.run()
