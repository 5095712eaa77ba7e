"""Audit events as the databases return them, and how they are signed and sealed.

Skip it on a first reading. They are read with hand-written SQL, because the model may fail to load
a row that was altered.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from .. import services
from ..db.database import current, on_postgres
from .models import AuditEvent

BATCH = 1000  # rows in memory at a time


class Row(NamedTuple):
    """An event's columns: ids in hex, times as text, or whatever an altered row holds."""

    id: Any
    created_at: Any
    action: Any
    outcome: Any
    actor_id: Any
    target_type: Any
    target_id: Any
    ip: Any
    request_id: Any
    detail: Any
    sequence: Any
    seal: Any

    @property
    def time(self) -> datetime | None:
        """When the event happened; None if the column holds no time with a zone."""
        try:
            time = datetime.fromisoformat(self.created_at)
        except (TypeError, ValueError):
            return None
        return time if time.tzinfo else None

    def is_signed(self) -> bool:
        """Return whether `seal` is the signature that the event got when it was written."""
        return services.current().keyring.is_event_signed(_text(self[:-2]), str(self.seal))

    def sealed(self, key: bytes, before: str) -> str:
        """Return the seal for this row, given the seal of the row before it."""
        return hmac.digest(key, f"{before}{_text(self[:-1])}".encode(), hashlib.sha256).hex()


def sign(event: AuditEvent) -> None:
    """Sign an event that is about to be stored, since unsigned events are never sealed."""
    values = event.__data__ | {"created_at": event.created_at.isoformat(" ", "microseconds")}
    text = _text([values.get(name) for name in _SIGNED])
    event.seal = services.current().keyring.sign_event(text)


def hex_of(value: Any) -> str:
    """Return text for a value that JSON cannot represent."""
    return value.hex if isinstance(value, UUID) else repr(value)


_SIGNED = Row._fields[:-2]
_text = json.JSONEncoder(default=hex_of, separators=(",", ":")).encode

_SELECT = f"SELECT {', '.join(Row._fields)} FROM audit_events "  # noqa: S608 (no input)
_TIME_ON_POSTGRES = (
    "replace(to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.USAD'), 'AD', '+00:00')"
)


def unsealed() -> Generator[Row]:
    """Yield all rows without a sequence, in the order in which they were written."""
    return _rows("WHERE sequence IS NULL ORDER BY id")


def sealed() -> Generator[Row]:
    """Yield all rows with a sequence, in its order."""
    return _rows("WHERE sequence IS NOT NULL ORDER BY sequence, id")


def count() -> int:
    """Count the rows of the table itself, since someone may have made an index leave some out."""
    table = "audit_events" if on_postgres() else "audit_events NOT INDEXED"
    return int(current.execute_sql(f"SELECT COUNT(*) FROM {table}").fetchone()[0])  # noqa: S608


def _rows(condition: str) -> Generator[Row]:
    """Yield the rows, with one batch in memory at a time. Needs a transaction.

    Does not find a row by the values of the one before it, which may have any type on SQLite.
    """
    if not on_postgres():
        cursor = current.execute_sql(_SELECT + condition)
        while batch := cursor.fetchmany(BATCH):
            yield from map(Row._make, batch)
        return
    statement = _SELECT.replace("created_at", _TIME_ON_POSTGRES, 1) + condition
    current.execute_sql(f"DECLARE audit_rows NO SCROLL CURSOR FOR {statement}")
    with suppress(GeneratorExit):
        while batch := current.execute_sql(f"FETCH {BATCH} FROM audit_rows").fetchall():
            yield from map(Row._make, batch)
    current.execute_sql("CLOSE audit_rows")


@contextmanager
def any_text() -> Iterator[None]:
    """Allow text that is not UTF-8 to be read, since SQLite allows it to be written."""
    if on_postgres():
        yield
        return
    connection = current.obj.connection()
    connection.text_factory = lambda raw: raw.decode(errors="surrogateescape")
    try:
        yield
    finally:
        connection.text_factory = str
