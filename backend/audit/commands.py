"""`flask audit`: the audit trail. Skip it on a first reading."""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import click
from flask.cli import AppGroup

from .. import services
from ..cli.common import every_row, inside, print_json, say
from ..subject import Target
from . import service as audit
from .schemas import AuditEventSchema, SealedEventSchema

group = AppGroup("audit", help="The audit trail.")


def _known_action(context: Any, parameter: Any, action: str | None) -> str | None:
    if action is not None and action not in audit.ACTIONS:
        raise click.BadParameter(f"is not one of {', '.join(audit.ACTIONS)}")
    return action


@group.command("list")
@click.option("--actor", help="Only events by this user: username, e-mail address or id.")
@click.option("--action", callback=_known_action, help="Only events with this action.")
@click.option("--since", type=click.DateTime(["%Y-%m-%d"]), help="Only since this day, in UTC.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@inside
def list_events(
    actor: str | None, action: str | None, since: datetime | None, *, as_json: bool
) -> None:
    """List events, newest first."""
    filters: dict[str, Any] = {"since": since and since.replace(tzinfo=UTC)}
    filters |= {"actor_id": _id_of("user", actor)} if actor else {}
    filters |= {"action": action} if action else {}
    with_name = functools.lru_cache(10_000)(_with_name)
    for event in every_row(audit.list_events, **filters):
        if as_json:
            print_json(AuditEventSchema(), event)
        else:
            actor_of = event.facts.get("actor", "-")  # the console has no id
            by = with_name("user", event.actor_id) if event.actor_id else actor_of
            kind = event.target_type
            target = f"  to {kind} {with_name(kind, event.target_id)}" if event.target_id else ""
            say(
                f"{event.created_at:%Y-%m-%d %H:%M:%S}  {event.action:<15} {event.outcome:<7}"
                f"  by {by}  from {event.ip or '-'}{target}"
            )


def _with_name(kind: str, id_: UUID) -> str:
    """Return the id, followed by the current name of its user or key."""
    target = _targets().get(kind)
    name = target.name_of(id_) if target else None
    return f"{id_} ({name})" if name else str(id_)


def _id_of(kind: str, name: str) -> UUID:
    """Return the id that belongs to a name. An id is returned unchanged, without a query."""
    try:
        return UUID(name)
    except ValueError:
        id_of = _targets()[kind].id_of
        assert id_of is not None, f"a {kind} cannot be found by name"
        return id_of(name)


def _targets() -> dict[str, Target]:
    subjects = services.current().subjects
    return {kind: target for each in subjects for kind, target in each.targets.items()}


@group.command("export")
@inside
def export_events() -> None:
    """Print all events with sequence and seal, oldest first, as one JSON object per line."""
    schema = SealedEventSchema()
    for event in audit.export():
        print_json(schema, event)
