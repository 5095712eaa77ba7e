"""Denials: a few audit events per credential and hour, and a count of the rest.

Skip it on a first reading. A key that is refused hundreds of times a second must not write hundreds
of rows. Denials beyond the first few are logged and counted; when the hour is over, one event
reports their number.
"""

from __future__ import annotations

import json
import logging
from datetime import timedelta
from typing import Any
from uuid import UUID

import peewee as pw

from .. import services
from ..core import clock, context
from ..core.identity import Identity
from ..db.database import atomic, db_time, execute, json_rows, lock, new_id
from . import service as audit
from .models import Denial

log = logging.getLogger(__name__)

EVENTS = 5  # for one credential in one PERIOD
PERIOD = timedelta(hours=1)

_UNKNOWN = UUID(int=0)  # the credential of an unknown caller
_RECORDED = "SELECT recorded FROM denials WHERE credential = ? AND ends_at > ?"

# (id of the key or session, its user's id, whether it is a key)
Credential = tuple[str, str | None, bool]


def deny(actor: Identity | None, **detail: Any) -> None:
    """Record a denial as an event, or only in the log if the actor has had too many.

    Raises Unavailable, or the database's error, if it cannot be recorded.
    """
    credential = _credential_of(actor)
    row = execute(_RECORDED, credential[0], db_time(clock.now())).fetchone()
    if (row is None or row[0] < EVENTS) and _record(actor, credential, detail):
        return
    service, call = services.current(), context.call.get()
    facts = {
        "outcome": "failure",
        "actor_id": actor and actor.user_id,
        "ip": (call and call.address) or None,
        "detail": {"key_id": actor.key_id, **detail} if actor and actor.key_id else detail,
    }
    log.warning("access.denied", extra=facts)
    service.write_behind[write_denials].add(credential, 1)
    service.periodic_tasks.wake()


def _credential_of(actor: Identity | None) -> Credential:
    if actor is None:
        return _UNKNOWN.hex, None, False
    credential = actor.key_id or actor.session_id or actor.user_id
    return credential.hex, actor.user_id.hex, actor.key_id is not None


@atomic
def _record(actor: Identity | None, credential: Credential, detail: dict[str, Any]) -> bool:
    """Record the denial as an event, or return False if the credential has had enough of them."""
    credential_id, user_id, is_key = credential
    now = clock.now()
    _close((Denial.credential == credential_id) & (Denial.ends_at <= now), 1)
    counted = (
        Denial.insert(
            credential=credential_id, user_id=user_id, is_key=is_key, ends_at=now + PERIOD
        )
        .on_conflict(
            conflict_target=[Denial.credential],
            update={Denial.recorded: Denial.recorded + 1},
            where=Denial.recorded < EVENTS,
        )
        .returning(Denial.id)
        .execute()
    )
    if not list(counted):
        return False
    audit.record(actor, "access.denied", outcome="failure", **detail)
    return True


def write_denials(counts: dict[Credential, int]) -> None:
    """Add to the counts of denials without an event, {credential: how many}, in one statement.

    If the hour has been closed in the meantime, they are reported when the next one is closed.
    """
    # Sorted, so that two processes that write the same rows do not deadlock.
    rows = json.dumps([(new_id().hex, *who, count) for who, count in sorted(counts.items())])
    now = db_time(clock.now())
    execute(
        "WITH counted (id, credential, user_id, is_key, count) AS"  # noqa: S608 (no input)
        f" ({json_rows('uuid', 'uuid', 'uuid', 'bool', 'bigint')})"
        " INSERT INTO denials"
        " (id, created_at, credential, user_id, is_key, recorded, count, ends_at)"
        f" SELECT id, ?, credential, user_id, is_key, {EVENTS}, count, ? FROM counted WHERE true"
        " ON CONFLICT (credential) DO UPDATE SET count = denials.count + excluded.count",
        rows,
        now,
        now,
    )


@atomic
def prune(limit: int) -> int:
    """Close at most `limit` hours that are over; return how many.

    Closing an hour records one event with the number of denials that had none of their own.
    """
    return _close(Denial.ends_at <= clock.now(), limit)


def _close(which: pw.Expression, limit: int) -> int:
    ended = lock(Denial.select().where(which).order_by(Denial.credential).limit(limit))
    if not ended:
        return 0
    Denial.delete().where(Denial.id.in_([row.id for row in ended])).execute()
    token = context.call.set(None)  # the event has nothing to do with the current request
    try:
        for row in ended:
            if row.count:
                since = row.created_at.isoformat(timespec="seconds")
                outcome = {"outcome": "failure", "count": row.count, "since": since}
                audit.record(_actor_of(row), "access.denied", **outcome)
    finally:
        context.call.reset(token)
    return len(ended)


def _actor_of(row: Denial) -> Identity | None:
    if row.user_id is None:
        return None
    if row.is_key:
        return Identity(row.user_id, "", "user", "api_key", key_id=row.credential)
    return Identity(row.user_id, "", "user", "session", row.credential)
