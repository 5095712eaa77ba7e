"""What waitress accepts on a connection, stricter than by itself, bounded, and in what order."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Collection
from typing import Any

from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.utilities import Error

from .web import problems

REQUEST_SECONDS = 60  # from the first byte of a request to its last
WAITING_PER_THREAD = 64  # requests; the last of them waits a second or two
_ALWAYS_SERVED = frozenset({"/healthz", "/readyz"})


class _Overloaded(Error):
    """More requests wait than are served in a second or two."""

    code = 503
    reason = "Service Unavailable"

    def to_response(self, ident: str | None = None) -> tuple[str, list[tuple[str, str]], bytes]:
        """Status, headers and body."""
        headers = [("Content-Type", problems.MEDIA_TYPE), ("Retry-After", "1")]
        body = json.dumps(problems.problem("unavailable", self.body))
        return f"{self.code} {self.reason}", headers, body.encode()


class _TooSlow(Error):
    """A request that does not come to its end."""

    code = 408
    reason = "Request Timeout"


class _Parser(HTTPRequestParser):
    """waitress's parser; framing of two readings is refused (RFC 9112 section 6.1)."""

    draining: threading.Event
    waiting: Waiting
    most_waiting: int
    completed: bool
    error: Any

    def __init__(self, adj: Any) -> None:
        super().__init__(adj)
        self.begun = time.monotonic()

    def received(self, data: bytes) -> int:
        """Take what has come; how many bytes of it were of this request."""
        used = super().received(data)
        if self.completed:
            crowded = len(self.waiting) > self.most_waiting
            if crowded and not self.error and self.path not in _ALWAYS_SERVED:
                self.error = _Overloaded("Too many requests are waiting. Try again shortly.")
        elif time.monotonic() - self.begun > REQUEST_SECONDS:
            self.error, self.completed = _TooSlow("The request did not come to its end."), True
        return int(used)

    def parse_header(self, header_plus: bytes) -> None:
        """Read the header; ParsingError if others might read it differently."""
        super().parse_header(header_plus)
        lines = header_plus.split(b"\r\n")[1:]
        if any(line.startswith((b" ", b"\t")) for line in lines):
            raise ParsingError("A header line that goes on in the next (RFC 9112 section 5.2)")
        names = [line.partition(b":")[0].strip().lower() for line in lines]
        if b"transfer-encoding" in names and (b"content-length" in names or self.version != "1.1"):
            raise ParsingError("Transfer-Encoding beside Content-Length, or not in HTTP/1.1")
        if names.count(b"host") > 1:
            raise ParsingError("Host twice")
        if self.draining.is_set() or "/docs/assets/" in self.path:
            self.headers["CONNECTION"] = "close"


class Waiting:
    """The requests that wait for a thread. Those whose path is in `patient` let the others pass.

    So that a flood of logins, however fast each is refused, does not stand before all else. Every
    fourth turn is theirs, or they might wait for ever.
    """

    def __init__(self, patient: Collection[str]) -> None:
        self._patient = patient
        self._lanes: tuple[deque[Any], deque[Any]] = deque(), deque()
        self._turn = 0

    def __len__(self) -> int:
        return sum(map(len, self._lanes))

    def append(self, channel: Any) -> None:
        """Have the connection's next request wait."""
        path = getattr(channel.requests[0], "path", "")  # what cannot be parsed has none
        self._lanes[path in self._patient].append(channel)

    def popleft(self) -> Any:
        """The connection whose turn it is; IndexError if none waits."""
        self._turn += 1
        others, patient = self._lanes
        first, second = (others, patient) if self._turn % 4 else (patient, others)
        return (first or second).popleft()


def channel_class(draining: threading.Event, waiting: Waiting, threads: int) -> type[HTTPChannel]:
    """waitress's connection, stricter.

    It ends after a large answer, of which many in a queue would hold the thread that makes them
    until the client reads, and while draining, so that clients go elsewhere. While too many
    requests are `waiting`, further ones are answered 503 without asking the application.
    """
    about = {
        "draining": draining,
        "waiting": waiting,
        "most_waiting": WAITING_PER_THREAD * threads,
    }
    return type("Channel", (HTTPChannel,), {"parser_class": type("Parser", (_Parser,), about)})
