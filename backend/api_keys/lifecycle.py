"""Disabling unused keys, and notifying owners of keys that soon expire or have leaked.

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
from . import events, lineage
from .models import ApiKey

log = logging.getLogger(__name__)

MOST_CHILDREN = 20  # named in one mail
NOTICES = (3, 14)  # days before a key expires, the last notice first
_LATE = timedelta(hours=1)  # by then, other processes have written the uses they noted


def disable_unused_keys(limit: int) -> int:
    """Disable at most `limit` keys unused for DISABLE_KEYS_UNUSED_DAYS; return how many.

    A key that was never used counts from its creation, and one that was enabled again from then.
    Using a key is also a use of its ancestors: without them it would be refused.
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
    events.record(None, "key.disable", key, reason="unused")


def notify_of_expiring_keys(limit: int) -> int:
    """Notify owners of at most `limit` keys expiring within 14 or 3 days; return how many.

    Each notice is sent once, and not for keys made for less time than that: their owners know.
    """
    return sum(_tell_of_expiry(days, limit) for days in NOTICES)


def _tell_of_expiry(days: int, limit: int) -> int:
    def tell(key: ApiKey) -> None:
        key.expiry_notice = days
        if key.created_at <= key.expires_at - timedelta(days=days):
            expires_at = f"{key.expires_at:%Y-%m-%d %H:%M} UTC"
            notify_owner(key, "key_expires", expires_at=expires_at, days=days)

    soon = ApiKey.expires_at <= clock.now() + timedelta(days=days)
    untold = ApiKey.expiry_notice.is_null() | (ApiKey.expiry_notice > days)
    return _change_some(ApiKey.has_status("active") & soon & untold, limit, tell)


def notify_owner(
    key: ApiKey, what: str, *, children: Sequence[ApiKey] = (), **facts: object
) -> None:
    """After the commit, log `what` happens to the key, and mail its owner that template.

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
    current.obj.after_commit(lambda: log.warning(what.replace("_", ".", 1), extra=extra))
    if owner.email and owner.kind == "person" and owner.is_active:
        facts |= {"key": key.name, "hint": key.hint}
        mailer.send_to(owner, what, about=str(key.id), **facts)


def _change_some(due: Any, limit: int, act: Callable[[ApiKey], None]) -> int:
    """Let `act` change at most `limit` keys that are due; return how many it changed.

    Of several processes, only one gets each: a row that another has changed is no longer due.
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
