"""Passing a message to an SMTP server (RFC 5321), encrypted and in bounded time.

Skip it on a first reading.
"""

from __future__ import annotations

import io
import smtplib
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from email.message import EmailMessage
from typing import Any
from urllib.parse import unquote, urlsplit

from ..core.settings_checks import is_loopback


class NotSent(Exception):
    """The server did not accept the message; if this is `final`, it never will.

    `reason` names the error and the server's code, but not its text, which may repeat addresses.
    """

    def __init__(self, reason: str, *, final: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.final = final


def transfer(message: EmailMessage, url: str, *, name: str, seconds: float) -> None:
    """Pass the message to the URL's server, as the host `name`. Raises NotSent if that fails.

    Requires encryption and verifies certificates, except for a server on this machine. With
    `starttls=never` nothing is encrypted, and a password is only sent to this machine.
    """
    sender, recipient = (message[each].addresses[0].addr_spec for each in ("From", "To"))
    with _session(url, name, seconds) as server:
        server.send_message(message, sender, [recipient])
        with suppress(OSError, smtplib.SMTPException):
            server.quit()  # if this fails, the server still has the message


def probe(url: str, *, name: str, seconds: float) -> None:
    """Connect to the URL's server and sign in, as for a message. Raises NotSent if that fails."""
    with _session(url, name, seconds) as server:
        server.noop()


@contextmanager
def _session(url: str, name: str, seconds: float) -> Iterator[smtplib.SMTP]:
    """Connect, encrypt and sign in as the URL asks. Raises NotSent for anything that fails."""
    try:
        with closing(_connect(url, name, seconds)) as server:
            yield server
    except (OSError, smtplib.SMTPException) as error:
        code = _code(error)
        # Other faults can be fixed on either side: a password, a certificate, the server's rules.
        refused = isinstance(error, smtplib.SMTPRecipientsRefused | smtplib.SMTPDataError)
        reason = f"{type(error).__name__} {code or ''}".rstrip()
        raise NotSent(reason, final=refused and code >= 500) from None


def _connect(url: str, name: str, seconds: float) -> smtplib.SMTP:
    parts = urlsplit(url)
    host = parts.hostname or ""
    nearby = is_loopback(host)
    tls = ssl.create_default_context()
    if nearby:
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    server: smtplib.SMTP
    if parts.scheme == "smtps":
        server = _SMTPS(host, parts.port or 465, name, timeout=seconds, context=tls)
    else:
        server = _SMTP(host, parts.port or 587, name, timeout=seconds)
    try:
        server.ehlo_or_helo_if_needed()
        wanted = parts.scheme == "smtp" and not parts.query
        if wanted and (server.has_extn("starttls") or not nearby):
            server.starttls(context=tls)
        if parts.username and parts.password:
            if not (nearby or isinstance(server.sock, ssl.SSLSocket)):
                raise smtplib.SMTPNotSupportedError
            server.login(_Utf8(unquote(parts.username)), _Utf8(unquote(parts.password)))
    except BaseException:
        server.close()
        raise
    return server


def _code(error: Exception) -> int:
    """Return the server's reply code (RFC 5321 section 4.2); 0 if there is none."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return min(code for code, _ in error.recipients.values())
    return getattr(error, "smtp_code", 0)


class _Utf8(str):
    """Text that smtplib encodes as UTF-8, as RFC 4616 requires for user and password."""

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return super().encode("utf-8", errors)


class _SMTP(smtplib.SMTP):
    """An SMTP client whose `timeout` is for all replies together, not for each byte."""

    def __init__(self, host: str, port: int, name: str, *, timeout: float, **more: Any) -> None:
        self._end = time.monotonic() + timeout
        super().__init__(host, port, name, timeout=timeout, **more)

    def auth(
        self, mechanism: str, authobject: Callable[..., str | None], **more: Any
    ) -> tuple[int, bytes]:
        def answer(*challenge: bytes) -> str | None:
            text = authobject(*challenge)
            return None if text is None else _Utf8(text)

        return super().auth(mechanism, answer, **more)  # type: ignore[arg-type]

    def getreply(self) -> tuple[int, bytes]:
        if self.file is None and self.sock is not None:
            self.file = io.BufferedReader(_Received(self.sock, self._end))
        return super().getreply()


class _SMTPS(_SMTP, smtplib.SMTP_SSL):
    """The same, encrypted from the start (RFC 8314)."""


class _Received(io.RawIOBase):
    """Reads from a socket until the time `end`, then raises TimeoutError."""

    def __init__(self, sock: socket.socket, end: float) -> None:
        self._sock = sock
        self._end = end

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(max(0.001, self._end - time.monotonic()))  # 0 would not wait at all
        return self._sock.recv_into(buffer)
