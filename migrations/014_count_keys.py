"""Counting an owner's keys that are not revoked reads those alone, however many are."""

import peewee as pw
from peewee_migrate import Migrator


def migrate(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    migrator.add_index("api_keys", "owner", "revoked_at")


def rollback(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    migrator.drop_index("api_keys", "owner", "revoked_at")
