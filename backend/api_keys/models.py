"""The tables of API keys and of their secrets."""

import json
from collections.abc import Callable
from typing import Any

import peewee as pw

from ..core.clock import now
from ..core.database import Model, UTCDateTimeField
from ..users.models import User


class JSONField(pw.TextField):
    """A list or an object, kept as compact JSON. NULL is an empty one."""

    def __init__(self, kind: Callable[[], Any], **kwargs: Any) -> None:
        self._kind = kind
        super().__init__(**kwargs)

    def db_value(self, value: Any) -> str:
        return json.dumps(value, separators=(",", ":"))

    def python_value(self, value: str | None) -> Any:
        return self._kind() if value is None else json.loads(value)


class ApiKey(Model):
    """A key as its owner sees it. What is presented and compared stands in ApiKeySecret."""

    owner = pw.ForeignKeyField(User, on_delete="CASCADE", index=False)
    name = pw.CharField(max_length=100)
    description = pw.CharField(max_length=500, null=True)
    scopes = JSONField(list)
    metadata = JSONField(dict, null=True)
    allowed_ips = JSONField(list, null=True)
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
