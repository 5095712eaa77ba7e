"""An index, so that counting an owner's keys does not read the revoked ones."""

import peewee as pw
from peewee_migrate import Migrator


def migrate(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    migrator.add_index("api_keys", "owner", "revoked_at")


def rollback(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    migrator.drop_index("api_keys", "owner", "revoked_at")
