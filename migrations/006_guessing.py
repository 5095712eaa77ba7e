"""Failed guesses at passwords and codes, and the addresses from which accounts signed in.

Counted in the database, so that the limits hold across processes and restarts.
"""

import peewee as pw
import playhouse.postgres_ext as pw_pext
from peewee_migrate import Migrator


def migrate(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    @migrator.create_model
    class Throttle(pw.Model):
        id = pw.UUIDField(primary_key=True)
        created_at = pw_pext.DateTimeTZField()
        bucket = pw.CharField(max_length=64, unique=True)
        used = pw.IntegerField()
        expires_at = pw_pext.DateTimeTZField(index=True)

        class Meta:
            table_name = "throttles"
            legacy_table_names = False

    @migrator.create_model
    class KnownAddress(pw.Model):
        id = pw.UUIDField(primary_key=True)
        created_at = pw_pext.DateTimeTZField()
        user = pw.ForeignKeyField(
            column_name="user_id",
            field="id",
            index=False,
            model=migrator.orm["users"],
            on_delete="CASCADE",
        )
        address = pw.CharField(max_length=45)
        last_used_at = pw_pext.DateTimeTZField(index=True)

        class Meta:
            table_name = "known_addresses"
            legacy_table_names = False
            indexes = [(("user", "address"), True)]


def rollback(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    migrator.remove_model("known_addresses", cascade=True)
    migrator.remove_model("throttles", cascade=True)
