"""The outbox: mail that is kept in the database until it is sent.

Several processes may send from it. Each takes a mail with a guarded UPDATE, which leases the mail
for a while: no other process sends it meanwhile, and if the process dies, another one takes it
later. Skip it on a first reading.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any
from uuid import UUID

from ..core import clock
from ..db.database import delete_some, new_id
from .models import Mail

KEPT_FOR = timedelta(hours=24)  # how long a mail waits for a server to accept it
LEASE = timedelta(minutes=2)  # longer than sending a mail can take
LATE = timedelta(minutes=15)  # after which `flask doctor` reports a waiting mail
POLL_SECONDS = 60.0  # between two checks for mail that another process left behind


def put(recipient: str, kind: str, user_id: UUID | None, values: dict[str, Any]) -> None:
    """Add a mail. It replaces one of this kind that is waiting for the user."""
    now = clock.now()
    row = {
        Mail.id: new_id(),  # not the id of the mail that it replaces, which may be on its way
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
    """Return the next due mail, leased to the caller, or the seconds until one may be due."""
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
        # Another process was faster: try the next one.


def put_back(mail: Mail, seconds: float) -> None:
    """Schedule the next attempt in this many seconds, unless the lease has run out."""
    due_at = clock.now() + timedelta(seconds=seconds)
    Mail.update(due_at=due_at).where(_same(mail)).execute()


def remove(mail: Mail) -> None:
    """Delete the mail, unless the lease has run out or a newer one has replaced it."""
    Mail.delete().where(_same(mail)).execute()


def _same(mail: Mail) -> Any:
    """Build the condition that no process took the mail since, and no newer one replaced it."""
    return (Mail.id == mail.id) & (Mail.attempts == mail.attempts)


def prune(limit: int) -> int:
    """Delete up to `limit` mails that expired while no process was sending; return how many."""
    unsent = Mail.select().where(Mail.expires_at <= clock.now() - timedelta(hours=1))
    return delete_some(unsent, limit)


def warnings() -> list[str]:
    """Return a sentence for `flask doctor` if mail has been waiting for a long time."""
    late = Mail.select().where(Mail.created_at <= clock.now() - LATE)
    if not (count := late.count()):
        return []
    oldest = late.order_by(Mail.created_at).first()
    since = f"{oldest.created_at:%Y-%m-%d %H:%M} UTC" if oldest else "recently"
    return [f"Mail is waiting: {count}, since {since}. See mail.delayed in the log for the reason."]
