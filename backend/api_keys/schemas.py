"""Schemas of the API key routes."""

import json
from typing import Any

from marshmallow import ValidationError, fields, validate, validates_schema

from ..users.schemas import USER_ID
from ..web.api import (
    EnumString,
    Id,
    List,
    PageQuery,
    Pattern,
    QueryBoolean,
    ResponseSchema,
    Schema,
    StrictBoolean,
    StrictInteger,
    Timestamp,
    about,
)
from . import quotas
from .changes import LOCKABLE
from .networks import parse_address, parse_network
from .quotas import INTERVALS
from .scopes import PATTERN

STATUSES = ("active", "disabled", "expired", "revoked")
MOST_QUOTA = 1_000_000_000_000
KEY_ID = "0192d3a4-8888-7d8e-9f01-23456789abcd"
KEY = "bt_2mVq8Zr4KxY7nB1cWd9sLf3gHj6kPt5u0Q9mZc"


def _name(**kwargs: Any) -> fields.String:
    return fields.String(
        validate=validate.Length(1, 100),
        metadata=about("A name for people to read.", "deploys"),
        **kwargs,
    )


def _description(**kwargs: Any) -> fields.String:
    return fields.String(
        validate=validate.Length(max=500),
        allow_none=True,
        metadata=about("Notes about the key.", "Used by the deployment pipeline"),
        **kwargs,
    )


def scopes(description: str = "What the key may do.", **kwargs: Any) -> List:
    """The field for scopes."""
    scope = fields.String(validate=Pattern(PATTERN, "Must have the form area:act or area:*."))
    return List(scope, most=50, metadata=about(description, ["reports:read"]), **kwargs)


_COMPACT = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, check_circular=False)


class Metadata(fields.Dict):
    """A JSON object of at most 4,096 bytes when written compactly."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(value, dict):
            raise self.make_error("invalid")
        size = 0
        for part in _COMPACT.iterencode(value):
            size += len(part.encode())
            if size > 4096:
                raise ValidationError("At most 4096 bytes as compact JSON.")
        return value


class CIDR(fields.String):
    """An IPv4 or IPv6 address block without host bits; a single address is a block of one."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> str:
        try:
            return str(parse_network(value if isinstance(value, str) else ""))
        except ValueError:
            raise ValidationError("Must be an address block such as 192.0.2.0/24.") from None


