"""How often keys are used and refused: counted by the hour, written behind, kept for 400 days."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from math import ceil, floor
from typing import Any
from uuid import UUID

import peewee as pw

from ..core import clock
from ..core.errors import Invalid
from ..core.identity import Identity
from ..db.database import execute, json_rows, on_postgres
from . import service
from .models import KeyUsage

KEPT = timedelta(days=400)

HOUR, DAY = 3600, 86_400  # seconds

# The seconds of each interval, of what is told without `since`, and of what is told at once.
INTERVALS = {
    "hour": (HOUR, 24 * HOUR, 31 * DAY),
    "day": (DAY, 30 * DAY, int(KEPT.total_seconds())),
}


def write_usage(notes: dict[tuple[str, int, str], int]) -> None:
    """Add up what was decided: {(key id, hour, code): how often}, one statement.

    Keys that are gone are left out. What is lost on the way back from the database counts twice.
    """
    # In one order, as in service.write_last_used.
    rows = json.dumps([(*what, uses) for what, uses in notes.items()])
    # A key that is just being deleted is waited for, and gone.
    lock = " FOR KEY SHARE OF k" if on_postgres() else ""
    execute(
        f"WITH noted (id, hour, code, uses) AS ({json_rows('uuid', 'int', 'text', 'bigint')}),"  # noqa: S608
        " known AS (SELECT n.* FROM noted n JOIN api_keys k ON k.id = n.id"
        f" ORDER BY n.id, n.hour, n.code{lock})"
        " INSERT INTO key_usage (key_id, hour, code, uses) SELECT * FROM known WHERE true"
        " ON CONFLICT (key_id, hour, code) DO UPDATE SET uses = key_usage.uses + excluded.uses",
        rows,
    )


def list_usage(
    actor: Identity,
    key_id: UUID,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    interval: str = "hour",
) -> list[dict[str, Any]]:
    """What was decided of the key in each whole hour or day that has counts, the oldest first.

    From the one that holds `since` to the one that `until` ends; without them the last 24 hours, or
    30 days. Invalid for more than 31 days by the hour, or 400.
    """
    size, usual, most = INTERVALS[interval]
    end = (until or clock.now()).timestamp()
    start = since.timestamp() if since else end - usual
    if start >= end:
        raise Invalid("since", "Must lie before until.", place="query")
    if end - start > most:
        raise Invalid("since", f"At most {most // DAY} days before until.", place="query")
    service.get(actor, key_id)
    hours = size // HOUR
    slot = (KeyUsage.hour / hours).alias("slot")
    rows = (
        KeyUsage.select(slot, KeyUsage.code, pw.fn.SUM(KeyUsage.uses))
        .where(KeyUsage.key == key_id)
        .where(KeyUsage.hour >= floor(start / size) * hours)
        .where(KeyUsage.hour < ceil(end / size) * hours)
        .group_by(pw.SQL("slot"), KeyUsage.code)
        .order_by(pw.SQL("slot"), KeyUsage.code)
    )
    items: dict[int, dict[str, Any]] = {}
    for number, code, uses in rows.tuples():
        start_of = datetime.fromtimestamp(number * size, UTC)
        item = items.setdefault(number, {"start": start_of, "valid": 0, "denied": {}})
        (item if code == "valid" else item["denied"])[code] = int(uses)
    return list(items.values())


def prune(limit: int) -> int:
    """Delete at most `limit` counts that are older than they are kept; returns how many."""
    before = int((clock.now() - KEPT).timestamp()) // HOUR
    key = KeyUsage.key, KeyUsage.hour, KeyUsage.code
    old = KeyUsage.select(*key).where(KeyUsage.hour < before).limit(limit)
    return int(KeyUsage.delete().where(pw.Tuple(*key).in_(old)).execute())
