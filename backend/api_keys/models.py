"""The tables of API keys and of their secrets."""

import json
from collections.abc import Callable, Collection
from typing import Any
from uuid import UUID

import peewee as pw

from ..core.clock import now
from ..db.database import Model, UTCDateTimeField, on_postgres
from ..users.models import User
from . import quotas


class JSONField(pw.TextField):
    """A list or an object, stored as compact JSON. NULL means an empty one."""

    def __init__(self, kind: Callable[[], Any], **kwargs: Any) -> None:
        self._kind = kind
        super().__init__(**kwargs)

    def db_value(self, value: Any) -> str | None:
        if self.null and not value:
            return None
        return json.dumps(value, separators=(",", ":"))

    def python_value(self, value: str | None) -> Any:
        return self._kind() if value is None else json.loads(value)


class ApiKey(Model):
    """A key as its owner sees it. The secrets that authenticate it are in ApiKeySecret.

    The accepted secrets are `current_secret`, `pending_secret`, which replaces it at its first use,
    and, until `grace_ends_at`, `grace_secret`, which was replaced. They are columns here so that
    one UPDATE of one row replaces a secret.

    `parent` is the key that made this one; null if a session did, or another system.
    `locked_by_admin` names attributes that an administrator set, which only an administrator may
    widen. `enabled_at` is when it was last re-enabled, or imported; `expiry_notice` is how many
    days before `expires_at` the owner was last notified.
    """

    # The rows of these secrets, if `queries._with_secrets` has read them.
    current: Any = None
    pending: Any = None
    grace: Any = None

    owner = pw.ForeignKeyField(User, on_delete="CASCADE", index=False)
    parent = pw.ForeignKeyField("self", null=True, on_delete="SET NULL")
    name = pw.CharField(max_length=100)
    description = pw.CharField(max_length=500, null=True)
    scopes = JSONField(list)
    metadata = JSONField(dict, null=True)
    allowed_ips = JSONField(list, null=True)
    rate_limit_uses = pw.IntegerField(null=True)
    rate_limit_seconds = pw.IntegerField(null=True)
    quota_remaining = pw.BigIntegerField(null=True)
    refill_amount = pw.BigIntegerField(null=True)
    refill_interval = pw.CharField(max_length=7, null=True)
    refilled_at = UTCDateTimeField(null=True)
    current_secret = pw.UUIDField(null=True)
    pending_secret = pw.UUIDField(null=True)
    grace_secret = pw.UUIDField(null=True)
    grace_seconds = pw.IntegerField(null=True)
    grace_ends_at = UTCDateTimeField(null=True)
    expires_at = UTCDateTimeField(null=True)
    disabled = pw.BooleanField(default=False)
    revoked_at = UTCDateTimeField(null=True)
    updated_at = UTCDateTimeField(default=now)
    last_used_at = UTCDateTimeField(null=True)
    last_used_ip = pw.CharField(max_length=45, null=True)
    enabled_at = UTCDateTimeField(null=True)
    expiry_notice = pw.SmallIntegerField(null=True)
    locked_by_admin = JSONField(list, null=True)

    class Meta:
        table_name = "api_keys"
        # To list an owner's keys, and to count those that are not revoked.
        indexes = ((("owner", "id"), False), (("owner", "revoked_at"), False))

    @property
    def status(self) -> str:
        """revoked, disabled, expired or active: the first that applies.

        `has_status` is the same as a condition; verification.checks repeats it for the row it
        reads.
        """
        if self.revoked_at is not None:
            return "revoked"
        if self.disabled:
            return "disabled"
        return "expired" if self.expires_at and self.expires_at <= now() else "active"

    @classmethod
    def has_status(cls, status: str) -> Any:
        """Build the condition that a key has this status."""
        revoked = cls.revoked_at.is_null(False)
        expired = cls.expires_at.is_null(False) & (cls.expires_at <= now())
        return {
            "revoked": revoked,
            "disabled": ~revoked & cls.disabled,
            "expired": ~revoked & ~cls.disabled & expired,
            "active": ~revoked & ~cls.disabled & ~expired,
        }[status]

    @classmethod
    def has_scopes_within(cls, scopes: Collection[str]) -> Any:
        """Build the condition that `scopes` cover all scopes of a key, as in `scopes.within`."""
        held = pw.SQL("held.value")
        beyond = held.not_in(sorted(scopes))
        for scope in scopes:
            area, _, act = scope.partition(":")
            if act == "*":
                beyond &= pw.fn.SUBSTR(held, 1, len(area) + 1) != f"{area}:"
        elements = "json_each(", ") AS held"
        if on_postgres():
            elements = "jsonb_array_elements_text(CAST(", " AS jsonb)) AS held(value)"
        before, after = map(pw.SQL, elements)
        found = pw.NodeList((pw.SQL("SELECT 1 FROM"), before, cls.scopes, after))
        return pw.NodeList((pw.SQL("NOT EXISTS ("), found, pw.SQL("WHERE"), beyond, pw.SQL(")")))

    @property
    def rate_limit(self) -> dict[str, int] | None:
        """`limit` uses in `window_seconds`; None if the key has no limit of its own."""
        if self.rate_limit_uses is None:
            return None
        return {"limit": self.rate_limit_uses, "window_seconds": self.rate_limit_seconds}

    @rate_limit.setter
    def rate_limit(self, wanted: dict[str, int] | None) -> None:
        self.rate_limit_uses = wanted and wanted["limit"]
        self.rate_limit_seconds = wanted and wanted["window_seconds"]

    @property
    def quota(self) -> dict[str, Any] | None:
        """What is left now, and what it is refilled to; None if there is no quota."""
        if self.quota_remaining is None:
            return None
        interval, at = self.refill_interval, now()
        is_due = quotas.is_due(interval, self.refilled_at, at)
        return {
            "remaining": self.refill_amount if is_due else self.quota_remaining,
            "refill_amount": self.refill_amount,
            "refill_interval": interval,
        }

    @quota.setter
    def quota(self, wanted: dict[str, Any] | None) -> None:
        wanted = wanted or {}
        self.refill_amount = wanted.get("refill_amount")
        self.refill_interval = wanted.get("refill_interval")
        self.quota_remaining = wanted.get("remaining", self.refill_amount)
        self.refilled_at = now() if self.refill_interval else None

    @property
    def hint(self) -> str:
        """The displayable part of the secret that has been accepted longest."""
        return self._secret(self.accepted_secrets[0]).hint

    @property
    def rotation(self) -> dict[str, Any] | None:
        """The newest secret while the one before it is still accepted; else None."""
        in_grace = self._in_grace
        if self.pending_secret is None and not in_grace:
            return None
        newest = self._secret(self.pending_secret or self.current_secret)
        return {
            "state": "pending" if self.pending_secret else "grace",
            "hint": newest.hint,
            "created_at": newest.created_at,
            "grace_seconds": self.grace_seconds,
            "old_expires_at": self.grace_ends_at if in_grace else None,
        }

    @property
    def accepted_secrets(self) -> list[UUID]:
        """The ids of the secrets that are accepted now, the one accepted longest first."""
        in_order = [self._in_grace and self.grace_secret, self.current_secret, self.pending_secret]
        return [each for each in in_order if each]

    @property
    def _in_grace(self) -> bool:
        return self.grace_ends_at is not None and self.grace_ends_at > now()

    def _secret(self, secret_id: UUID) -> Any:
        rows = (self.current, self.pending, self.grace)
        read = (row for row in rows if row and row.id == secret_id)
        return next(read, None) or ApiKeySecret.get_by_id(secret_id)


class ApiKeySecret(Model):
    """The digest of one secret text of a key. A key being rotated has more than one.

    `secret_id` names the SECRET_KEY under which the digest was made.
    """

    key = pw.ForeignKeyField(ApiKey, on_delete="CASCADE")
    digest = pw.CharField(max_length=64, unique=True)
    secret_id = pw.CharField(max_length=8)
    hint = pw.CharField(max_length=32)

    class Meta:
        table_name = "api_key_secrets"