class Address(fields.String):
    """An IP address."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> str:
        try:
            return str(parse_address(value if isinstance(value, str) else ""))
        except ValueError:
            raise ValidationError("Must be an IP address.") from None


def metadata() -> Metadata:
    """The field for metadata."""
    shown = about("Any data of yours: at most 4096 bytes of JSON.", {"team": "search"})
    return Metadata(metadata=shown)


def _allowed_ips() -> List:
    shown = about("Address blocks such as 192.0.2.0/24 that may use the key; empty: all.", [])
    return List(CIDR(), most=50, metadata=shown)


def _expires_at() -> Timestamp:
    shown = about("When the key expires, such as 2027-11-23T09:00:00Z; null: never.", None)
    return Timestamp(allow_none=True, metadata=shown)


def _uses(**kwargs: Any) -> StrictInteger:
    shown = about("How many uses are allowed in a window.", 100)
    return StrictInteger(validate=validate.Range(1, 1_000_000), metadata=shown, **kwargs)


def _window(**kwargs: Any) -> StrictInteger:
    shown = about("How long a window is, in seconds.", 60)
    return StrictInteger(validate=validate.Range(1, 86_400), metadata=shown, **kwargs)


class RateLimitSchema(Schema):
    """How often a key may be used."""

    limit = _uses(required=True)
    window_seconds = _window(required=True)


class ChangeRateLimitSchema(Schema):
    """How often a key may be used; members that you do not send stay as they are."""

    limit = _uses()
    window_seconds = _window()


def _rate_limit(schema: type[Schema] = RateLimitSchema) -> fields.Nested:
    shown = about("Null: none of its own; RATE_LIMIT_DEFAULT and RATE_LIMIT_MAX apply.")
    return fields.Nested(schema(), allow_none=True, metadata=shown)


def _amount(least: int, description: str, **kwargs: Any) -> StrictInteger:
    return StrictInteger(
        validate=validate.Range(least, MOST_QUOTA), metadata=about(description, 10_000), **kwargs
    )


def _refill_interval() -> EnumString:
    when = "When it is refilled, at 00:00 UTC: every day, or on the first of the month."
    shown = about(when, "monthly")
    return EnumString("RefillInterval", INTERVALS, allow_none=True, metadata=shown)


class ChangeQuotaSchema(Schema):
    """How much of a key may be used; members that you do not send stay as they are."""

    remaining = _amount(0, "How much is left now; a new quota starts at refill_amount without it.")
    refill_amount = _amount(1, "How much is left after each refill.", allow_none=True)
    refill_interval = _refill_interval()


class SetQuotaSchema(ChangeQuotaSchema):
    """How much of a key may be used."""

    @validates_schema
    def _whole(self, data: dict, **kwargs: object) -> None:
        if fault := quotas.fault(data):
            member, sentence = fault
            raise ValidationError(sentence, member)


class QuotaSchema(ResponseSchema):
    """How much of a key is left to use."""

    remaining = _amount(0, "How much is left now.")
    refill_amount = _amount(1, "How much is left after each refill.", allow_none=True)
    refill_interval = _refill_interval()


def _quota(schema: type[Schema] | type[ResponseSchema] = SetQuotaSchema) -> fields.Nested:
    shown = about("How much of the key may be used; null: any amount.")
    return fields.Nested(schema(), allow_none=True, metadata=shown)


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
    created_at = Timestamp(metadata=about("When the new secret was made.", "2026-11-23T09:00:00Z"))
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

    id = Id(metadata=about("The key's id, which is not secret.", KEY_ID))
    name = _name()
    description = _description()
    hint = fields.String(
        metadata=about(
            "Prefix and last four characters of the oldest secret still accepted.", "bt_...mVqZ"
        )
    )
    scopes = scopes()
    metadata = metadata()
    allowed_ips = _allowed_ips()
    rate_limit = _rate_limit()
    quota = _quota(QuotaSchema)
    expires_at = _expires_at()
    disabled = fields.Boolean(metadata=about("Whether the key is refused for now.", False))
    status = EnumString(
        "KeyStatus",
        STATUSES,
        metadata=about(
            "The first that applies: `revoked`, `disabled`, `expired`, `active`.", "active"
        ),
    )
    created_at = Timestamp(metadata=about("When the key was made.", "2026-11-23T09:00:00Z"))
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
    owner_id = Id(metadata=about("The id of the user whose key it is.", USER_ID))
    parent_id = Id(
        allow_none=True,
        metadata=about("The id of the key that made this one; null if none did.", None),
    )
    locked_by_admin = fields.List(
        EnumString("LockedByAdmin", LOCKABLE),
        metadata=about("What an administrator has set; only an administrator can widen it.", []),
    )
    rotation = fields.Nested(
        RotationSchema(),
        allow_none=True,
        metadata=about("A new secret that is replacing the old one; null: none."),
    )


class NewApiKeySchema(ApiKeySchema):
    """An API key with its text, which is never shown again."""

    key = fields.String(metadata=about("The text to present; keep it secret.", KEY))


class CreateKeySchema(Schema):
    """Create an API key."""

    name = _name(required=True)
    description = _description()
    scopes = scopes()
    metadata = metadata()
    allowed_ips = _allowed_ips()
    rate_limit = _rate_limit()
    quota = _quota()
    owner_id = Id(
        metadata=about("The service account to own the key; for an administrator's session.")
    )
    expires_in_days = StrictInteger(
        validate=validate.Range(1, 3650),
        allow_none=True,
        metadata=about("In how many days the key expires, instead of expires_at; null: never.", 90),
    )
    expires_at = Timestamp(allow_none=True, metadata=about("When the key expires; null: never."))

    @validates_schema
    def _one_expiry(self, data: dict, **kwargs: object) -> None:
        if "expires_in_days" in data and "expires_at" in data:
            raise ValidationError("Cannot be combined with expires_in_days.", "expires_at")


class ChangeKeySchema(Schema):
    """Change an API key."""

    name = _name()
    description = _description()
    scopes = scopes()
    metadata = metadata()
    allowed_ips = _allowed_ips()
    rate_limit = _rate_limit(ChangeRateLimitSchema)
    quota = _quota(ChangeQuotaSchema)
    expires_at = _expires_at()
    disabled = StrictBoolean(metadata=about("True: refuse the key until it is false again.", False))


def api_key_text(**kwargs: Any) -> fields.String:
    """The field for the text of a key."""
    return fields.String(metadata=about("The text of the key.", KEY), **kwargs)


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

    key = api_key_text(required=True)


class OwnerId(fields.String):
    """A user's id, or `any`."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        return "any" if value == "any" else Id().deserialize(value)


class KeyQuery(PageQuery):
    """Which keys to list."""

    owner_id = OwnerId(
        metadata=about("For an administrator's session: keys of this user; `any`: of all users.")
    )
    status = EnumString("KeyStatus", STATUSES, metadata=about("Keys with this status."))
    search = fields.String(
        validate=validate.Length(1, 100),
        metadata=about("Text to find in name or description, in either case."),
    )
    expires_before = Timestamp(metadata=about("Keys that expire before this time."))
    unused_since = Timestamp(
        metadata=about("Keys not used since then; for keys never used, not made since then.")
    )
    never_used = QueryBoolean(
        metadata=about("True: keys never used; false: keys used at least once.")
    )
