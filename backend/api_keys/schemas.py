"""Schemas of the API key routes."""

from marshmallow import ValidationError, fields, validate, validates_schema

from ..users.schemas import USER_ID
from ..web.api import PageQuery
from ..web.fields import (
    EnumString,
    Id,
    QueryBoolean,
    ResponseSchema,
    Schema,
    StrictBoolean,
    StrictInteger,
    Timestamp,
    about,
)
from . import key_fields, limit_schemas
from .changes import LOCKABLE

STATUSES = ("active", "disabled", "expired", "revoked")


class RotationSchema(ResponseSchema):
    """A new secret that is replacing an old one; both are accepted until the old one ends."""

    state = EnumString(
        "RotationState",
        ("pending", "grace"),
        metadata=about("`pending` until the new secret is first used, then `grace`.", "pending"),
    )
    hint = fields.String(
        metadata=about("Prefix and last four characters of the new secret.", "bt_...Qw3r")
    )
    created_at = Timestamp(
        metadata=about("When the new secret was created.", "2026-11-23T09:00:00Z")
    )
    grace_seconds = fields.Integer(
        metadata=about("How long the old secret works after the first use of the new one.", 86_400)
    )
    old_expires_at = Timestamp(
        allow_none=True, metadata=about("When the old secret ends; null while pending.", None)
    )


class RotateKeySchema(Schema):
    """Give an API key a new secret."""

    grace_seconds = StrictInteger(
        validate=validate.Range(0, 604_800),
        metadata=about("How long the old secret works after the first use of the new one.", 86_400),
    )


class ApiKeySchema(ResponseSchema):
    """An API key, without its text."""

    id = Id(metadata=about("The key's id, which is not secret.", key_fields.KEY_ID))
    name = key_fields.name()
    description = key_fields.description()
    hint = fields.String(
        metadata=about(
            "Prefix and last four characters of the oldest secret still accepted.", "bt_...mVqZ"
        )
    )
    scopes = key_fields.scopes()
    metadata = key_fields.metadata()
    allowed_ips = key_fields.allowed_ips()
    rate_limit = limit_schemas.rate_limit()
    quota = limit_schemas.quota(limit_schemas.QuotaSchema)
    expires_at = key_fields.expires_at()
    disabled = fields.Boolean(metadata=about("Whether the key is disabled.", False))
    status = EnumString(
        "KeyStatus",
        STATUSES,
        metadata=about(
            "The first that applies: `revoked`, `disabled`, `expired`, `active`.", "active"
        ),
    )
    created_at = Timestamp(metadata=about("When the key was created.", "2026-11-23T09:00:00Z"))
    updated_at = Timestamp(metadata=about("When the key last changed.", "2026-11-23T09:00:00Z"))
    last_used_at = Timestamp(
        allow_none=True,
        metadata=about(
            "When the key was last used, stored a few seconds later; null: never.", None
        ),
    )
    last_used_ip = fields.String(
        allow_none=True, metadata=about("The address it was last used from, if known.", None)
    )
    owner_id = Id(metadata=about("The id of the key's owner.", USER_ID))
    parent_id = Id(
        allow_none=True,
        metadata=about("The id of the key that made this one; null if none did.", None),
    )
    locked_by_admin = fields.List(
        EnumString("LockedByAdmin", LOCKABLE),
        metadata=about(
            "The members that an administrator has set; only an administrator can widen them.", []
        ),
    )
    rotation = fields.Nested(
        RotationSchema(),
        allow_none=True,
        metadata=about("A new secret that is replacing the old one; null: none."),
    )


class NewApiKeySchema(ApiKeySchema):
    """An API key with its text, which is never shown again."""

    key = fields.String(metadata=about("The text to present; keep it secret.", key_fields.KEY))


class CreateKeySchema(Schema):
    """Create an API key."""

    name = key_fields.name(required=True)
    description = key_fields.description()
    scopes = key_fields.scopes()
    metadata = key_fields.metadata()
    allowed_ips = key_fields.allowed_ips()
    rate_limit = limit_schemas.rate_limit()
    quota = limit_schemas.quota()
    owner_id = Id(
        metadata=about(
            "The service account that will own the key; only for an administrator's session."
        )
    )
    expires_in_days = StrictInteger(
        validate=validate.Range(1, 3650),
        allow_none=True,
        metadata=about(
            "The number of days until the key expires, instead of `expires_at`; null: never.", 90
        ),
    )
    expires_at = Timestamp(allow_none=True, metadata=about("When the key expires; null: never."))

    @validates_schema
    def _one_expiry(self, data: dict, **kwargs: object) -> None:
        if "expires_in_days" in data and "expires_at" in data:
            raise ValidationError("Cannot be combined with expires_in_days.", "expires_at")


class ChangeKeySchema(Schema):
    """Change an API key."""

    name = key_fields.name()
    description = key_fields.description()
    scopes = key_fields.scopes()
    metadata = key_fields.metadata()
    allowed_ips = key_fields.allowed_ips()
    rate_limit = limit_schemas.rate_limit(limit_schemas.ChangeRateLimitSchema)
    quota = limit_schemas.quota(limit_schemas.ChangeQuotaSchema)
    expires_at = key_fields.expires_at()
    disabled = StrictBoolean(metadata=about("True: refuse the key until it is false again.", False))


class CascadeSchema(Schema):
    """Revoke an API key, and optionally the keys made with it."""

    cascade = StrictBoolean(
        metadata=about("Also revoke all keys made with it, directly or indirectly.", False)
    )


class DeleteQuery(Schema):
    """What to delete with a key."""

    cascade = QueryBoolean(
        metadata=about("Also delete all keys made with it that are not revoked.")
    )


class RevokeKeySchema(Schema):
    """Revoke an API key by its text."""

    key = key_fields.api_key_text(required=True)


class KeyQuery(PageQuery):
    """Which keys to list."""

    owner_id = key_fields.OwnerId(
        metadata=about(
            "Only for an administrator's session: keys of this user, or `any` for all users."
        )
    )
    status = EnumString("KeyStatus", STATUSES, metadata=about("Only keys with this status."))
    search = fields.String(
        validate=validate.Length(1, 100),
        metadata=about("Text to find in the name or description, ignoring case."),
    )
    expires_before = Timestamp(metadata=about("Only keys that expire before this time."))
    unused_since = Timestamp(
        metadata=about("Only keys not used since then, or never used and created before then.")
    )
    never_used = QueryBoolean(
        metadata=about("True: only keys never used; false: only keys used at least once.")
    )
