"""Sessions: one row for each sign-in that has not ended.

The row holds the generation of the refresh token, so that rotation is one guarded UPDATE.
"""

import peewee as pw
import playhouse.postgres_ext as pw_pext
from peewee_migrate import Migrator


def migrate(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    @migrator.create_model
    class Session(pw.Model):
        id = pw.UUIDField(primary_key=True)
        created_at = pw_pext.DateTimeTZField()
        user = pw.ForeignKeyField(
            column_name="user_id", field="id", model=migrator.orm["users"], on_delete="CASCADE"
        )
        epoch = pw.IntegerField()
        generation = pw.IntegerField(default=0)
        rotated_at = pw_pext.DateTimeTZField(null=True)
        last_used_at = pw_pext.DateTimeTZField()
        expires_at = pw_pext.DateTimeTZField()

        class Meta:
            table_name = "sessions"
            legacy_table_names = False


def rollback(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    migrator.remove_model("sessions", cascade=True)
