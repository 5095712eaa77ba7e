"""Services: the parts of one running app."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from .background.periodic import PeriodicTasks
from .background.task_queue import ShuffledTasks, TaskQueue
from .background.write_behind import WriteBehind
from .core import context
from .core.metrics import Metrics
from .core.rate_limits import RateLimiter
from .core.settings import Settings
from .crypto.access_tokens import AccessTokens
from .crypto.keyring import Keyring
from .crypto.passwords import PasswordHasher
from .mail.mailer import Mailer
from .mail.sender import Sender
from .subject import Subject


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of one running app, built by `create_services`.

    `write_behind` has the queue of each function that writes in batches. The three fields after
    `subjects` are collected from all of them in advance, to save requests the time.
    """

    settings: Settings
    database: Any  # peewee.Database
    keyring: Keyring
    access_tokens: AccessTokens
    password_hasher: PasswordHasher
    rate_limiter: RateLimiter
    write_behind: dict[Callable[[dict[Any, Any]], None], WriteBehind]
    periodic_tasks: PeriodicTasks
    tasks: TaskQueue
    shuffled_tasks: ShuffledTasks
    mailer: Mailer
    sender: Sender
    metrics: Metrics
    subjects: tuple[Subject, ...]
    second_steps: tuple[Callable[[Any], None], ...]
    session_checks: tuple[Callable[[Any], None], ...]
    on_verification: tuple[Callable[[str, str], None], ...]
    draining: threading.Event = field(default_factory=threading.Event)
    probing: threading.Semaphore = field(default_factory=threading.Semaphore)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Run the body of a `with` block inside this service."""
        token = context.service.set(self)
        try:
            yield
        finally:
            context.service.reset(token)

    def flush(self) -> None:
        """Write everything that is queued in `write_behind` now."""
        for queue in self.write_behind.values():
            queue.flush()


def current() -> Services:
    """Return the services of the running app. Raises RuntimeError outside of one."""
    return context.required()  # type: ignore[return-value]
