"""Which key made a key, and what of it only an administrator may widen.

Keys that exist so far have no parent: nobody wrote down what made them.
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
