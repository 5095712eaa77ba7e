"""Which key made a key, and which of its attributes only an administrator may widen.

Existing keys have no parent, because it was not recorded.
"""

import peewee as pw
from peewee_migrate import Migrator


def migrate(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    migrator.add_fields(
        "api_keys",
        parent=pw.ForeignKeyField(
            column_name="parent_id", field="id", model="self", null=True, on_delete="SET NULL"
        ),
        locked_by_admin=pw.TextField(null=True),
    )


def rollback(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    migrator.drop_index("api_keys", "parent")
    migrator.remove_fields("api_keys", "parent", "locked_by_admin")
