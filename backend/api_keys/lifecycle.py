"""Disable unused keys, and notify owners of keys that expire soon or have leaked.

Skip it on a first reading.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import peewee as pw

from ..core import clock, context
from ..db.database import atomic, current, db_time, lock
from ..mail import mailer
from . import lineage, recording
from .models import ApiKey

log = logging.getLogger(__name__)

MOST_CHILDREN = 20  # named in one mail
NOTICES = (3, 14)  # days before a key expires, the last notice first
_LATE = timedelta(hours=1)  # by then, all processes have written the uses that they saw


def disable_unused_keys(limit: int) -> int:
    """Disable at most `limit` keys unused for DISABLE_KEYS_UNUSED_DAYS; return how many.

    The days count from the last use, the creation, or the last time that the key was enabled again.
    Using a key also counts as using its ancestors, without which it would be refused.
    """
    days = context.settings().disable_keys_unused_days
    if not days:
        return 0
    before = db_time(clock.now() - timedelta(days=days) - _LATE)
    last = pw.fn.COALESCE(ApiKey.last_used_at, ApiKey.created_at)
    enabled = pw.fn.COALESCE(ApiKey.enabled_at, ApiKey.created_at)
    unused = ApiKey.has_status("active") & (last < before) & (enabled < before)
    unused &= ApiKey.id.not_in(lineage.in_use(last, before))
    return _change_some(unused, limit, _disable)


def _disable(key: ApiKey) -> None:
    key.disabled, key.updated_at = True, clock.now()
    recording.record(None, "key.disable", key, reason="unused")


def notify_of_expiring_keys(limit: int) -> int:
    """Notify owners of at most `limit` keys expiring within 14 or 3 days; return how many.

    Each notice is sent once, and not for keys created for a shorter time: their owners know.
    """
    return sum(_notify_of_expiry(days, limit) for days in NOTICES)


def _notify_of_expiry(days: int, limit: int) -> int:
    def notify(key: ApiKey) -> None:
        key.expiry_notice = days
        if key.created_at <= key.expires_at - timedelta(days=days):
            expires_at = f"{key.expires_at:%Y-%m-%d %H:%M} UTC"
            notify_owner(key, "key_expires", expires_at=expires_at, days=days)

    soon = ApiKey.expires_at <= clock.now() + timedelta(days=days)
    unnotified = ApiKey.expiry_notice.is_null() | (ApiKey.expiry_notice > days)
    return _change_some(ApiKey.has_status("active") & soon & unnotified, limit, notify)


def notify_owner(
    key: ApiKey, event: str, *, children: Sequence[ApiKey] = (), **facts: object
) -> None:
    """After the commit, log the event, and mail its owner the template of that name.

    `children` are the keys to which it happens as well. Service accounts and disabled users get no
    mail.
    """
    owner = key.owner
    extra = {"key_id": str(key.id), "owner_id": str(owner.id), **facts}
    if children:
        extra["children"] = [str(each.id) for each in children]
    named = [f"{each.name} ({each.hint})" for each in children[:MOST_CHILDREN]]
    more = len(children) - MOST_CHILDREN
    facts["children"] = [*named, f"and {more} more"] if more > 0 else named
    current.obj.after_commit(lambda: log.warning(event.replace("_", ".", 1), extra=extra))
    if owner.email and owner.kind == "person" and owner.is_active:
        facts |= {"key": key.name, "hint": key.hint}
        mailer.send_to(owner, event, about=str(key.id), **facts)


def _change_some(due: Any, limit: int, act: Callable[[ApiKey], None]) -> int:
    """Let `act` change at most `limit` keys that are due; return how many it changed.

    Of several processes, only one changes each: a changed row is no longer due.
    """
    # Found before the transaction begins: SQLite allows one at a time.
    ids = [key.id for key in ApiKey.select(ApiKey.id).where(due).limit(limit)]
    return _change(ids, due, act) if ids else 0


@atomic
def _change(ids: list[UUID], due: Any, act: Callable[[ApiKey], None]) -> int:
    keys = lock(ApiKey.select().where(ApiKey.id.in_(ids), due).order_by(ApiKey.id))
    for key in keys:
        act(key)
        key.save()
    return len(keys)
