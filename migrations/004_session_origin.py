"""Where a session is used from: the address and the user agent of its last sign-in or refresh.

Shown to its owner, who can see from it which session is not theirs.
"""

import peewee as pw
from peewee_migrate import Migrator


def migrate(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    migrator.add_fields(
        "sessions",
        ip=pw.CharField(max_length=45, null=True),
        user_agent=pw.CharField(max_length=200, null=True),
    )


def rollback(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    migrator.remove_fields("sessions", "ip", "user_agent")
