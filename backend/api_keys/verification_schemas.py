"""Schemas of verifying a key."""

from marshmallow import fields, validate

from ..users.schemas import USER_ID, kind, role
from ..web.fields import (
    EnumString,
    Id,
    ResponseSchema,
    Schema,
    StrictBoolean,
    StrictInteger,
    Timestamp,
    about,
)
from .key_fields import KEY_ID, Address, api_key_text, metadata, scopes
from .verification import CODES


def _ip() -> Address:
    description = "The address from which the key was used; required for a key with `allowed_ips`."
    return Address(metadata=about(description, "192.0.2.1"))


class ExplainSchema(Schema):
    """The use that a key is checked for."""

    scopes = scopes("The scopes that the key must have.")
    ip = _ip()


class VerifySchema(ExplainSchema):
    """A key that was presented to a service, and what it was presented for."""

    key = api_key_text(required=True)
    cost = StrictInteger(
        validate=validate.Range(0, 1_000_000),
        metadata=about("How much of the quota to spend; 0 does not count as a use.", 1),
    )
    explain = StrictBoolean(
        metadata=about("True: return all checks, and do not count a use.", False)
    )


class CheckSchema(ResponseSchema):
    """A check and its outcome."""

    code = EnumString(
        "VerifyCode", CODES, metadata=about("The code if this check fails.", "expired")
    )
    passed = fields.Boolean(metadata=about("Whether the key passes this check.", True))


class OwnerSchema(ResponseSchema):
    """The key's owner."""

    id = Id(metadata=about("The user's id.", USER_ID))
    username = fields.String(metadata=about("The user's name.", "alice"))
    role = role()
    kind = kind()


class RateSchema(ResponseSchema):
    """The state of a key's rate limit. If keys that made it have one too, the tightest of them."""

    limit = fields.Integer(metadata=about("How many uses are allowed in a window.", 100))
    remaining = fields.Integer(metadata=about("How many uses are left.", 99))
    reset_seconds = fields.Integer(
        metadata=about("Seconds until the window ends; if none are left, until the next use.", 60)
    )


class RemainingSchema(ResponseSchema):
    """The state of a key's quota."""

    remaining = fields.Integer(metadata=about("How much is left.", 9_999))


class VerifiedSchema(ResponseSchema):
    """The decision: the code of the first check that failed, or `valid`.

    Describes the key too, if there is one; `checks` only if you ask for them.
    """

    sometimes = frozenset(
        {"key_id", "owner", "name", "scopes", "metadata", "expires_at"}
        | {"rate_limit", "quota", "checks"}
    )

    valid = fields.Boolean(metadata=about("Whether the key may be used for this.", True))
    code = EnumString(
        "VerifyCode", CODES, metadata=about("`valid`, or the first check that failed.", "valid")
    )
    key_id = Id(metadata=about("The key's id.", KEY_ID))
    owner = fields.Nested(OwnerSchema(), metadata=about("The key's owner."))
    name = fields.String(metadata=about("The key's name.", "deploys"))
    scopes = fields.List(
        fields.String(),
        metadata=about("The key's scopes that its owner's role allows now.", ["reports:read"]),
    )
    metadata = metadata()
    expires_at = Timestamp(
        allow_none=True, metadata=about("When the key expires; null: never.", None)
    )
    rate_limit = fields.Nested(
        RateSchema(), metadata=about("The state of its rate limit, if it has one.")
    )
    quota = fields.Nested(
        RemainingSchema(), metadata=about("The state of its quota, if it has one.")
    )
    checks = fields.List(
        fields.Nested(CheckSchema()),
        metadata=about("All checks in order, if `explain` was true."),
    )
