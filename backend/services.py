"""Services: the parts of one running app."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from .background.periodic import PeriodicTasks
from .background.task_queue import Lookups, TaskQueue
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
    """The parts of one running app, as `create_services` built them from its settings.

    `write_behind` holds the notes that each function of the subjects will write. The three fields
    after `subjects` are collected from them, since requests need them at once.
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
    lookups: Lookups
    mailer: Mailer
    sender: Sender
    metrics: Metrics
    subjects: tuple[Subject, ...]
    second_steps: tuple[Callable[[Any], None], ...]
    session_checks: tuple[Callable[[Any], None], ...]
    verified: tuple[Callable[[str, str], None], ...]
    draining: threading.Event = field(default_factory=threading.Event)
    probing: threading.Semaphore = field(default_factory=threading.Semaphore)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Run the code inside a `with` block as part of this service."""
        token = context.service.set(self)
        try:
            yield
        finally:
            context.service.reset(token)

    def flush(self) -> None:
        """Write all notes now."""
        for notes in self.write_behind.values():
            notes.flush()


def current() -> Services:
    """Return the services of the running app. Raises RuntimeError outside of one."""
    return context.required()  # type: ignore[return-value]
