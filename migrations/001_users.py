"""Accounts: persons and service accounts.

The folded columns make usernames and e-mail addresses unique regardless of case.
"""

import peewee as pw
import playhouse.postgres_ext as pw_pext
from peewee_migrate import Migrator


def migrate(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    @migrator.create_model
    class User(pw.Model):
        id = pw.UUIDField(primary_key=True)
        created_at = pw_pext.DateTimeTZField()
        username = pw.CharField(max_length=64)
        username_folded = pw.CharField(max_length=64, unique=True)
        email = pw.CharField(max_length=254, null=True)
        email_folded = pw.CharField(max_length=254, null=True, unique=True)
        pending_email = pw.CharField(max_length=254, null=True)
        password_hash = pw.CharField(max_length=60, null=True)
        role = pw.CharField(max_length=16, constraints=[pw.Check("role IN ('user', 'admin')")])
        kind = pw.CharField(max_length=16, constraints=[pw.Check("kind IN ('person', 'service')")])
        is_active = pw.BooleanField(default=True)
        mfa_enabled = pw.BooleanField(default=False)
        session_epoch = pw.IntegerField(default=0)
        updated_at = pw_pext.DateTimeTZField()
        last_login_at = pw_pext.DateTimeTZField(null=True)

        class Meta:
            table_name = "users"
            legacy_table_names = False


def rollback(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    migrator.remove_model("users", cascade=True)
