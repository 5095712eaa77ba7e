"""Schemas of the auth routes."""

from marshmallow import fields, validate

from ..users.schemas import UserSchema, email, password, username
from ..web.api import EnumString, Id, ResponseSchema, Schema, Timestamp

_REFRESH_TOKEN = "btr_AZLTpFtsfY6fASNFZ4mrzQAAAAA.kFo2bS8u1n5mD3t0m9b6cXJv4yqYhT7wKpL2sQeRzWU"  # noqa: S105
MFA_TOKEN = "btm_AZLTpFtsfY6fASNFZ4mrzQAAAAAABj8xq2bQAA.kFo2bS8u1n5mD3t0m9b6cXJv4yqYhT7wKpL2sQeRzWU"  # noqa: S105
_PASSWORD_LINK = MFA_TOKEN.replace("btm", "btp")
_EMAIL_LINK = MFA_TOKEN.replace("btm", "bte")
_ACCESS_TOKEN = "eyJhbGciOiJIUzI1NiIsImtpZCI6IjhmMTRlNDVmIiwidHlwIjoiYXQrand0In0.e30.c2ln"  # noqa: S105


def token_field(description: str, example: str) -> fields.String:
    """The field for a token."""
    return fields.String(
        required=True,
        validate=validate.Length(1, 4096),
        metadata={"example": example, "description": description},
    )


class LoginSchema(Schema):
    """Sign in."""

    username = fields.String(
        required=True,
        validate=validate.Length(1, 254),
        metadata={"example": "alice", "description": "The username, or the e-mail address."},
    )
    password = password("The password.", required=True)


class RefreshSchema(Schema):
    """Exchange a refresh token."""

    refresh_token = token_field("The one from the last sign-in or refresh.", _REFRESH_TOKEN)


class TokensSchema(ResponseSchema):
    """The tokens of a session."""

    access_token = fields.String(
        metadata={
            "example": _ACCESS_TOKEN,
            "description": "Send it as `Authorization: Bearer <token>`.",
        }
    )
    refresh_token = fields.String(
        metadata={"example": _REFRESH_TOKEN, "description": "Exchange it for new tokens, once."}
    )
    token_type = fields.String(metadata={"example": "Bearer", "description": "Always `Bearer`."})
    expires_in = fields.Integer(
        metadata={"example": 600, "description": "Seconds until the access token expires."}
    )
    user = fields.Nested(UserSchema(), metadata={"description": "The account."})


class AuthSchema(ResponseSchema):
    """The credential of a request: a session or an API key."""

    sometimes = frozenset({"session_id", "key_id"})

    method = EnumString(
        "AuthMethod",
        ("session", "api_key"),
        metadata={"example": "session", "description": "The kind of the credential."},
    )
    session_id = Id(
        metadata={
            "example": "0192d3a4-7777-7d8e-9f01-23456789abcd",
            "description": "The session's id; only for a session.",
        }
    )
    key_id = Id(metadata={"description": "The key's id; only for an API key."})
    scopes = fields.List(
        fields.String(),
        allow_none=True,
        metadata={"example": None, "description": "What the key may do now; null for a session."},
    )


class MeSchema(UserSchema):
    """The caller's account and credential."""

    auth = fields.Nested(AuthSchema(), metadata={"description": "The credential of this request."})


class SessionSchema(ResponseSchema):
    """A session."""

    id = Id(
        metadata={
            "example": "0192d3a4-7777-7d8e-9f01-23456789abcd",
            "description": "The session's id.",
        }
    )
    created_at = Timestamp(
        metadata={"example": "2026-11-23T09:00:00Z", "description": "When you signed in."}
    )
    last_used_at = Timestamp(
        metadata={
            "example": "2026-11-23T09:30:00Z",
            "description": "When its tokens were last refreshed.",
        }
    )
    ip = fields.String(
        allow_none=True,
        metadata={
            "example": "192.0.2.1",
            "description": "The address of the last refresh or sign-in.",
        },
    )
    user_agent = fields.String(
        allow_none=True,
        metadata={"example": "curl/8.11", "description": "The user agent of that request."},
    )
    grace_used_at = Timestamp(
        allow_none=True,
        metadata={
            "example": None,
            "description": "When a replaced refresh token was last used from an address or user"
            " agent other than that of the refresh that replaced it. If it was not you, end the"
            " session.",
        },
    )
    current = fields.Boolean(
        metadata={"example": True, "description": "True for the calling session."}
    )


class ChangeMeSchema(Schema):
    """Change your account; a new address is pending until you confirm it."""

    username = username()
    email = email()
    current_password = password("Your password.", required=True)


class ChangePasswordSchema(Schema):
    """Change your password."""

    current_password = password("Your password so far.", required=True)
    new_password = password(
        "The password to use from now on.", "purple elephants drink tea", required=True
    )


class ForgotSchema(Schema):
    """Request a link to set a password."""

    email = email(required=True)


class ResetSchema(Schema):
    """Set a password with a link."""

    token = token_field("The token from the link.", _PASSWORD_LINK)
    new_password = password(
        "The password to use from now on.", "purple elephants drink tea", required=True
    )


class ConfirmEmailSchema(Schema):
    """Confirm a new address with a link."""

    token = token_field("The token from the link.", _EMAIL_LINK)
