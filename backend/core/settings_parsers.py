"""Parsers of settings, from text to value. Skip it on a first reading.

Each raises ValueError for text that does not have its form.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from .paths import DATA

ENVIRONMENTS = frozenset({"production", "development", "testing"})

# A host name (RFC 1123 section 2.1; some closed networks use underscores), or an IPv4 address.
_LABEL = r"\w([\w-]{0,61}\w)?"
_HOST_NAME = rf"{_LABEL}(\.{_LABEL})*"

VISIBLE = "[!-~]+"  # ASCII without blanks, which is safe in a header

# An e-mail address to send from.
MAIL_ADDRESS = r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9.-]+"


class Limit(NamedTuple):
    """At most `most` uses in `seconds`."""

    most: int
    seconds: int


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def environment_name(text: str) -> str:
    """Accept one of the three, or a name that has a file: a typo must not start the service."""
    is_known = text in ENVIRONMENTS or environment_file(text).is_file()
    if not re.fullmatch("[a-z]+", text) or not is_known:
        raise ValueError
    return text


def environment_file(name: str) -> Path:
    """Return the file of settings of the environment of that name."""
    return DATA / "config" / f"{name}.env"


def whole(least: int, most: int) -> Callable[[str], int]:
    """Return a parser of whole numbers from `least` to `most`."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,10}", text) or not least <= int(text) <= most:
            raise ValueError
        return int(text)

    return parse


def flag(text: str) -> bool:
    """Accept true or false, in either case, and 1 or 0."""
    if text.lower() not in {"true", "false", "1", "0"}:
        raise ValueError
    return text.lower() in {"true", "1"}


def limit(text: str, longest: int = 31_536_000) -> Limit:
    """Accept uses/seconds."""
    most, _, seconds = text.partition("/")
    return Limit(whole(1, 1_000_000)(most), whole(1, longest)(seconds))


def rate(text: str) -> Limit | None:
    """Accept uses/seconds of at most a day, or nothing."""
    return limit(text, 86_400) if text else None


def match(pattern: str) -> Callable[[str], str]:
    """Return a parser of text that matches the pattern."""

    def parse(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError
        return text

    return parse


def texts(text: str) -> tuple[str, ...]:
    """Accept parts separated by commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _host(text: str) -> str:
    """Accept a host name or an IP address; an IPv6 address may be in brackets."""
    address = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if ":" in address:
        ipaddress.IPv6Address(address)
    elif address != text or len(text) > 253 or not re.fullmatch(_HOST_NAME, text):
        raise ValueError
    return text


def _authority(text: str) -> str:
    """Accept a host with an optional port (RFC 3986 section 3.2), without user and password."""
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:@\[\]]+)(?::([0-9]{1,5}))?", text)
    if not match:
        raise ValueError
    _host(match[1])
    whole(1, 65535)(match[2] or "80")
    return text


def listen_address(text: str) -> str:
    """Accept a host, or * for all addresses."""
    return text if text == "*" else _host(text)


def hosts(text: str) -> tuple[str, ...]:
    """Accept hosts with optional ports, separated by commas."""
    if not text.isascii():  # Host headers are ASCII: a Unicode name would never match
        raise ValueError
    return tuple(map(_authority, texts(text)))


def origins(text: str) -> tuple[str, ...]:
    """Accept origins as browsers send them (RFC 6454 section 6.2): lower case, without a path."""
    origins = texts(text)
    for origin in origins:
        scheme, _, authority = origin.partition("://")
        if scheme not in {"http", "https"} or _authority(authority) != authority.lower():
            raise ValueError
    return origins


def roles(text: str) -> tuple[str, ...]:
    """Accept user, admin, or both."""
    roles = texts(text)
    if not set(roles) <= {"user", "admin"}:
        raise ValueError
    return roles


def networks(text: str) -> tuple[Network, ...]:
    """Accept IP addresses and CIDR blocks, separated by commas."""
    parts = texts(text)
    for part in parts:
        if not re.fullmatch(r"[0-9A-Fa-f:.]+(/[0-9]{1,3})?", part) or part.endswith("/"):
            raise ValueError  # a mask such as 255.0.0.0 is easily misread
    return tuple(map(ipaddress.ip_network, parts))


def web_address(text: str) -> str:
    """Accept an http(s) URL without query and fragment."""
    match = re.fullmatch(r"https?://([^/?#\s]+)(/[A-Za-z0-9._~%-]+)*/*", text)
    if not match:
        raise ValueError
    _authority(match[1])
    return text.rstrip("/")


def display_name(text: str) -> str:
    """Accept a name that fits into mails, pages and authenticator apps."""
    # In the label of an authenticator app, a colon ends the issuer.
    if not (text.isprintable() and len(text) <= 64) or set(text) & set(":<>"):
        raise ValueError
    return text


def page_address(text: str) -> str:
    """Accept an http(s) URL that may have a query."""
    if re.search(r"[\s#]", text):
        raise ValueError
    web_address(text.partition("?")[0])
    return text


def mail_server(text: str) -> str:
    """Accept where mail goes: an SMTP server, the console, or memory."""
    server = r"([^\s:/?#]+:[^\s/?#]+@)?([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?/?"
    known = rf"|console:|memory:|smtps://{server}|smtp://{server}(\?starttls=never)?"
    if not re.fullmatch(known, text):
        raise ValueError
    _ = urlsplit(text).port
    return text
