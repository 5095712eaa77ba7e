"""What goes in and out of introspection and revocation."""

from marshmallow import EXCLUDE, fields

from ..api_keys.schemas import KEY
from ..users.schemas import role
from ..web.api import EnumString, Id, ResponseSchema, Schema

_ID = "0192d3a4-8888-7d8e-9f01-23456789abcd"
_USER = "0192d3a4-5b6c-7d8e-9f01-23456789abcd"

TOKEN_TYPES = ("access_token", "refresh_token", "api_key")


class PresentedTokenSchema(Schema):
    """A token that one holds, or was shown. Other parameters are ignored (RFC 6749 section 3.2)."""

    class Meta:
        unknown = EXCLUDE

    token = fields.String(
        required=True,
        metadata={"example": KEY, "description": "An access token, refresh token or API key."},
    )
    token_type_hint = fields.String(
        metadata={"example": "api_key", "description": "Not needed: a token says its kind."}
    )
    client_id = fields.String(metadata={"description": "Any text: what OAuth clients send."})
    client_secret = fields.String(
        metadata={"description": "To introspect as an OAuth client: an API key."}
    )


class IntrospectionSchema(ResponseSchema):
    """What a token is. Only `active` is told of one that is not active."""

    sometimes = frozenset(
        {"token_type", "sub", "username", "role", "scope", "client_id", "sid"}
        | {"iat", "exp", "iss", "aud", "jti"}
    )

    active = fields.Boolean(metadata={"example": True})
    token_type = EnumString("TokenType", TOKEN_TYPES, metadata={"example": "api_key"})
    sub = Id(metadata={"example": _USER, "description": "The user's id."})
    username = fields.String(metadata={"example": "alice"})
    role = role()
    scope = fields.String(
        metadata={"example": "reports:read", "description": "Of a key: what it may do, by spaces."}
    )
    client_id = Id(metadata={"example": _ID, "description": "The key's id."})
    sid = Id(metadata={"description": "The session's id."})
    iat = fields.Integer(metadata={"example": 1795424400, "description": "Made, in Unix seconds."})
    exp = fields.Integer(metadata={"example": 1803200400, "description": "Ends, in Unix seconds."})
    iss = fields.String(metadata={"example": "https://accounts.example.com"})
    aud = fields.String(metadata={"description": "Of an access token."})
    jti = fields.String(metadata={"description": "Of an access token."})
