"""A key's metadata, and the addresses from which it may be used.

Both as JSON; NULL means none, so that no row has to be rewritten.
"""

import peewee as pw
from peewee_migrate import Migrator


def migrate(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    migrator.add_fields(
        "api_keys",
        metadata=pw.TextField(null=True),
        allowed_ips=pw.TextField(null=True),
    )


def rollback(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    migrator.remove_fields("api_keys", "metadata", "allowed_ips")
