"""What code that runs inside the service may ask for without being handed it.

Two context variables: the service whose code is running (settings, database, secrets), so that
several apps may live in one process, and the call it is answering, for logs.
"""

from __future__ import annotations

import ipaddress
import threading
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..background.periodic import Chores
    from ..background.task_queue import Jobs, Lookups
    from ..background.write_behind import WriteBehind
    from ..crypto.access_tokens import AccessTokens
    from ..crypto.keyring import Keyring
    from ..crypto.passwords import Hasher
    from ..mail.mailer import Mailer
    from ..mail.sender import Sender
    from .metrics import Metrics
    from .rate_limits import Limiter, Rate
    from .settings import Settings


@dataclass(frozen=True, slots=True)
class Service:
    """One running service: what `create_app` built from its settings."""

    settings: Settings
    database: Any  # peewee.Database
    keyring: Keyring
    access_tokens: AccessTokens
    hasher: Hasher
    limiter: Limiter
    last_used: WriteBehind
    usage: WriteBehind
    denials: WriteBehind
    chores: Chores
    jobs: Jobs
    lookups: Lookups
    mailer: Mailer
    sender: Sender
    metrics: Metrics
    draining: threading.Event = field(default_factory=threading.Event)
    probing: threading.Semaphore = field(default_factory=threading.Semaphore)

    def active(self) -> Active:
        """Let the code inside of a `with` block run as part of this service."""
        return Active(self)


class Active:
    """What `Service.active` returns. A generator would take each request three times as long."""

    __slots__ = ("_service", "_token")

    def __init__(self, service: Service) -> None:
        self._service = service

    def __enter__(self) -> Service:
        self._token = _service.set(self._service)
        return self._service

    def __exit__(self, *exc_info: object) -> None:
        _service.reset(self._token)


class Call:
    """One request as logs see it. `route`, `who`, `identity`, `rate` are filled in on the way."""

    __slots__ = (
        "address",
        "identity",
        "method",
        "rate",
        "request_id",
        "route",
        "trace_id",
        "user_agent",
        "who",
    )

    def __init__(self, request_id: str, address: str, method: str, user_agent: str) -> None:
        self.request_id = request_id
        self.address = address
        self.method = method
        self.user_agent = user_agent
        self.trace_id: str | None = None
        self.route: str | None = None
        self.who: str | None = None
        self.identity: Any = None
        self.rate: Rate | None = None  # of the key that is calling


_service: ContextVar[Service | None] = ContextVar("service", default=None)
call: ContextVar[Call | None] = ContextVar("call", default=None)


def network() -> str:
    """Where the present call comes from; of IPv6 the /64, which is what one customer is given."""
    now = call.get()
    address = now.address if now else ""
    if ":" not in address:
        return address
    return str(ipaddress.ip_network((address, 64), strict=False))


def running() -> Service | None:
    """The service whose code is running; None outside of any."""
    return _service.get()


def service() -> Service:
    """The service whose code is running. RuntimeError outside of any."""
    service = _service.get()
    if service is None:
        raise RuntimeError("no service is active; see Service.active")
    return service


def settings() -> Settings:
    """The settings of the service whose code is running."""
    return service().settings
