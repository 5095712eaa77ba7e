"""Count by the hour how often keys are used and refused. Counts are kept for 400 days."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from math import ceil, floor
from typing import Any
from uuid import UUID

import peewee as pw

from .. import services
from ..api_keys import queries as keys
from ..core import clock
from ..core.errors import Invalid
from ..core.identity import Identity
from ..db.database import execute, json_rows, on_postgres
from .models import KeyUsage

KEPT = timedelta(days=400)

HOUR, DAY = 3600, 86_400  # seconds

# In seconds: the interval, the default span without `since`, and the longest span.
INTERVALS = {
    "hour": (HOUR, 24 * HOUR, 31 * DAY),
    "day": (DAY, 30 * DAY, int(KEPT.total_seconds())),
}


def count(key_id: str, code: str) -> None:
    """Count an outcome for the key with this id, in hex. It is written later, with others."""
    hour = int(clock.now().timestamp()) // HOUR
    services.current().write_behind[write_usage].add((key_id, hour, code), 1)


def write_usage(counts: dict[tuple[str, int, str], int]) -> None:
    """Add to the counts, {(key id, hour, code): how often}, in one statement.

    Deleted keys are left out. If the database's confirmation is lost, uses are counted twice.
    """
    # In one order, as in keys.write_last_used.
    rows = json.dumps([(*what, uses) for what, uses in counts.items()])
    # Waits for a key that is just being deleted, and then leaves it out.
    lock = " FOR KEY SHARE OF k" if on_postgres() else ""
    execute(
        f"WITH counted (id, hour, code, uses) AS ({json_rows('uuid', 'int', 'text', 'bigint')}),"  # noqa: S608
        " known AS (SELECT n.* FROM counted n JOIN api_keys k ON k.id = n.id"
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
    """Return the counts of each hour or day in which the key was presented, oldest first.

    The first is the one that contains `since`, and the last the one that contains `until`; by
    default, the last 24 hours or 30 days. Raises Invalid for more than 31 days by the hour, or 400
    by the day.
    """
    size, usual, most = INTERVALS[interval]
    end = (until or clock.now()).timestamp()
    start = since.timestamp() if since else end - usual
    if start >= end:
        raise Invalid("since", "Must be before until.", place="query")
    if end - start > most:
        raise Invalid("since", f"Must be at most {most // DAY} days before until.", place="query")
    keys.get(actor, key_id)
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
    """Delete at most `limit` counts that are older than 400 days; return how many."""
    before = int((clock.now() - KEPT).timestamp()) // HOUR
    key = KeyUsage.key, KeyUsage.hour, KeyUsage.code
    old = KeyUsage.select(*key).where(KeyUsage.hour < before).limit(limit)
    return int(KeyUsage.delete().where(pw.Tuple(*key).in_(old)).execute())
