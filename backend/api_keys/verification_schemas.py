"""What goes in and out of verifying a key."""

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
        "description": "Where the key was used from. A key with allowed_ips is not valid without.",
    }
    return Address(metadata=about)


class ExplainSchema(Schema):
    """What a key would be asked for."""

    scopes = scopes()
    ip = _ip()


class VerifySchema(ExplainSchema):
    """A key that was shown to a service, and what it is asked for."""

    key = api_key_text(required=True)
    cost = StrictInteger(
        validate=validate.Range(0, 1_000_000),
        metadata={"example": 1, "description": "0: only look, it is no use of the key."},
    )
    explain = StrictBoolean(
        metadata={"example": False, "description": "All checks; no use of the key."}
    )


class CheckSchema(ResponseSchema):
    """A check and its outcome."""

    code = EnumString("VerifyCode", CODES, metadata={"example": "expired"})
    passed = fields.Boolean(metadata={"example": True})


class OwnerSchema(ResponseSchema):
    """Whose a key is."""

    id = Id(metadata={"example": _ID})
    username = fields.String(metadata={"example": "alice"})
    role = role()
    kind = kind()


class RateSchema(ResponseSchema):
    """How a key's limit stands; of several, as for keys made with others, the one that counts."""

    limit = fields.Integer(metadata={"example": 100})
    remaining = fields.Integer(metadata={"example": 99})
    reset_seconds = fields.Integer(
        metadata={
            "example": 60,
            "description": "Until the window ends, or, if it is used up, until a use passes.",
        }
    )


class RemainingSchema(ResponseSchema):
    """How a key's quota stands."""

    remaining = fields.Integer(metadata={"example": 9_999})


class VerifiedSchema(ResponseSchema):
    """What was decided: the first check that failed, else `valid`.

    What the key is, unless there is none; `checks` only where they were asked for.
    """

    sometimes = frozenset(
        {"key_id", "owner", "name", "scopes", "metadata", "expires_at"}
        | {"rate_limit", "quota", "checks"}
    )

    valid = fields.Boolean(metadata={"example": True})
    code = EnumString("VerifyCode", CODES, metadata={"example": "valid"})
    key_id = Id(metadata={"example": _ID})
    owner = fields.Nested(OwnerSchema())
    name = fields.String(metadata={"example": "deploys"})
    scopes = fields.List(
        fields.String(),
        metadata={"example": ["reports:read"], "description": "What the owner's role allows now."},
    )
    metadata = metadata()
    expires_at = Timestamp(allow_none=True, metadata={"example": None})
    rate_limit = fields.Nested(RateSchema())
    quota = fields.Nested(RemainingSchema())
    checks = fields.List(fields.Nested(CheckSchema()))
