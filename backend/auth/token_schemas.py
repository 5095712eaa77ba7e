"""Schemas of token introspection and revocation."""

from marshmallow import EXCLUDE, fields

from ..api_keys.schemas import KEY
from ..users.schemas import role
from ..web.api import EnumString, Id, ResponseSchema, Schema

_ID = "0192d3a4-8888-7d8e-9f01-23456789abcd"
_USER = "0192d3a4-5b6c-7d8e-9f01-23456789abcd"

TOKEN_TYPES = ("access_token", "refresh_token", "api_key")


class PresentedTokenSchema(Schema):
    """A token to introspect or revoke. Unknown parameters are ignored (RFC 6749 section 3.2)."""

    class Meta:
        unknown = EXCLUDE

    token = fields.String(
        required=True,
        metadata={"example": KEY, "description": "An access token, refresh token or API key."},
    )
    token_type_hint = fields.String(
        metadata={"example": "api_key", "description": "Ignored: the token itself shows its type."}
    )
    client_id = fields.String(
        metadata={"description": "Any text, as OAuth clients send it; it is ignored."}
    )
    client_secret = fields.String(
        metadata={"description": "An API key, to introspect as an OAuth client."}
    )


class IntrospectionSchema(ResponseSchema):
    """What a token is. If it is not active, `active` is the only member."""

    sometimes = frozenset(
        {"token_type", "sub", "username", "role", "scope", "client_id", "sid"}
        | {"iat", "exp", "iss", "aud", "jti"}
    )

    active = fields.Boolean(
        metadata={"example": True, "description": "Whether the token would be accepted now."}
    )
    token_type = EnumString(
        "TokenType",
        TOKEN_TYPES,
        metadata={"example": "api_key", "description": "What kind of token it is."},
    )
    sub = Id(metadata={"example": _USER, "description": "The user's id."})
    username = fields.String(metadata={"example": "alice", "description": "The user's name."})
    role = role()
    scope = fields.String(
        metadata={
            "example": "reports:read",
            "description": "API keys only: the scopes, separated by spaces.",
        }
    )
    client_id = Id(metadata={"example": _ID, "description": "API keys only: the key's id."})
    sid = Id(metadata={"description": "Access and refresh tokens only: the session's id."})
    iat = fields.Integer(
        metadata={"example": 1795424400, "description": "When it was made, in Unix seconds."}
    )
    exp = fields.Integer(
        metadata={"example": 1803200400, "description": "When it expires, in Unix seconds."}
    )
    iss = fields.String(
        metadata={"example": "https://accounts.example.com", "description": "The issuer."}
    )
    aud = fields.String(metadata={"description": "Access tokens only: the audience."})
    jti = fields.String(metadata={"description": "Access tokens only: the token's id."})
