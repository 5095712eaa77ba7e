"""Usernames that became free, and who had them."""

import peewee as pw
import playhouse.postgres_ext as pw_pext
from peewee_migrate import Migrator


def migrate(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    @migrator.create_model
    class HeldUsername(pw.Model):
        id = pw.UUIDField(primary_key=True)
        created_at = pw_pext.DateTimeTZField()
        username_folded = pw.CharField(max_length=64, unique=True)
        user_id = pw.UUIDField()

        class Meta:
            table_name = "held_usernames"
            legacy_table_names = False
            indexes = [(("created_at",), False)]


def rollback(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    migrator.remove_model("held_usernames", cascade=True)
