"""What goes in and out of the API key routes."""

import json
from typing import Any

from marshmallow import ValidationError, fields, validate, validates_schema

from ..crypto.keyring import read_digest
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
)
from . import quotas
from .changes import LOCKABLE
from .networks import parse_address, parse_network
from .quotas import INTERVALS
from .scopes import PATTERN

STATUSES = ("active", "disabled", "expired", "revoked")
MOST_QUOTA = 1_000_000_000_000
KEY = "bt_2mVq8Zr4KxY7nB1cWd9sLf3gHj6kPt5u0Q9mZc"


def _name(**kwargs: object) -> fields.String:
    return fields.String(
        validate=validate.Length(1, 100),
        metadata={"example": "deploys"},
        **kwargs,  # type: ignore[arg-type]
    )


def _description(**kwargs: object) -> fields.String:
    return fields.String(
        validate=validate.Length(max=500),
        allow_none=True,
        metadata={"example": "Used by the deployment pipeline"},
        **kwargs,  # type: ignore[arg-type]
    )


def scopes(**kwargs: object) -> List:
    """The field for scopes."""
    scope = fields.String(validate=Pattern(PATTERN, "Not of the form area:act or area:*."))
    return List(
        scope,
        most=50,
        metadata={"example": ["reports:read"], "description": "What the key may do."},
        **kwargs,
    )


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
    """An address block, IPv4 or IPv6, without host bits; a single address is a block of one."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> str:
        try:
            return str(parse_network(value if isinstance(value, str) else ""))
        except ValueError:
            raise ValidationError("Not an address block such as 192.0.2.0/24.") from None


class Address(fields.String):
    """An IP address."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> str:
        try:
            return str(parse_address(value if isinstance(value, str) else ""))
        except ValueError:
            raise ValidationError("Not an IP address.") from None


def metadata() -> Metadata:
    """The field for metadata."""
    about = {"example": {"team": "search"}, "description": "Yours: at most 4096 bytes of JSON."}
    return Metadata(metadata=about)


def _allowed_ips() -> List:
    about = {
        "example": [],
        "description": "Address blocks such as 192.0.2.0/24; empty: from anywhere.",
    }
    return List(CIDR(), most=50, metadata=about)


def _expires_at() -> Timestamp:
    about = {"example": None, "description": "A time such as 2027-11-23T09:00:00Z; null: never."}
    return Timestamp(allow_none=True, metadata=about)


def _uses(**kwargs: Any) -> StrictInteger:
    return StrictInteger(validate=validate.Range(1, 1_000_000), metadata={"example": 100}, **kwargs)


def _window(**kwargs: Any) -> StrictInteger:
    return StrictInteger(validate=validate.Range(1, 86_400), metadata={"example": 60}, **kwargs)


class RateLimitSchema(Schema):
    """How often a key may be used."""

    limit = _uses(required=True)
    window_seconds = _window(required=True)


class ChangeRateLimitSchema(Schema):
    """How often a key may be used; a member that is not sent stays as it is."""

    limit = _uses()
    window_seconds = _window()


def _rate_limit(schema: type[Schema] = RateLimitSchema) -> fields.Nested:
    about = {"description": "Null: none of its own. RATE_LIMIT_DEFAULT and RATE_LIMIT_MAX count."}
    return fields.Nested(schema(), allow_none=True, metadata=about)


def _amount(least: int, description: str, **kwargs: object) -> StrictInteger:
    return StrictInteger(
        validate=validate.Range(least, MOST_QUOTA),
        metadata={"example": 10_000, "description": description},
        **kwargs,  # type: ignore[arg-type]
    )


def _refill_interval() -> EnumString:
    about = "Refilled at 00:00 UTC, daily or on the first of the month."
    example = {"example": "monthly", "description": about}
    return EnumString("RefillInterval", INTERVALS, allow_none=True, metadata=example)


class ChangeQuotaSchema(Schema):
    """How much of a key may be used; a member that is not sent stays as it is."""

    remaining = _amount(0, "What is left now; a new quota has refill_amount without it.")
    refill_amount = _amount(1, "What it is set to at each refill.", allow_none=True)
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

    remaining = _amount(0, "What is left now.")
    refill_amount = _amount(1, "What it is set to at each refill.", allow_none=True)
    refill_interval = _refill_interval()


def _quota(schema: type[Schema] | type[ResponseSchema] = SetQuotaSchema) -> fields.Nested:
    return fields.Nested(schema(), allow_none=True, metadata={"description": "Null: none."})


class RotationSchema(ResponseSchema):
    """A secret that takes another's place; both are accepted meanwhile."""

    state = EnumString(
        "RotationState",
        ("pending", "grace"),
        metadata={
            "example": "pending",
            "description": "Pending until the new secret is used, grace from then on.",
        },
    )
    hint = fields.String(metadata={"example": "bt_...Qw3r", "description": "Of the new secret."})
    created_at = Timestamp(metadata={"example": "2026-11-23T09:00:00Z"})
    grace_seconds = fields.Integer(metadata={"example": 86_400})
    old_expires_at = Timestamp(
        allow_none=True,
        metadata={"example": None, "description": "When the old secret ends; null: not yet set."},
    )


class RotateKeySchema(Schema):
    """Give an API key a new secret."""

    grace_seconds = StrictInteger(
        validate=validate.Range(0, 604_800),
        metadata={
            "example": 86_400,
            "description": "How long the old secret goes on after the first use of the new one.",
        },
    )


