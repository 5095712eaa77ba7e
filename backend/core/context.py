"""What code that runs inside the service may ask for without being handed it.

Two context variables: the service whose code is running (settings, database, secrets), so that
several apps may live in one process, and the call it is answering, for logs.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .behind import WriteBehind
    from .passwords import Hasher
    from .settings import Settings
    from .tokens import Keyring


@dataclass(frozen=True, slots=True)
class Service:
    """One running service: what `create_app` built from its settings."""

    settings: Settings
    database: Any  # peewee.Database
    keyring: Keyring
    hasher: Hasher
    last_used: WriteBehind
    draining: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def active(self) -> Iterator[Service]:
        """Let the code inside the block run as part of this service."""
        token = _service.set(self)
        try:
            yield self
        finally:
            _service.reset(token)


class Call:
    """One request as logs see it. `who` and `route` are filled in on the way."""

    __slots__ = ("address", "identity", "method", "request_id", "route", "who")

    def __init__(self, request_id: str, address: str, method: str) -> None:
        self.request_id = request_id
        self.address = address
        self.method = method
        self.route: str | None = None
        self.who: str | None = None
        self.identity: Any = None


_service: ContextVar[Service] = ContextVar("service")
call: ContextVar[Call | None] = ContextVar("call", default=None)


def service() -> Service:
    """The service whose code is running. LookupError outside of any."""
    return _service.get()


def settings() -> Settings:
    """The settings of the service whose code is running."""
    return _service.get().settings
