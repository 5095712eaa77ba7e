"""API keys and the digests of their secrets.

Secrets have their own table, so that a key can have two while it is being rotated.
"""

import peewee as pw
import playhouse.postgres_ext as pw_pext
from peewee_migrate import Migrator


def migrate(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    @migrator.create_model
    class ApiKey(pw.Model):
        id = pw.UUIDField(primary_key=True)
        created_at = pw_pext.DateTimeTZField()
        owner = pw.ForeignKeyField(
            column_name="owner_id",
            field="id",
            model=migrator.orm["users"],
            on_delete="CASCADE",
            index=False,
        )
        name = pw.CharField(max_length=100)
        description = pw.CharField(max_length=500, null=True)
        scopes = pw.TextField()
        expires_at = pw_pext.DateTimeTZField(null=True)
        disabled = pw.BooleanField(default=False)
        revoked_at = pw_pext.DateTimeTZField(null=True)
        updated_at = pw_pext.DateTimeTZField()
        last_used_at = pw_pext.DateTimeTZField(null=True)
        last_used_ip = pw.CharField(max_length=45, null=True)

        class Meta:
            table_name = "api_keys"
            legacy_table_names = False
            indexes = [(("owner", "id"), False)]

    @migrator.create_model
    class ApiKeySecret(pw.Model):
        id = pw.UUIDField(primary_key=True)
        created_at = pw_pext.DateTimeTZField()
        key = pw.ForeignKeyField(
            column_name="key_id", field="id", model=migrator.orm["api_keys"], on_delete="CASCADE"
        )
        digest = pw.CharField(max_length=64, unique=True)
        secret_id = pw.CharField(max_length=8)
        hint = pw.CharField(max_length=32)

        class Meta:
            table_name = "api_key_secrets"
            legacy_table_names = False


def rollback(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    migrator.remove_model("api_key_secrets", cascade=True)
    migrator.remove_model("api_keys", cascade=True)
