"""Jobs: work that a request starts without waiting for it, done in background threads.

A killed process loses its jobs; anything that must survive belongs in the database. Skip it on a
first reading.
"""

from __future__ import annotations

import atexit
import contextvars
import logging
import os
import secrets
import threading
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial

from ..core import context
from ..db.database import release

log = logging.getLogger(__name__)

MOST = 1000  # waiting jobs
CLOSE_SECONDS = 5.0  # for the remaining work when the process ends
TICK_SECONDS = (1.0, 3.0)  # range of how long look-ups wait for others

Job = Callable[[], object]
_chance = secrets.SystemRandom()


class Lane:
    """A thread that does one thing after another.

    It starts when there is something to do, so that each forked process (gunicorn) has its own.
    Work queued before a fork is done in the parent.
    """

    name = ""

    def __init__(self) -> None:
        self._forget()
        if hasattr(os, "register_at_fork"):  # everywhere except on Windows
            forget = weakref.WeakMethod(self._forget)  # a registered function stays registered

            def in_child() -> None:
                living = forget()
                if living is not None:
                    living()

            os.register_at_fork(after_in_child=in_child)

    def _forget(self) -> None:
        """Reset to no work and no thread. A lock held at a fork would stay held in the child."""
        self.closing = threading.Event()
        self._changed = threading.Condition()
        self._busy = False
        self._running = False  # the thread

    def join(self, seconds: float) -> bool:
        """Wait until all work is done; False if that takes longer than `seconds`."""
        with self._changed:
            return self._changed.wait_for(lambda: not (self.waiting or self._busy), seconds)

    def close(self) -> None:
        """Do the waiting work, for at most CLOSE_SECONDS, and end the thread."""
        with self._changed:
            self.closing.set()
            self._changed.notify_all()
        if not self.join(CLOSE_SECONDS):
            log.error("%s: not everything was done in time, %s not begun", self.name, self.waiting)
        atexit.unregister(self.close)

    @property
    def waiting(self) -> int:
        """How many things have not begun."""
        raise NotImplementedError

    def _next(self) -> Job | None:
        """Wait for the next thing to do and return it; None when closing and nothing is left."""
        raise NotImplementedError

    def _start(self) -> None:
        if self._running:
            return
        try:
            threading.Thread(target=self._run, name=self.name, daemon=True).start()
        except RuntimeError as error:  # too many threads, or the interpreter is exiting
            log.warning("%s: nothing is done for now: %s", self.name, error)
            return
        self._running = True
        atexit.register(self.close)

    def _run(self) -> None:
        while job := self._next():
            job()
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _is_awaited(self) -> bool:
        return bool(self.waiting) or self.closing.is_set()


class TaskQueue(Lane):
    """Does the jobs that requests submit, in order."""

    name = "jobs"

    def _forget(self) -> None:
        super()._forget()
        self._waiting: deque[tuple[contextvars.Context, Job]] = deque()

    def submit(self, job: Job) -> None:
        """Have `job` done soon, in the context of the current service and call.

        Returns immediately and never raises. If MOST jobs are waiting, drops the job and logs it.
        """
        with self._changed:
            full = len(self._waiting) >= MOST
            if not full:
                self._waiting.append((contextvars.copy_context(), job))
                self._changed.notify_all()
                self._start()
        if full:
            self._drop()

    @property
    def waiting(self) -> int:
        """How many jobs have not begun."""
        return len(self._waiting)

    def _drop(self) -> None:
        log.error("jobs: %s are waiting, one was dropped", MOST)

    def _next(self) -> Job | None:
        with self._changed:
            self._changed.wait_for(self._is_awaited)
            self._busy = self._running = bool(self._waiting)
            if not self._waiting:
                return None
            inside, job = self._waiting.popleft()
            return partial(inside.run, _do, job)


class Lookups(TaskQueue):
    """Jobs whose order or timing must not reveal what they found.

    They wait for others for a random time, and are then done in random order.
    """

    name = "look-ups"

    def _forget(self) -> None:
        super()._forget()
        self._ready = 0  # how many of the waiting jobs may run
        self._hurry = False
        self._dropped = 0

    def join(self, seconds: float) -> bool:
        """Do all waiting jobs immediately. False if that takes longer than `seconds`."""
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            try:
                return super().join(seconds)
            finally:
                self._hurry = False

    def _drop(self) -> None:
        self._dropped += 1  # a line for each would flood the log as well

    def _next(self) -> Job | None:
        with self._changed:
            if not self._ready:
                self._changed.wait_for(self._is_awaited)
                tick = _chance.uniform(*TICK_SECONDS)
                self._changed.wait_for(lambda: self._hurry or self.closing.is_set(), tick)
                _chance.shuffle(self._waiting)
                self._ready = len(self._waiting)
                if self._dropped:
                    log.error("look-ups: %s dropped, %s are waiting", self._dropped, self._ready)
                    self._dropped = 0
            self._ready = max(0, self._ready - 1)
            return super()._next()


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