class ApiKeySchema(ResponseSchema):
    """An API key, without its text."""

    id = Id(metadata={"example": "0192d3a4-8888-7d8e-9f01-23456789abcd"})
    name = _name()
    description = _description()
    hint = fields.String(
        metadata={
            "example": "bt_...mVqZ",
            "description": "Prefix and last four characters, of the secret accepted longest.",
        },
    )
    scopes = scopes()
    metadata = metadata()
    allowed_ips = _allowed_ips()
    rate_limit = _rate_limit()
    quota = _quota(QuotaSchema)
    expires_at = _expires_at()
    disabled = fields.Boolean(metadata={"example": False})
    status = EnumString(
        "KeyStatus",
        STATUSES,
        metadata={
            "example": "active",
            "description": "Revoked, disabled, expired come in that order.",
        },
    )
    created_at = Timestamp(metadata={"example": "2026-11-23T09:00:00Z"})
    updated_at = Timestamp(metadata={"example": "2026-11-23T09:00:00Z"})
    last_used_at = Timestamp(
        allow_none=True, metadata={"example": None, "description": "A few seconds late."}
    )
    last_used_ip = fields.String(allow_none=True, metadata={"example": None})
    owner_id = Id(metadata={"example": "0192d3a4-5b6c-7d8e-9f01-23456789abcd"})
    parent_id = Id(
        allow_none=True,
        metadata={"example": None, "description": "The key that made this one; null: none did."},
    )
    locked_by_admin = fields.List(
        EnumString("LockedByAdmin", LOCKABLE),
        metadata={
            "example": [],
            "description": "What an administrator has set, and only an administrator may widen.",
        },
    )
    rotation = fields.Nested(
        RotationSchema(), allow_none=True, metadata={"description": "Null: one secret."}
    )


class NewApiKeySchema(ApiKeySchema):
    """An API key with its text, which is shown this once."""

    key = fields.String(metadata={"example": KEY})


class CreateKeySchema(Schema):
    """Create an API key."""

    name = _name(required=True)
    description = _description()
    scopes = scopes()
    metadata = metadata()
    allowed_ips = _allowed_ips()
    rate_limit = _rate_limit()
    quota = _quota()
    owner_id = Id(metadata={"description": "A service account, for an administrator's session."})
    expires_in_days = StrictInteger(
        validate=validate.Range(1, 3650),
        allow_none=True,
        metadata={"example": 90, "description": "Instead of expires_at. Null: never."},
    )
    expires_at = Timestamp(allow_none=True, metadata={"description": "Null: never."})

    @validates_schema
    def _one_expiry(self, data: dict, **kwargs: object) -> None:
        if "expires_in_days" in data and "expires_at" in data:
            raise ValidationError("Not together with expires_in_days.", "expires_at")


class Digest(fields.String):
    """What another system keeps of a key; see tokens.read_digest."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> str:
        try:
            return read_digest(value if isinstance(value, str) else "")
        except ValueError:
            raise ValidationError(
                "Not the SHA-256 of a key, in hex or base64url, nor sha512$$ and its SHA-512."
            ) from None


class ImportKeySchema(CreateKeySchema):
    """Take over a key of another system, of whose text only a digest is known."""

    class Meta(Schema.Meta):
        exclude = ("owner_id",)

    owner = fields.String(required=True)
    digest = Digest(required=True)
    hint = fields.String(validate=validate.Length(1, 32))
    created_at = Timestamp()


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
    disabled = StrictBoolean(metadata={"example": False})


def api_key_text(**kwargs: object) -> fields.String:
    """The field for the text of a key."""
    return fields.String(metadata={"example": KEY}, **kwargs)  # type: ignore[arg-type]


class CascadeSchema(Schema):
    """Revoke an API key, and perhaps others with it."""

    cascade = StrictBoolean(
        metadata={"example": False, "description": "Revoke all keys that came of it too."}
    )


class DeleteQuery(Schema):
    """What to delete with a key."""

    cascade = QueryBoolean(
        metadata={"description": "Delete the keys that came of it and are not revoked too."}
    )


class RevokeKeySchema(Schema):
    """Revoke the API key that one holds."""

    key = api_key_text(required=True)


class OwnerId(fields.String):
    """A user's id, or any."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        return "any" if value == "any" else Id().deserialize(value)


class KeyQuery(PageQuery):
    """Which keys to list."""

    owner_id = OwnerId(
        metadata={"description": "For an administrator's session: a user's id, or any."}
    )
    status = EnumString("KeyStatus", STATUSES)
    search = fields.String(
        validate=validate.Length(1, 100),
        metadata={"description": "Literally, in name and description, in either case."},
    )
    expires_before = Timestamp()
    unused_since = Timestamp(
        metadata={"description": "Not used since then; unused ones by creation."}
    )
    never_used = QueryBoolean()


class UsageQuery(Schema):
    """Which counts to tell, and how they are summed up."""

    since = Timestamp(
        metadata={"description": "From the interval that holds it; by default 24 hours or 30 days."}
    )
    until = Timestamp(metadata={"description": "To the interval before it ends; by default now."})
    interval = EnumString(
        "UsageInterval",
        ("hour", "day"),
        metadata={"description": "In UTC; hour by default, for 31 days at most. Days: 400."},
    )


class UsedSchema(ResponseSchema):
    """What was decided of a key in an hour or a day."""

    start = Timestamp(metadata={"example": "2026-11-23T09:00:00Z"})
    valid = fields.Integer(metadata={"example": 120})
    denied = fields.Dict(
        keys=fields.String(),
        values=fields.Integer(),
        metadata={"example": {"rate_limited": 3}, "description": "How often, by code."},
    )


class UsageSchema(ResponseSchema):
    """What was decided of a key."""

    items = fields.List(
        fields.Nested(UsedSchema()),
        metadata={"description": "The oldest first; without those in which it was not presented."},
    )
