"""The state of the chain that seals audit events.

Earlier releases created the table together with that of the events: then it exists already.
"""

import peewee as pw
import playhouse.postgres_ext as pw_pext
from peewee_migrate import Migrator


def migrate(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
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
