"""Second factors: the secrets of authenticator apps, and recovery codes.

Rolling it back removes every second factor, so users must not be asked for one any more.
"""

import peewee as pw
import playhouse.postgres_ext as pw_pext
from peewee_migrate import Migrator


def migrate(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    @migrator.create_model
    class SecondFactor(pw.Model):
        id = pw.UUIDField(primary_key=True)
        created_at = pw_pext.DateTimeTZField()
        user = pw.ForeignKeyField(
            column_name="user_id",
            field="id",
            model=migrator.orm["users"],
            on_delete="CASCADE",
            unique=True,
        )
        secret = pw.CharField(max_length=255)
        secret_id = pw.CharField(max_length=8)
        confirmed_at = pw_pext.DateTimeTZField(null=True)
        last_step = pw.BigIntegerField(default=0)

        class Meta:
            table_name = "second_factors"
            legacy_table_names = False

    @migrator.create_model
    class RecoveryCode(pw.Model):
        id = pw.UUIDField(primary_key=True)
        created_at = pw_pext.DateTimeTZField()
        user = pw.ForeignKeyField(
            column_name="user_id", field="id", model=migrator.orm["users"], on_delete="CASCADE"
        )
        digest = pw.CharField(max_length=64, unique=True)

        class Meta:
            table_name = "recovery_codes"
            legacy_table_names = False


def rollback(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    migrator.remove_model("recovery_codes", cascade=True)
    migrator.remove_model("second_factors", cascade=True)
    migrator.sql("UPDATE users SET mfa_enabled = FALSE")
