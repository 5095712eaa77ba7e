"""The table of how often API keys were used and refused."""

import peewee as pw

from ..api_keys.models import ApiKey
from ..db.database import Model


class KeyUsage(Model):
    """How often a key got one outcome in one hour. `hour` counts from 1970, in UTC."""

    id = None
    created_at = None
    key = pw.ForeignKeyField(ApiKey, on_delete="CASCADE", index=False)
    hour = pw.IntegerField(index=True)
    code = pw.CharField(max_length=20)
    uses = pw.BigIntegerField()

    class Meta:
        table_name = "key_usage"
        primary_key = pw.CompositeKey("key", "hour", "code")
