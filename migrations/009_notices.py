"""What a running service noticed, for `flask doctor`, which is another process."""

import peewee as pw
import playhouse.postgres_ext as pw_pext
from peewee_migrate import Migrator


def migrate(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    @migrator.create_model
    class Notice(pw.Model):
        id = pw.UUIDField(primary_key=True)
        created_at = pw_pext.DateTimeTZField()
        name = pw.CharField(max_length=32, unique=True)
        seen_at = pw_pext.DateTimeTZField()

        class Meta:
            table_name = "notices"
            legacy_table_names = False


def rollback(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    migrator.remove_model("notices", cascade=True)
