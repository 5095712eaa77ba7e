"""The tables of API keys and of their secrets."""

import json

import peewee as pw

from ..core.clock import now
from ..core.database import Model, UTCDateTimeField
from ..users.models import User


class ScopesField(pw.TextField):
    """A list of scopes, kept as a JSON array."""

    def db_value(self, value: list[str]) -> str:
        return json.dumps(value)

    def python_value(self, value: str) -> list[str]:
        return list(json.loads(value))


class ApiKey(Model):
    """A key as its owner sees it. What is presented and compared stands in ApiKeySecret."""

    owner = pw.ForeignKeyField(User, on_delete="CASCADE", index=False)
    name = pw.CharField(max_length=100)
    description = pw.CharField(max_length=500, null=True)
    scopes = ScopesField()
    expires_at = UTCDateTimeField(null=True)
    disabled = pw.BooleanField(default=False)
    revoked_at = UTCDateTimeField(null=True)
    updated_at = UTCDateTimeField(default=now)
    last_used_at = UTCDateTimeField(null=True)
    last_used_ip = pw.CharField(max_length=45, null=True)

    class Meta:
        table_name = "api_keys"
        indexes = ((("owner", "id"), False),)

    @property
    def status(self) -> str:
        """revoked, disabled, expired or active: the first that holds.

        `service._has_status` says the same as a condition, auth/identify.py as part of a statement.
        """
        if self.revoked_at is not None:
            return "revoked"
        if self.disabled:
            return "disabled"
        return "expired" if self.expires_at and self.expires_at <= now() else "active"


class ApiKeySecret(Model):
    """The digest of one secret text of a key. A key under rotation has two of them.

    `secret_id` names the SECRET_KEY under which the digest was made.
    """

    key = pw.ForeignKeyField(ApiKey, on_delete="CASCADE", backref="secrets")
    digest = pw.CharField(max_length=64, unique=True)
    secret_id = pw.CharField(max_length=8)
    hint = pw.CharField(max_length=32)

    class Meta:
        table_name = "api_key_secrets"
