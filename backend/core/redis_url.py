"""REDIS_URL: which Redis or Valkey it names, and how to connect to it.

Skip it on a first reading.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

if TYPE_CHECKING:
    from redis import Redis

REDIS_FORM = (
    "redis(s):// or valkey(s)://[user:password@]host[:port][/number],"
    " unix://[user:password@]/path[?db=number],"
    " redis+sentinel://[user:password@]host[:port],host[:port].../name[/number]"
)

_SENTINEL = "redis+sentinel"
_SENTINEL_PORT = 26379
_SERVERS = {"redis", "rediss", "valkey", "valkeys"}
_NUMBER = "[0-9]{1,4}"
_HOST = rf"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:{_NUMBER}[0-9]?)?"


class Sentinels(NamedTuple):
    """The sentinels' addresses, their name for the Redis service, and the database number."""

    addresses: list[tuple[str, int]]
    service: str
    number: int


def parse_redis_url(text: str) -> str:
    """Return the text if it is empty or has one of the forms; raise ValueError otherwise."""
    parts = urlsplit(text)
    if parts.scheme == _SENTINEL:
        sentinels(parts)
    elif parts.scheme == "unix":
        if not parts.path or parts.hostname or not re.fullmatch(f"(db={_NUMBER})?", parts.query):
            raise ValueError
    elif text:
        host = parts.netloc.rpartition("@")[2]
        is_form = re.fullmatch(_HOST, host) and re.fullmatch(f"(/({_NUMBER})?)?", parts.path)
        if parts.scheme not in _SERVERS or parts.port == 0 or parts.query or not is_form:
            raise ValueError
    return text


def sentinels(parts: SplitResult) -> Sentinels:
    """Parse a URL with sentinels. Raises ValueError if it does not have the form."""
    path = re.fullmatch(f"/([A-Za-z0-9._-]+)(/({_NUMBER})?)?", parts.path)
    hosts = parts.netloc.rpartition("@")[2].split(",")
    if not path or parts.query or not all(re.fullmatch(_HOST, host) for host in hosts):
        raise ValueError
    split = [urlsplit(f"//{host}") for host in hosts]
    addresses = [(each.hostname or "", each.port or _SENTINEL_PORT) for each in split]
    return Sentinels(addresses, path[1], int(path[3] or 0))


def connect(url: str, seconds: float) -> Redis:
    """Return a client of the URL's Redis. It connects when used, trying once for `seconds`.

    With sentinels, each new connection asks them for the current master.
    """
    from redis import Redis  # not needed without REDIS_URL
    from redis.backoff import NoBackoff
    from redis.retry import Retry
    from redis.sentinel import Sentinel

    options: dict[str, Any] = {
        "socket_timeout": seconds,
        "socket_connect_timeout": seconds,
        "retry": Retry(NoBackoff(), 0),
    }
    parts = urlsplit(url)
    if parts.scheme == _SENTINEL:
        named = sentinels(parts)
        given = {"username": parts.username, "password": parts.password}
        sentinel = Sentinel(named.addresses, sentinel_kwargs=dict(options))
        options |= {name: unquote(text) for name, text in given.items() if text}
        return sentinel.master_for(named.service, db=named.number, **options)
    return Redis.from_url(re.sub("^valkey", "redis", url), **options)
