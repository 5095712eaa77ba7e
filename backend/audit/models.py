"""The tables of the audit trail: events, and denials."""

import json
from typing import Any

import peewee as pw

from ..db.database import Model, UTCDateTimeField


class AuditEvent(Model):
    """Something that was done or attempted. No foreign keys: it outlives what it refers to.

    `sequence` is null until the event is sealed. Until then `seal` is the event's own signature, or
    null if a version wrote it that did not sign yet. `detail` is a JSON object, kept as the text
    that is sealed.
    """

    action = pw.CharField(max_length=32)
    outcome = pw.CharField(
        max_length=8, constraints=[pw.Check("outcome IN ('success', 'failure')")]
    )
    actor_id = pw.UUIDField(null=True)
    target_type = pw.CharField(max_length=32, null=True)
    target_id = pw.UUIDField(null=True)
    ip = pw.CharField(max_length=45, null=True)
    request_id = pw.CharField(max_length=64, null=True)
    detail = pw.TextField()
    sequence = pw.BigIntegerField(null=True, unique=True)
    seal = pw.CharField(max_length=64, null=True)

    class Meta:
        table_name = "audit_events"
        indexes = (
            (("actor_id", "id"), False),
            (("target_id", "id"), False),
            (("action", "id"), False),
            (("created_at",), False),
        )

    @property
    def place(self) -> str | None:
        """The seal that gives the event its place in the chain; None until it has one."""
        return None if self.sequence is None else self.seal

    @property
    def facts(self) -> dict[str, Any]:
        """`detail` as an object, also if someone altered it into something else."""
        try:
            facts = json.loads(self.detail)
        except ValueError:
            facts = None
        return facts if isinstance(facts, dict) else {"unreadable": self.detail}


# The unsealed events, in order: only ever a few of them all.
AuditEvent.add_index(
    AuditEvent.id, where=AuditEvent.sequence.is_null(), name="audit_events_unsealed"
)


class Denial(Model):
    """The denials to one key or session in the hour that began at `created_at`.

    `recorded` denials have events of their own; `count` others do not.
    """

    credential = pw.UUIDField(unique=True)
    user_id = pw.UUIDField(null=True)
    is_key = pw.BooleanField()
    recorded = pw.SmallIntegerField(default=1)
    count = pw.BigIntegerField(default=0)
    ends_at = UTCDateTimeField(index=True)

    class Meta:
        table_name = "denials"
