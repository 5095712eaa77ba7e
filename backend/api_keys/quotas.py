"""Decide when a quota is refilled: every day or month in UTC. Skip it on a first reading."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

INTERVALS = ("daily", "monthly")
NEVER = datetime(1, 1, 1, tzinfo=UTC)


def period_start(interval: str | None, now: datetime) -> datetime:
    """Return when the current day or month began, at 00:00 UTC; NEVER for None."""
    if interval is None:
        return NEVER
    day = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return day if interval == "daily" else day.replace(day=1)


def next_start(interval: str | None, now: datetime) -> datetime | None:
    """Return when the next day or month begins; None for None."""
    if interval is None:
        return None
    # A day after the start of a day, or 31 after the start of a month, is in the next one.
    later = period_start(interval, now) + timedelta(days=1 if interval == "daily" else 31)
    return period_start(interval, later)


def is_due(interval: str | None, refilled_at: datetime | None, now: datetime) -> bool:
    """Return whether a new day or month has begun since the quota was set or refilled."""
    return refilled_at is not None and refilled_at < period_start(interval, now)


def fault(quota: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return (member, what is wrong with it) if the members do not form a quota, or None."""
    amount = quota.get("refill_amount")
    if (amount is None) != (quota.get("refill_interval") is None):
        return "refill_amount", "Must be sent together with refill_interval."
    if amount is None and "remaining" not in quota:
        return "remaining", "Missing data for required field."
    return None


def within(inner: dict, outer: dict) -> bool:
    """Return whether the quota `inner` can never allow more than the quota `outer`."""
    if inner["remaining"] > outer["remaining"]:
        return False
    if inner["refill_interval"] is None:
        return True
    if outer["refill_interval"] is None:
        return False
    times = 31 if (inner["refill_interval"], outer["refill_interval"]) == INTERVALS else 1
    return bool(inner["refill_amount"] * times <= outer["refill_amount"])
