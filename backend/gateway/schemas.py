"""What goes in and out of verification."""

from marshmallow import fields, validate

from ..api_keys.schemas import Address, api_key_text, metadata, scopes
from ..auth.decide import CODES
from ..users.schemas import KINDS, ROLES
from ..web.api import Flag, Id, Integer, Schema, Time

_ID = "0192d3a4-8888-7d8e-9f01-23456789abcd"


def _ip() -> Address:
    about = {"example": "192.0.2.1", "description": "From where the key was used."}
    return Address(metadata=about)


class ExplainSchema(Schema):
    """What a key would be asked for."""

    scopes = scopes()
    ip = _ip()


class VerifySchema(ExplainSchema):
    """A key that was shown to a service, and what it is asked for."""

    key = api_key_text(required=True)
    cost = Integer(
        validate=validate.Range(0, 1_000_000),
        metadata={"example": 1, "description": "0: only look, it is no use of the key."},
    )
    explain = Flag(metadata={"example": False, "description": "All checks; no use of the key."})


class CheckSchema(Schema):
    """A check and its outcome."""

    code = fields.String(validate=validate.OneOf(CODES), metadata={"example": "expired"})
    passed = fields.Boolean(metadata={"example": True})


class OwnerSchema(Schema):
    """Whose a key is."""

    id = Id(metadata={"example": _ID})
    username = fields.String(metadata={"example": "alice"})
    role = fields.String(validate=validate.OneOf(ROLES), metadata={"example": "user"})
    kind = fields.String(validate=validate.OneOf(KINDS), metadata={"example": "person"})


class RateSchema(Schema):
    """How a key's limit stands."""

    limit = fields.Integer(metadata={"example": 100})
    remaining = fields.Integer(metadata={"example": 99})
    reset_seconds = fields.Integer(
        metadata={"example": 60, "description": "Until the window ends, or a use passes again."}
    )


class RemainingSchema(Schema):
    """How a key's quota stands."""

    remaining = fields.Integer(metadata={"example": 9_999})


class VerifiedSchema(Schema):
    """What was decided: the first check that failed, else `valid`."""

    valid = fields.Boolean(metadata={"example": True})
    code = fields.String(validate=validate.OneOf(CODES), metadata={"example": "valid"})
    key_id = Id(metadata={"example": _ID})
    owner = fields.Nested(OwnerSchema())
    name = fields.String(metadata={"example": "deploys"})
    scopes = fields.List(
        fields.String(),
        metadata={"example": ["reports:read"], "description": "What the owner's role allows now."},
    )
    metadata = metadata()
    expires_at = Time(allow_none=True, metadata={"example": None})
    rate_limit = fields.Nested(RateSchema())
    quota = fields.Nested(RemainingSchema())
    checks = fields.List(fields.Nested(CheckSchema()))
