"""DATABASE_URL: its forms, and the parameters that it can have. Skip it on a first reading."""

from __future__ import annotations

import re

_INSTEAD = {
    "pgbouncer": "set DATABASE_PREPARED_STATEMENTS=false instead",
    "schema": "use options=-csearch_path%3DNAME instead",
    "connection_limit": "set DATABASE_POOL_SIZE instead",
    "pool_timeout": "set DATABASE_TIMEOUT instead",
}


class UnknownParameter(ValueError):
    """The URL has an unknown parameter. The message names it, and repeats no value."""


def parse_database_url(text: str) -> str:
    """Return the URL as drivers expect it. Raises ValueError if it names no database."""
    if text.startswith("postgres://"):
        text = text.replace("postgres://", "postgresql://", 1)
    if text.startswith("postgresql://"):
        _check_postgres(text)
    elif not text.startswith("sqlite:///") or text in ("sqlite:///", "sqlite:///:memory:"):
        raise ValueError
    elif "?" in text:  # it would become part of the file's name
        _refuse(_parameters(text))
    return text


def _check_postgres(text: str) -> None:
    from psycopg import ProgrammingError, conninfo, pq  # not needed on SQLite

    known = {each.keyword.decode() for each in pq.Conninfo.get_defaults()} | {"ssl"}
    unknown = [name for name in _parameters(text) if name not in known]
    if unknown and "@" in text and not re.match("[a-z]+://[^@/]*@", text):
        raise ValueError  # a slash in the password: the rest may be part of the password
    _refuse(unknown)
    try:
        ports = conninfo.conninfo_to_dict(text).get("port", "")
    except ProgrammingError:
        raise ValueError from None
    for port in str(ports).split(","):  # one for each host
        if not re.fullmatch("[0-9]{0,5}", port) or int(port or "0") > 65535:
            raise ValueError


def _parameters(text: str) -> list[str]:
    # Like libpq: a password may contain a question mark.
    query = re.sub("://[^@/]*@", "://", text, count=1).partition("?")[2]
    return [part.partition("=")[0] for part in query.split("&") if part]


def _refuse(names: list[str]) -> None:
    if not names:
        return
    name = names[0]
    if not re.fullmatch("[A-Za-z_]+", name):
        raise ValueError
    raise UnknownParameter(f"Unknown parameter {name!r}: {_INSTEAD.get(name, 'remove it')}.")
