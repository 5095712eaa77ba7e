"""Schemas of verifying a key."""

from marshmallow import fields, validate

from ..users.schemas import kind, role
from ..web.api import (
    EnumString,
    Id,
    ResponseSchema,
    Schema,
    StrictBoolean,
    StrictInteger,
    Timestamp,
)
from .schemas import Address, api_key_text, metadata, scopes
from .verification import CODES

_ID = "0192d3a4-8888-7d8e-9f01-23456789abcd"


def _ip() -> Address:
    about = {
        "example": "192.0.2.1",
        "description": "Where the key was used from. Needed for a key with allowed_ips.",
    }
    return Address(metadata=about)


class ExplainSchema(Schema):
    """What a key would be used for."""

    scopes = scopes("What the key is to be used for; it needs all of them.")
    ip = _ip()


class VerifySchema(ExplainSchema):
    """A key that was presented to a service, and what it was presented for."""

    key = api_key_text(required=True)
    cost = StrictInteger(
        validate=validate.Range(0, 1_000_000),
        metadata={
            "example": 1,
            "description": "How much of the quota to spend; 0 does not count as a use.",
        },
    )
    explain = StrictBoolean(
        metadata={
            "example": False,
            "description": "True: return all checks; does not count as a use.",
        }
    )


class CheckSchema(ResponseSchema):
    """A check and its outcome."""

    code = EnumString(
        "VerifyCode",
        CODES,
        metadata={"example": "expired", "description": "The code if this check fails."},
    )
    passed = fields.Boolean(
        metadata={"example": True, "description": "Whether the key passes this check."}
    )


class OwnerSchema(ResponseSchema):
    """The user whose key it is."""

    id = Id(metadata={"example": _ID, "description": "The user's id."})
    username = fields.String(metadata={"example": "alice", "description": "The user's name."})
    role = role()
    kind = kind()


class RateSchema(ResponseSchema):
    """The state of a key's rate limit. If keys that made it have one too, the tightest of them."""

    limit = fields.Integer(
        metadata={"example": 100, "description": "How many uses are allowed in a window."}
    )
    remaining = fields.Integer(metadata={"example": 99, "description": "How many uses are left."})
    reset_seconds = fields.Integer(
        metadata={
            "example": 60,
            "description": "Seconds until the window ends; if none are left, until the next use.",
        }
    )


class RemainingSchema(ResponseSchema):
    """The state of a key's quota."""

    remaining = fields.Integer(metadata={"example": 9_999, "description": "How much is left."})


class VerifiedSchema(ResponseSchema):
    """The decision: the code of the first check that failed, or `valid`.

    Describes the key too, if there is one; `checks` only if you ask for them.
    """

    sometimes = frozenset(
        {"key_id", "owner", "name", "scopes", "metadata", "expires_at"}
        | {"rate_limit", "quota", "checks"}
    )

    valid = fields.Boolean(
        metadata={"example": True, "description": "Whether the key may be used for this."}
    )
    code = EnumString(
        "VerifyCode",
        CODES,
        metadata={"example": "valid", "description": "`valid`, or the first check that failed."},
    )
    key_id = Id(metadata={"example": _ID, "description": "The key's id."})
    owner = fields.Nested(OwnerSchema(), metadata={"description": "The user whose key it is."})
    name = fields.String(metadata={"example": "deploys", "description": "The key's name."})
    scopes = fields.List(
        fields.String(),
        metadata={
            "example": ["reports:read"],
            "description": "The key's scopes that its owner's role allows now.",
        },
    )
    metadata = metadata()
    expires_at = Timestamp(
        allow_none=True,
        metadata={"example": None, "description": "When the key expires; null: never."},
    )
    rate_limit = fields.Nested(
        RateSchema(), metadata={"description": "The state of its rate limit, if it has one."}
    )
    quota = fields.Nested(
        RemainingSchema(), metadata={"description": "The state of its quota, if it has one."}
    )
    checks = fields.List(
        fields.Nested(CheckSchema()),
        metadata={"description": "Every check in order, if you asked to explain."},
    )
