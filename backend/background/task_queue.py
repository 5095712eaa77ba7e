"""Queued tasks: work that a request starts without waiting for it, done in background threads.

A killed process loses its tasks; anything that must survive belongs in the database. Skip it on a
first reading.
"""

from __future__ import annotations

import atexit
import contextvars
import logging
import secrets
import threading
from collections import deque
from collections.abc import Callable
from functools import partial

from ..core import context
from ..core.forks import call_in_children
from ..db.database import release

log = logging.getLogger(__name__)

MOST = 1000  # waiting tasks
CLOSE_SECONDS = 5.0  # for the remaining work when the process ends
TICK_SECONDS = (1.0, 3.0)  # how long shuffled tasks wait for others: a random time in this range

Task = Callable[[], object]
_chance = secrets.SystemRandom()


class BackgroundThread:
    """A thread that does one thing after another.

    It starts when there is something to do, so that each forked process (gunicorn) has its own.
    Work that was queued before a fork is done in the parent.
    """

    name = ""

    def __init__(self) -> None:
        self._forget()
        call_in_children(self._forget)

    def _forget(self) -> None:
        """Drop all work and the thread. A lock held at a fork would stay held in the child."""
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
            log.error("%s: not finished in time, %s not started", self.name, self.waiting)
        atexit.unregister(self.close)

    @property
    def waiting(self) -> int:
        """How many tasks have not started."""
        raise NotImplementedError

    def _next(self) -> Task | None:
        """Wait for the next task and return it; None when closing and nothing is left."""
        raise NotImplementedError

    def _start(self) -> None:
        if self._running:
            return
        try:
            threading.Thread(target=self._run, name=self.name, daemon=True).start()
        except RuntimeError as error:  # too many threads, or the interpreter is exiting
            log.warning("%s: no thread can be started for now: %s", self.name, error)
            return
        self._running = True
        atexit.register(self.close)

    def _run(self) -> None:
        while task := self._next():
            task()
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _is_awaited(self) -> bool:
        return bool(self.waiting) or self.closing.is_set()


class TaskQueue(BackgroundThread):
    """Does the tasks that requests submit, in order."""

    name = "tasks"

    def _forget(self) -> None:
        super()._forget()
        self._waiting: deque[tuple[contextvars.Context, Task]] = deque()

    def submit(self, task: Task) -> None:
        """Have `task` done soon, in the context of the current service and call.

        Returns immediately and never raises. If MOST tasks are waiting, drops it and logs that.
        """
        with self._changed:
            full = len(self._waiting) >= MOST
            if not full:
                self._waiting.append((contextvars.copy_context(), task))
                self._changed.notify_all()
                self._start()
        if full:
            self._drop()

    @property
    def waiting(self) -> int:
        """How many tasks have not started."""
        return len(self._waiting)

    def _drop(self) -> None:
        log.error("tasks: %s are waiting, one was dropped", MOST)

    def _next(self) -> Task | None:
        with self._changed:
            self._changed.wait_for(self._is_awaited)
            self._busy = self._running = bool(self._waiting)
            if not self._waiting:
                return None
            inside, task = self._waiting.popleft()
            return partial(inside.run, _do, task)


class ShuffledTasks(TaskQueue):
    """Tasks whose order and timing must not reveal what they find.

    They wait for others for a random time, and are then done in random order.
    """

    name = "shuffled tasks"

    def _forget(self) -> None:
        super()._forget()
        self._ready = 0  # how many of the waiting tasks may run
        self._hurry = False
        self._dropped = 0

    def join(self, seconds: float) -> bool:
        """Do all waiting tasks immediately. False if that takes longer than `seconds`."""
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            try:
                return super().join(seconds)
            finally:
                self._hurry = False

    def _drop(self) -> None:
        self._dropped += 1  # a line for each one would flood the log

    def _next(self) -> Task | None:
        with self._changed:
            if not self._ready:
                self._changed.wait_for(self._is_awaited)
                tick = _chance.uniform(*TICK_SECONDS)
                self._changed.wait_for(lambda: self._hurry or self.closing.is_set(), tick)
                _chance.shuffle(self._waiting)
                self._ready = len(self._waiting)
                if self._dropped:
                    log.error(
                        "shuffled tasks: %s dropped, %s are waiting", self._dropped, self._ready
                    )
                    self._dropped = 0
            self._ready = max(0, self._ready - 1)
            return super()._next()


def _do(task: Task) -> None:
    try:
        try:
            task()
        finally:
            service = context.running()
            if service:
                release(service.database)
    except Exception:
        log.exception("a task failed")
