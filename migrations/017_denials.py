"""How often each key or session was denied something in an hour."""

import peewee as pw
import playhouse.postgres_ext as pw_pext
from peewee_migrate import Migrator


def migrate(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    @migrator.create_model
    class Denial(pw.Model):
        id = pw.UUIDField(primary_key=True)
        created_at = pw_pext.DateTimeTZField()
        credential = pw.UUIDField(unique=True)
        user_id = pw.UUIDField(null=True)
        is_key = pw.BooleanField()
        recorded = pw.SmallIntegerField()
        count = pw.BigIntegerField()
        ends_at = pw_pext.DateTimeTZField(index=True)

        class Meta:
            table_name = "denials"
            legacy_table_names = False


def rollback(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    migrator.remove_model("denials", cascade=True)
