"""The tables of audit events and denials."""

import json
from typing import Any

import peewee as pw

from ..db.database import Model, UTCDateTimeField


class AuditEvent(Model):
    """Something that was done or attempted. It has no foreign keys, so that it outlives its target.

    `sequence` is null until the event is sealed. Until then, `seal` is the event's own signature,
    or null if a version that did not sign events wrote it. `detail` is a JSON object, stored as the
    exact text that is sealed.
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
        """The seal that gives the event its place in the chain; None until it is sealed."""
        return None if self.sequence is None else self.seal

    @property
    def facts(self) -> dict[str, Any]:
        """`detail` as an object, even if someone has replaced it with something else."""
        try:
            facts = json.loads(self.detail)
        except ValueError:
            facts = None
        return facts if isinstance(facts, dict) else {"unreadable": self.detail}


# Finds the unsealed events, which are few, in order.
AuditEvent.add_index(
    AuditEvent.id, where=AuditEvent.sequence.is_null(), name="audit_events_unsealed"
)


class Denial(Model):
    """The denials to one key or session in the hour that began at `created_at`.

    Of these, `recorded` have events of their own, and `count` do not.
    """

    credential = pw.UUIDField(unique=True)
    user_id = pw.UUIDField(null=True)
    is_key = pw.BooleanField()
    recorded = pw.SmallIntegerField(default=1)
    count = pw.BigIntegerField(default=0)
    ends_at = UTCDateTimeField(index=True)

    class Meta:
        table_name = "denials"
