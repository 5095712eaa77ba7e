"""Jobs: what a request starts and nobody waits for, such as sending mail.

For what may be lost when the process is killed. What must outlive that belongs into the database.
"""

from __future__ import annotations

import atexit
import contextvars
import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable

from . import context
from .database import release

log = logging.getLogger(__name__)

MOST = 1000  # jobs that wait
CLOSE_SECONDS = 5.0  # for what is left when the process ends

Job = Callable[[], None]


class Jobs:
    """Does jobs one after another in a thread of its own.

    The thread starts with the first job, so that each process that forks off (gunicorn) has one
    of its own; jobs of the process before the fork are done there. A job that waits for something
    should wait for `closing` too, which is set when the process ends.
    """

    def __init__(self) -> None:
        self._forget()
        if hasattr(os, "register_at_fork"):  # everywhere but on Windows
            forget = weakref.WeakMethod(self._forget)  # what is registered cannot be taken back

            def in_child() -> None:
                living = forget()
                if living is not None:
                    living()

            os.register_at_fork(after_in_child=in_child)

    def _forget(self) -> None:
        """Nothing waits and no thread runs. A lock that was held at a fork would stay held."""
        self.closing = threading.Event()
        self._changed = threading.Condition()
        self._waiting: deque[tuple[contextvars.Context, Job]] = deque()
        self._busy = False
        self._running = False  # the thread

    def submit(self, job: Job) -> None:
        """Have `job` done soon, as part of the service and the call that are running now.

        Returns at once and never raises; beyond MOST that wait, the job is dropped and logged.
        """
        with self._changed:
            full = len(self._waiting) >= MOST
            if not full:
                self._waiting.append((contextvars.copy_context(), job))
                self._changed.notify_all()
                self._start()
        if full:
            log.error("jobs: %s are waiting, one was dropped", MOST)

    @property
    def waiting(self) -> int:
        """How many jobs have not begun."""
        return len(self._waiting)

    def join(self, seconds: float) -> bool:
        """True as soon as all jobs are done; False if that takes longer than `seconds`."""
        with self._changed:
            return self._changed.wait_for(lambda: not (self._waiting or self._busy), seconds)

    def close(self) -> None:
        """Have done what waits, as far as CLOSE_SECONDS allow, and end the thread."""
        with self._changed:
            self.closing.set()
            self._changed.notify_all()
        if not self.join(CLOSE_SECONDS):
            log.error("jobs: not all were done in time, %s not begun", len(self._waiting))
        atexit.unregister(self.close)

    def _start(self) -> None:
        if self._running:
            return
        try:
            threading.Thread(target=self._run, name="jobs", daemon=True).start()
        except RuntimeError as error:  # no further thread, or the interpreter is ending
            log.warning("jobs: none is done for now: %s", error)
            return
        self._running = True
        atexit.register(self.close)

    def _run(self) -> None:
        while taken := self._take():
            inside, job = taken
            inside.run(_do, job)
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _take(self) -> tuple[contextvars.Context, Job] | None:
        """The next job, as soon as there is one; None at the end, when there is none left."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self.closing.is_set())
            self._busy = self._running = bool(self._waiting)
            return self._waiting.popleft() if self._waiting else None


def _do(job: Job) -> None:
    try:
        try:
            job()
        finally:
            service = context.running()
            if service:
                release(service.database)
    except Exception:
        log.exception("a job failed")
