"""The audit trail: events, and the state of the chain that seals them.

No foreign keys: an event outlives the user it refers to.
"""

import peewee as pw
import playhouse.postgres_ext as pw_pext
from peewee_migrate import Migrator


def migrate(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    @migrator.create_model
    class AuditEvent(pw.Model):
        id = pw.UUIDField(primary_key=True)
        created_at = pw_pext.DateTimeTZField()
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
            legacy_table_names = False
            indexes = [
                (("actor_id", "id"), False),
                (("target_id", "id"), False),
                (("action", "id"), False),
                (("created_at",), False),
            ]

    AuditEvent.add_index(
        AuditEvent.id, where=AuditEvent.sequence.is_null(), name="audit_events_unsealed"
    )

    @migrator.create_model
    class AuditChain(pw.Model):
        id = pw.UUIDField(primary_key=True)
        created_at = pw_pext.DateTimeTZField()
        start_sequence = pw.BigIntegerField()
        start_seal = pw.CharField(max_length=64)
        last_sequence = pw.BigIntegerField()
        last_seal = pw.CharField(max_length=64)
        wrapped_key = pw.TextField()
        mac = pw.CharField(max_length=64)

        class Meta:
            table_name = "audit_chain"
            legacy_table_names = False


def rollback(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    migrator.remove_model("audit_chain", cascade=True)
    migrator.remove_model("audit_events", cascade=True)
