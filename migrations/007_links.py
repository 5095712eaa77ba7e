"""Links in mail that work once, only the newest; the secret of a session's refresh token.

A link holds the user's epoch of its kind at the time it was sent.
"""

import peewee as pw
from peewee_migrate import Migrator


def migrate(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    migrator.add_fields(
        "users",
        password_link_epoch=pw.IntegerField(default=0),
        email_link_epoch=pw.IntegerField(default=0),
    )
    migrator.add_fields("sessions", secret_id=pw.CharField(max_length=8, null=True))


def rollback(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    migrator.remove_fields("sessions", "secret_id")
    migrator.remove_fields("users", "password_link_epoch", "email_link_epoch")
