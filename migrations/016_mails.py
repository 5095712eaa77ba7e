"""The outbox: mail that has not been handed over yet."""

import peewee as pw
import playhouse.postgres_ext as pw_pext
from peewee_migrate import Migrator


def migrate(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    @migrator.create_model
    class Mail(pw.Model):
        id = pw.UUIDField(primary_key=True)
        created_at = pw_pext.DateTimeTZField()
        user_id = pw.UUIDField(null=True)
        kind = pw.CharField(max_length=300)
        recipient = pw.CharField(max_length=254)
        content = pw.TextField()
        attempts = pw.IntegerField(default=0)
        due_at = pw_pext.DateTimeTZField(index=True)
        expires_at = pw_pext.DateTimeTZField(index=True)

        class Meta:
            table_name = "mails"
            legacy_table_names = False
            indexes = [(("user_id", "kind"), True)]


def rollback(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    migrator.remove_model("mails", cascade=True)
