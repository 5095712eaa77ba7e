"""The outbox: mail that a transaction promised, kept in the database until it is handed over.

Several processes may send from it. Each takes a mail by a guarded UPDATE, which leases it for a
while: nobody else sends it meanwhile, and if the process dies, another takes it afterwards.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any
from uuid import UUID

from ..core import clock
from ..db.database import delete_some, new_id
from .models import Mail

KEPT_FOR = timedelta(hours=24)  # a mail that no server takes
LEASE = timedelta(minutes=2)  # more than handing over a mail can take
LATE = timedelta(minutes=15)  # after which `flask doctor` reports a mail that waits
POLL_SECONDS = 60.0  # until a process looks for mail that another one left


def put(recipient: str, kind: str, user_id: UUID | None, values: dict[str, Any]) -> None:
    """Add a mail, which replaces one of this kind that waits for the user."""
    now = clock.now()
    row = {
        Mail.id: new_id(),  # another than that of a mail it replaces, which may be on its way
        Mail.created_at: now,
        Mail.recipient: recipient,
        Mail.content: json.dumps(values),
        Mail.attempts: 0,
        Mail.due_at: now,
        Mail.expires_at: now + KEPT_FOR,
    }
    Mail.insert({Mail.user_id: user_id, Mail.kind: kind, **row}).on_conflict(
        conflict_target=[Mail.user_id, Mail.kind], preserve=[*row]
    ).execute()


def take() -> Mail | float:
    """The next mail that is due, leased to the caller; else the seconds until one may be."""
    while True:
        now = clock.now()
        mail = Mail.select().order_by(Mail.due_at).first()
        if mail is None:
            return POLL_SECONDS
        seconds = (mail.due_at - now).total_seconds()
        if seconds > 0:
            return min(seconds, POLL_SECONDS)
        lease = Mail.update(attempts=mail.attempts + 1, due_at=now + LEASE).where(_same(mail))
        if lease.execute():
            mail.attempts += 1
            return mail
        # Another process was faster; look again.


def put_back(mail: Mail, seconds: float) -> None:
    """Let the next attempt begin in so many seconds, unless the lease has run out."""
    due_at = clock.now() + timedelta(seconds=seconds)
    Mail.update(due_at=due_at).where(_same(mail)).execute()


def remove(mail: Mail) -> None:
    """Delete the mail, unless the lease has run out or a newer one has replaced it."""
    Mail.delete().where(_same(mail)).execute()


def _same(mail: Mail) -> Any:
    """The condition that no other process has taken the mail, and no newer one replaced it."""
    return (Mail.id == mail.id) & (Mail.attempts == mail.attempts)


def prune(limit: int) -> int:
    """Delete at most `limit` mails that expired while no process was sending; returns how many."""
    unsent = Mail.select().where(Mail.expires_at <= clock.now() - timedelta(hours=1))
    return delete_some(unsent, limit)


def doubts() -> list[str]:
    """A sentence if mail has been waiting for long, for `flask doctor`."""
    late = Mail.select().where(Mail.created_at <= clock.now() - LATE)
    if not (count := late.count()):
        return []
    oldest = late.order_by(Mail.created_at).first()
    since = f"{oldest.created_at:%Y-%m-%d %H:%M} UTC" if oldest else "lately"
    return [f"Mail is waiting: {count}, since {since}. The log says why (mail.delayed)."]
