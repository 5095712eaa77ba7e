"""Connections of waitress, with stricter parsing, limits, and fair queueing of requests.

Skip it on a first reading.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import deque
from collections.abc import Collection
from typing import Any

from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.task import WSGITask
from waitress.utilities import BadRequest, Error

from ..web import problems
from .chunked import Chunks

REQUEST_SECONDS = 60  # from the first byte of a request to its last
WAITING_PER_THREAD = 64  # requests; the last one waits a second or two
MOST_FIELDS = 100  # header lines, as many as gunicorn allows
# waitress's own expressions backtrack in a line that does not match, or a value with many blanks:
# 60 KB took minutes. These read each byte once (RFC 9112 sections 3 and 5).
_REQUEST_LINE = re.compile(
    rb"[!#$%&'*+.^_`|~0-9A-Z-]+ (?:/|\*|[A-Za-z][A-Za-z0-9+.-]*://)[^\x00-\x20\x7f]* HTTP/\d\.\d"
)
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\x00-\x08\x0a-\x1f\x7f]*)")
_ALWAYS_SERVED = frozenset({"/healthz", "/readyz"})


class _Overloaded(Error):
    """More requests are waiting than can be answered in a second or two."""

    code = 503
    reason = "Service Unavailable"

    def to_response(self, ident: str | None = None) -> tuple[str, list[tuple[str, str]], bytes]:
        """Return status, headers and body."""
        headers = [("Content-Type", problems.MEDIA_TYPE), ("Retry-After", "1")]
        body = json.dumps(problems.problem("unavailable", self.body))
        return f"{self.code} {self.reason}", headers, body.encode()


class _TooSlow(Error):
    """A request did not arrive completely in time."""

    code = 408
    reason = "Request Timeout"


class _Parser(HTTPRequestParser):
    """waitress's parser, which also refuses ambiguous framing (RFC 9112 section 6.1)."""

    draining: threading.Event
    waiting: Waiting
    most_waiting: int
    completed: bool
    empty: bool
    body_rcv: Any
    error: Any

    def __init__(self, adj: Any) -> None:
        super().__init__(adj)
        self.begun = time.monotonic()

    def received(self, data: bytes) -> int:
        """Take a piece of data; return how many of its bytes belong to this request."""
        used = super().received(data)
        if self.empty:  # one empty line is skipped, but a client could send them endlessly
            self.empty, self.error = False, BadRequest("Empty lines instead of a request")
        if self.completed:
            self.expect_continue = False  # there is no body to wait for
            crowded = len(self.waiting) > self.most_waiting
            if crowded and not self.error and self.path not in _ALWAYS_SERVED:
                self.error = _Overloaded("Too many requests are waiting. Try again shortly.")
        elif time.monotonic() - self.begun > REQUEST_SECONDS:
            self.error, self.completed = _TooSlow("The request was not received in time."), True
        return int(used)

    def parse_header(self, header_plus: bytes) -> None:
        """Parse the header. Raises ParsingError if other servers might parse it differently."""
        head = header_plus.removesuffix(b"\r\n\r\n").removesuffix(b"\r\n")
        line, *lines = head.split(b"\r\n")
        if not _REQUEST_LINE.fullmatch(line):
            raise ParsingError("Invalid request line")
        if len(lines) > MOST_FIELDS:
            raise ParsingError("Too many header lines")
        fields = [_FIELD.fullmatch(each) for each in lines]
        if not all(fields):  # continuation lines are invalid too (section 5.2)
            raise ParsingError("Invalid header line")
        plain = [b"%s:%s" % (each[1], each[2].strip(b" \t")) for each in fields if each]
        try:
            super().parse_header(b"\r\n".join([line, *plain, b""]))
        except ValueError as error:  # a bad IPv6 address, or a number of 5,000 digits
            raise ParsingError("Invalid target or Content-Length") from error
        names = [each[1].lower() for each in fields if each]
        if b"transfer-encoding" in names and (b"content-length" in names or self.version != "1.1"):
            raise ParsingError("Transfer-Encoding with Content-Length, or not in HTTP/1.1")
        if names.count(b"host") > 1:
            raise ParsingError("Duplicate Host header")
        if self.chunked:
            self.body_rcv = Chunks(self.body_rcv.getbuf())
        if self.draining.is_set() or "/docs/assets/" in self.path:
            self.headers["CONNECTION"] = "close"


class _Task(WSGITask):
    """A request for the application, with the path that the client sent."""

    def get_environment(self) -> dict[str, Any]:
        """Return the WSGI environment. waitress would turn `//v1/x` into `/v1/x`."""
        environ: dict[str, Any] = super().get_environment()
        environ["PATH_INFO"] = self.request.path
        return environ


class Waiting:
    """The requests that wait for a thread. Those whose path is in `patient` let others go first.

    This keeps a flood of logins from blocking everything, however fast each is refused. Logins get
    every fourth turn, so that they do not wait forever.
    """

    def __init__(self, patient: Collection[str]) -> None:
        self._patient = patient
        self._queues: tuple[deque[Any], deque[Any]] = deque(), deque()
        self._turn = 0

    def __len__(self) -> int:
        return sum(map(len, self._queues))

    def append(self, channel: Any) -> None:
        """Queue the connection's next request."""
        path = getattr(channel.requests[0], "path", "")  # an unparsable request has no path
        self._queues[path in self._patient].append(channel)

    def popleft(self) -> Any:
        """Remove and return the connection whose turn it is. Raises IndexError if none waits."""
        self._turn += 1
        others, patient = self._queues
        first, second = (others, patient) if self._turn % 4 else (patient, others)
        return (first or second).popleft()


def channel_class(draining: threading.Event, waiting: Waiting, threads: int) -> type[HTTPChannel]:
    """Return a stricter subclass of waitress's connection.

    It closes after a large response, because a queue of them would hold a thread until the client
    reads them, and while draining, so that clients go elsewhere. While too many requests are
    `waiting`, it answers further ones with 503 itself.
    """
    about = {
        "draining": draining,
        "waiting": waiting,
        "most_waiting": WAITING_PER_THREAD * threads,
    }
    parser = type("Parser", (_Parser,), about)
    return type("Channel", (HTTPChannel,), {"parser_class": parser, "task_class": _Task})
