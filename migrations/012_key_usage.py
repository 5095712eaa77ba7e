"""The decisions on each key, counted by the hour (hours since 1970, UTC)."""

import peewee as pw
from peewee_migrate import Migrator


def migrate(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    @migrator.create_model
    class KeyUsage(pw.Model):
        key = pw.ForeignKeyField(
            column_name="key_id",
            field="id",
            index=False,
            model=migrator.orm["api_keys"],
            on_delete="CASCADE",
        )
        hour = pw.IntegerField(index=True)
        code = pw.CharField(max_length=20)
        uses = pw.BigIntegerField()

        class Meta:
            table_name = "key_usage"
            legacy_table_names = False
            primary_key = pw.CompositeKey("key", "hour", "code")


def rollback(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    migrator.remove_model("key_usage", cascade=True)
