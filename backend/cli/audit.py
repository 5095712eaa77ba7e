"""`flask audit`: the audit trail. Skip it on a first reading."""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import click
from flask.cli import AppGroup

from ..api_keys.models import ApiKey
from ..audit import chain
from ..audit import service as audit
from ..audit.schemas import AuditEventSchema, SealedEventSchema
from ..core.words import counted
from ..users.models import User
from .common import every_row, fail, inside, print_json, say, user_id_of

group = AppGroup("audit", help="The audit trail.")


@group.command("list")
@click.option("--actor", help="Only by this user: username, e-mail address or id.")
@click.option("--action", type=click.Choice(audit.ACTIONS), help="Only this action.")
@click.option("--since", type=click.DateTime(["%Y-%m-%d"]), help="Only since that day, in UTC.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@inside
def list_events(
    actor: str | None, action: str | None, since: datetime | None, *, as_json: bool
) -> None:
    """List events, newest first."""
    filters: dict[str, Any] = {"since": since and since.replace(tzinfo=UTC)}
    filters |= {"actor_id": user_id_of(actor)} if actor else {}
    filters |= {"action": action} if action else {}
    named = functools.lru_cache(10_000)(_named)
    for event in every_row(audit.list_events, **filters):
        if as_json:
            print_json(AuditEventSchema(), event)
        else:
            actor_of = event.facts.get("actor", "-")  # the console has no id
            by = named("user", event.actor_id) if event.actor_id else actor_of
            kind = event.target_type
            target = f"  to {kind} {named(kind, event.target_id)}" if event.target_id else ""
            say(
                f"{event.created_at:%Y-%m-%d %H:%M:%S}  {event.action:<15} {event.outcome:<7}"
                f"  by {by}  from {event.ip or '-'}{target}"
            )


def _named(kind: str, id_: UUID) -> str:
    """Return the id, with the current name of its user or key."""
    columns = {"user": (User, User.username), "api_key": (ApiKey, ApiKey.name)}
    if kind not in columns:
        return str(id_)
    model, column = columns[kind]
    name = model.select(column).where(model.id == id_).scalar()
    return f"{id_} ({name})" if name else str(id_)


@group.command()
@inside
def verify() -> None:
    """Check every event against its seal or signature. Exit code 1 if any was altered or added."""
    report = chain.verify()
    say(f"{counted(report.checked, 'sealed event')}, up to sequence {report.sequence}")
    say(f"seal {report.seal or 'none'}   (compare with the newest audit.seal in the log)")
    say(f"{report.unsealed} not sealed yet, the oldest for {report.oldest_unsealed:.0f} s")
    if report.faults:
        more = [f"and {report.more} more."] if report.more else []
        fail(*report.faults, *more)


@group.command("export")
@inside
def export_events() -> None:
    """Print all events, oldest first, one JSON object per line, with sequence and seal."""
    schema = SealedEventSchema()
    for event in audit.export():
        print_json(schema, event)
