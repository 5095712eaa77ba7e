"""What code that runs inside the service may ask for without being handed it.

Two context variables: the service whose code is running (settings, database, secrets), so that
several apps may live in one process, and the call it is answering, for logs.
"""

from __future__ import annotations

import ipaddress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from .rate_limits import Rate
    from .settings import Settings


class Running(Protocol):
    """What code below the subjects may ask of the service it is a part of.

    Subjects ask for the whole: `services.current()`.
    """

    @property
    def settings(self) -> Settings: ...

    @property
    def database(self) -> Any: ...

    @property
    def sender(self) -> Any: ...


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


service: ContextVar[Any] = ContextVar("service", default=None)
call: ContextVar[Call | None] = ContextVar("call", default=None)


def current_call() -> Call:
    """The request that is being answered. Not for code that also runs outside of one."""
    found = call.get()
    assert found is not None, "no request is being answered"
    return found


def network() -> str:
    """Where the present call comes from; of IPv6 the /64, which is what one customer is given."""
    now = call.get()
    address = now.address if now else ""
    if ":" not in address:
        return address
    return str(ipaddress.ip_network((address, 64), strict=False))


def running() -> Running | None:
    """The service whose code is running; None outside of any."""
    found: Running | None = service.get()
    return found


def required() -> Running:
    """The service whose code is running. RuntimeError outside of any."""
    found = running()
    if found is None:
        raise RuntimeError("no service is active; see Services.active")
    return found


def settings() -> Settings:
    """The settings of the service whose code is running."""
    return required().settings
