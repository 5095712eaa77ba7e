"""Record and read audit events. To learn how later changes are detected, see audit_chain/."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import peewee as pw

from .. import services
from ..core import clock, context
from ..core.errors import Unavailable
from ..core.identity import Identity
from ..db.database import current, delete_some, insert_all, newest
from .models import AuditEvent
from .rows import sign

log = logging.getLogger(__name__)

ACTIONS: list[str] = []  # of all subjects
OUTCOMES = ("success", "failure")

BATCH = 1000  # events at a time


def define_actions(names: Iterable[str]) -> None:
    """Define actions that events may have."""
    for name in names:
        if name in ACTIONS or len(name) > AuditEvent.action.max_length:
            raise ValueError(f"audit action defined twice, or too long: {name}")
        ACTIONS.append(name)


def record(
    actor: Identity | None,
    action: str,
    *,
    outcome: str = "success",
    target: tuple[str, UUID | None] | None = None,
    **detail: Any,
) -> None:
    """Record that `actor` (None if unknown) did `action` to `target`, a (type, id) pair.

    Runs in the open transaction, and logs a line after its commit. Raises Unavailable if the event
    cannot be stored: then the action must not happen either. `detail` is for ids, numbers, codes
    and field names, never for secrets or text that a user typed.
    """
    record_each(actor, action, [(target, detail)], outcome=outcome)


def record_each(
    actor: Identity | None,
    action: str,
    acts: Sequence[tuple[tuple[str, UUID | None] | None, dict[str, Any]]],
    *,
    outcome: str = "success",
) -> None:
    """Like `record`, but with an event for each (target, detail) in `acts`, in one statement."""
    if action not in ACTIONS:
        raise ValueError(f"not an audit action: {action}")
    who: dict[str, Any] = {}
    if actor is not None and actor.method == "console":
        actor, who = None, {"actor": "console"}
    elif actor is not None and actor.key_id is not None:
        who = {"key_id": actor.key_id}
    call = context.call.get()
    events, lines = [], []
    for target, detail in acts:
        facts: dict[str, Any] = {
            "outcome": outcome,
            "actor_id": actor.user_id if actor else None,
            "target_type": target[0] if target else None,
            "target_id": target[1] if target else None,
            "ip": (call and call.address) or None,
        }
        detail = {**who, **detail}
        request_id = call and call.request_id
        text = json.dumps(detail, default=str)
        event = AuditEvent(action=action, request_id=request_id, detail=text, **facts)
        sign(event)
        events.append(event)
        lines.append({"event_id": event.id, **facts, "detail": detail or None})
    try:
        insert_all(events)
    except (pw.DatabaseError, pw.InterfaceError) as error:
        log.exception("not recorded, so not done: %s", action)
        raise Unavailable("The audit trail cannot be written. Try again shortly.") from error
    periodic_tasks = services.current().periodic_tasks

    def log_events() -> None:
        level = logging.INFO if outcome == "success" else logging.WARNING
        for extra in lines:
            log.log(level, action, extra=extra)
        periodic_tasks.wake()

    current.obj.after_commit(log_events)


def list_events(
    actor: Identity,
    *,
    limit: int,
    cursor: UUID | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    **equal: Any,
) -> tuple[list[AuditEvent], UUID | None]:
    """Return a page of events, newest first, and the next cursor.

    The events are those at or after `since` and before `until`. `equal` filters by actor_id,
    action, target_id.
    """
    query = AuditEvent.select()
    if since:
        query = query.where(AuditEvent.created_at >= since)
    if until:
        query = query.where(AuditEvent.created_at < until)
    for name, value in equal.items():
        query = query.where(getattr(AuditEvent, name) == value)
    return newest(query, limit, cursor)


def export() -> Iterator[AuditEvent]:
    """Yield all events, oldest first, with one batch in memory at a time."""
    after = UUID(int=0)
    while True:
        later = AuditEvent.select().where(AuditEvent.id > after)
        batch = list(later.order_by(AuditEvent.id).limit(BATCH))
        if not batch:
            return
        yield from batch
        after = batch[-1].id


def prune(limit: int) -> int:
    """Delete at most `limit` events older than AUDIT_RETENTION_DAYS; return how many.

    Leaves it to the chain if there is one: that keeps events that were inserted or altered.
    """
    days = context.settings().audit_retention_days
    if not days or any(each.name == "audit_chain" for each in services.current().subjects):
        return 0
    old = AuditEvent.created_at < clock.now() - timedelta(days=days)
    return delete_some(AuditEvent.select().where(old), limit)
