"""How often and how much a key may be used, and which of its secrets are accepted.

The only secret of an existing key becomes its current one.
"""

import peewee as pw
import playhouse.postgres_ext as pw_pext
from peewee_migrate import Migrator

COLUMNS = {
    "rate_limit_uses": pw.IntegerField,
    "rate_limit_seconds": pw.IntegerField,
    "quota_remaining": pw.BigIntegerField,
    "refill_amount": pw.BigIntegerField,
    "refilled_at": pw_pext.DateTimeTZField,
    "current_secret": pw.UUIDField,
    "pending_secret": pw.UUIDField,
    "grace_secret": pw.UUIDField,
    "grace_seconds": pw.IntegerField,
    "grace_ends_at": pw_pext.DateTimeTZField,
}


def migrate(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    columns = {name: kind(null=True) for name, kind in COLUMNS.items()}
    columns["refill_interval"] = pw.CharField(max_length=7, null=True)
    migrator.add_fields("api_keys", **columns)
    migrator.sql(
        "UPDATE api_keys SET current_secret ="
        " (SELECT s.id FROM api_key_secrets s WHERE s.key_id = api_keys.id)"
    )


def rollback(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    migrator.sql(
        "DELETE FROM api_key_secrets WHERE id NOT IN"
        " (SELECT current_secret FROM api_keys WHERE current_secret IS NOT NULL)"
    )
    migrator.remove_fields("api_keys", "refill_interval", *COLUMNS)
