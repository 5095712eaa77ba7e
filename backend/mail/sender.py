"""The thread that sends mail when woken, and when mail is due. Skip it on a first reading."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from ..background.task_queue import CLOSE_SECONDS, BackgroundThread, Task
from ..db.errors import explain, is_unavailable

log = logging.getLogger(__name__)

AGAIN_SECONDS = 10.0  # pause after an error


class Sender(BackgroundThread):
    """Sends mail when woken, and again after the number of seconds that `send` returns.

    `send` takes a function that returns whether it may continue.
    """

    name = "mail"

    def __init__(self, send: Callable[[Callable[[], bool]], float]) -> None:
        self._send = send
        super().__init__()

    def _forget(self) -> None:
        super()._forget()
        self._wanted = False
        self._pause: float | None = None
        self._deadline = float("inf")
        self._failed = ""

    def start(self) -> None:
        """Look for mail that another process left behind, now and from time to time."""
        ending = self.closing.is_set() or not threading.main_thread().is_alive()
        if not (self._running or ending):
            self.wake()

    def wake(self) -> None:
        """Send due mail soon. Returns immediately and never raises."""
        with self._changed:
            self._wanted = True
            self._changed.notify_all()
            self._start()

    def close(self) -> None:
        """Send due mail for at most CLOSE_SECONDS; the rest stays in the outbox."""
        self._deadline = time.monotonic() + CLOSE_SECONDS / 2
        super().close()

    @property
    def waiting(self) -> int:
        """1 if there may be mail to send, else 0."""
        return int(self._wanted)

    def _next(self) -> Task | None:
        with self._changed:
            timed_out = not self._changed.wait_for(self._is_awaited, self._pause)
            self._busy = self._running = self._wanted or timed_out
            self._wanted = False
            return self._send_due if self._busy else None

    def _send_due(self) -> None:
        try:
            self._pause = self._send(lambda: time.monotonic() < self._deadline)
            self._failed = ""
        except Exception as error:
            self._pause = AGAIN_SECONDS
            if not is_unavailable(error):
                log.exception("mail: sending is paused after an error")
            elif self._failed != str(error):
                log.warning("mail is waiting: %s", explain(error))
            self._failed = str(error)
