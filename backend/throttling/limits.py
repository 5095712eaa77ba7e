"""Limits on how often something may be done, counted in the database by all processes together."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from math import ceil

import peewee as pw

from .. import services
from ..core import clock, context
from ..core.errors import Failure
from ..core.settings_parsers import Limit
from ..db.database import atomic
from .models import Throttle


def allow(name: str, limit: Limit) -> bool:
    """Use one unit of the limit called `name`; return False if none is left."""
    return _use(services.current().keyring.blind(name), limit) is not None


def spend(name: str, limit: Limit) -> None:
    """Like `allow`, but raise Failure `rate_limited`, with the seconds to wait, if none is left."""
    if not allow(name, limit):
        raise too_many(services.current().keyring.blind(name), None)


def allow_from_here(name: str, limit: Limit) -> bool:
    """Like `allow`, but with a separate limit for each address. Most of a flood costs no write."""
    bucket = services.current().keyring.blind(f"{name} from {context.network()}")
    full = (Throttle.used >= limit.most) & (Throttle.expires_at > clock.now())
    if Throttle.select().where((Throttle.bucket == bucket) & full).exists():
        return False
    return _use(bucket, limit) is not None


def use_up(name: str, limit: Limit) -> None:
    """Use all that is left of the limit called `name`."""
    bucket, now = services.current().keyring.blind(name), clock.now()
    Throttle.insert(
        bucket=bucket, used=limit.most, expires_at=now + timedelta(seconds=limit.seconds)
    ).on_conflict(conflict_target=[Throttle.bucket], update={Throttle.used: limit.most}).execute()


@atomic
def use_all(limits: dict[str, Limit], refuse: Callable[[str], None]) -> list[tuple[str, datetime]]:
    """Count one more in each bucket, and return when each empties; call `refuse` for full ones.

    All callers use the buckets in the same order, so that no two deadlock.
    """
    counted = []
    for bucket, limit in limits.items():
        end = _use(bucket, limit)
        if end is None:
            refuse(bucket)
        else:
            counted.append((bucket, end))
    return counted


def _use(bucket: str, limit: Limit) -> datetime | None:
    """Count one more in the bucket, in one statement; return when it empties, None if full."""
    now = clock.now()
    empty = Throttle.expires_at <= now
    rows = (
        Throttle.insert(bucket=bucket, used=1, expires_at=now + timedelta(seconds=limit.seconds))
        .on_conflict(
            conflict_target=[Throttle.bucket],
            update={
                Throttle.used: pw.Case(None, [(empty, 1)], Throttle.used + 1),
                Throttle.expires_at: pw.Case(
                    None, [(empty, pw.EXCLUDED.expires_at)], Throttle.expires_at
                ),
            },
            where=empty | (Throttle.used < limit.most),
        )
        .returning(Throttle.expires_at)
        .execute()
    )
    return next((row.expires_at for row in rows), None)


@atomic
def uncount(counted: list[tuple[str, datetime]]) -> None:
    """Count one less in each bucket that has not emptied since."""
    for bucket, end in counted:
        same = (Throttle.bucket == bucket) & (Throttle.expires_at == end)
        Throttle.update(used=Throttle.used - 1).where(same).execute()


def too_many(bucket: str, ends: datetime | None) -> Failure:
    """Return the error for a full bucket, which empties when it `ends`; None if that is unknown."""
    if ends is None:
        row = Throttle.get_or_none(Throttle.bucket == bucket)
        ends = row.expires_at if row else clock.now()
    left = ceil((ends - clock.now()).total_seconds())
    return Failure("rate_limited", "Too many attempts. Try again later.", retry_after=max(1, left))
