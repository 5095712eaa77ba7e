"""Schemas of token introspection and revocation. Skip it on a first reading."""

from marshmallow import EXCLUDE, fields

from ..api_keys.key_fields import KEY, KEY_ID
from ..users.schemas import USER_ID, role
from ..web.fields import EnumString, Id, ResponseSchema, Schema, about

TOKEN_TYPES = ("access_token", "refresh_token", "api_key")


class PresentedTokenSchema(Schema):
    """A token to introspect or revoke. Unknown parameters are ignored (RFC 6749 section 3.2)."""

    class Meta:
        unknown = EXCLUDE

    token = fields.String(
        required=True, metadata=about("An access token, refresh token or API key.", KEY)
    )
    token_type_hint = fields.String(
        metadata=about("Ignored: the token itself shows its type.", "api_key")
    )
    client_id = fields.String(metadata=about("Ignored; OAuth clients send it."))
    client_secret = fields.String(metadata=about("An API key, to introspect as an OAuth client."))


class IntrospectionSchema(ResponseSchema):
    """A description of a token. If it is not active, `active` is the only member."""

    sometimes = frozenset(
        {"token_type", "sub", "username", "role", "scope", "client_id", "sid"}
        | {"iat", "exp", "iss", "aud", "jti"}
    )

    active = fields.Boolean(metadata=about("Whether the token would be accepted now.", True))
    token_type = EnumString(
        "TokenType", TOKEN_TYPES, metadata=about("What kind of token it is.", "api_key")
    )
    sub = Id(metadata=about("The user's id.", USER_ID))
    username = fields.String(metadata=about("The user's name.", "alice"))
    role = role()
    scope = fields.String(
        metadata=about("API keys only: the scopes, separated by spaces.", "reports:read")
    )
    client_id = Id(metadata=about("API keys only: the key's id.", KEY_ID))
    sid = Id(metadata=about("Access and refresh tokens only: the session's id."))
    iat = fields.Integer(metadata=about("When it was issued, in Unix seconds.", 1795424400))
    exp = fields.Integer(metadata=about("When it expires, in Unix seconds.", 1803200400))
    iss = fields.String(metadata=about("The issuer.", "https://accounts.example.com"))
    aud = fields.String(metadata=about("Access tokens only: the audience."))
    jti = fields.String(metadata=about("Access tokens only: the token's id."))
