"""When a key starts to count as unused, and which expiry notice its owner got."""

import peewee as pw
import playhouse.postgres_ext as pw_pext
from peewee_migrate import Migrator


def migrate(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    migrator.add_fields(
        "api_keys",
        enabled_at=pw_pext.DateTimeTZField(null=True),
        expiry_notice=pw.SmallIntegerField(null=True),
    )


def rollback(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    migrator.remove_fields("api_keys", "enabled_at", "expiry_notice")
