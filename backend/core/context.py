"""The running service and the current call, for code to which they are not passed.

Both are context variables: the service (settings, database, secrets), so that one process can have
several apps, and the call that it is answering, for logs.
"""

from __future__ import annotations

import ipaddress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from .rate_limits import Rate
    from .settings import Settings


class Running(Protocol):
    """The part of the running service that code below the subjects may use.

    Subjects get the whole service from `services.current()`.
    """

    @property
    def settings(self) -> Settings: ...

    @property
    def database(self) -> Any: ...

    @property
    def sender(self) -> Any: ...


class Call:
    """A request, as the log shows it. Later steps set `route`, `who`, `identity` and `rate`."""

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
        self.rate: Rate | None = None  # the rate limit of the calling key


service: ContextVar[Any] = ContextVar("service", default=None)
call: ContextVar[Call | None] = ContextVar("call", default=None)


def current_call() -> Call:
    """Return the current request. For code that runs only while one is being answered."""
    found = call.get()
    assert found is not None, "no request is being answered"
    return found


def network() -> str:
    """Return the client's address; for IPv6 its /64, the range that a customer gets."""
    now = call.get()
    address = now.address if now else ""
    if ":" not in address:
        return address
    return str(ipaddress.ip_network((address, 64), strict=False))


def running() -> Running | None:
    """Return the running service, or None outside of one."""
    found: Running | None = service.get()
    return found


def required() -> Running:
    """Return the running service. Raises RuntimeError outside of one."""
    found: Running | None = service.get()
    if found is None:
        raise RuntimeError("no service is active; see Services.active")
    return found


def settings() -> Settings:
    """Return the settings of the running service."""
    return required().settings
