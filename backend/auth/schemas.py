"""Schemas of the auth routes."""

from marshmallow import fields, validate

from ..users.schemas import UserSchema, email, password, username
from ..web.fields import EnumString, Id, ResponseSchema, Schema, Timestamp, about

_SESSION_ID = "0192d3a4-7777-7d8e-9f01-23456789abcd"
_REFRESH_TOKEN = "btr_AZLTpFtsfY6fASNFZ4mrzQAAAAA.kFo2bS8u1n5mD3t0m9b6cXJv4yqYhT7wKpL2sQeRzWU"  # noqa: S105
MFA_TOKEN = "btm_AZLTpFtsfY6fASNFZ4mrzQAAAAAABj8xq2bQAA.kFo2bS8u1n5mD3t0m9b6cXJv4yqYhT7wKpL2sQeRzWU"  # noqa: S105
_PASSWORD_LINK = MFA_TOKEN.replace("btm", "btp")
_EMAIL_LINK = MFA_TOKEN.replace("btm", "bte")
_ACCESS_TOKEN = "eyJhbGciOiJIUzI1NiIsImtpZCI6IjhmMTRlNDVmIiwidHlwIjoiYXQrand0In0.e30.c2ln"  # noqa: S105


def token_field(description: str, example: str) -> fields.String:
    """Return the field for a token."""
    return fields.String(
        required=True, validate=validate.Length(1, 4096), metadata=about(description, example)
    )


class LoginSchema(Schema):
    """Sign in."""

    username = fields.String(
        required=True,
        validate=validate.Length(1, 254),
        metadata=about("The username, or the e-mail address.", "alice"),
    )
    password = password("The password.", required=True)


class RefreshSchema(Schema):
    """Exchange a refresh token."""

    refresh_token = token_field(
        "The refresh token from the last sign-in or refresh.", _REFRESH_TOKEN
    )


class TokensSchema(ResponseSchema):
    """The tokens of a session."""

    access_token = fields.String(
        metadata=about("Send it as `Authorization: Bearer <token>`.", _ACCESS_TOKEN)
    )
    refresh_token = fields.String(
        metadata=about("Exchange it for new tokens, once.", _REFRESH_TOKEN)
    )
    token_type = fields.String(metadata=about("Always `Bearer`.", "Bearer"))
    expires_in = fields.Integer(metadata=about("Seconds until the access token expires.", 600))
    user = fields.Nested(UserSchema(), metadata=about("The account."))


class AuthSchema(ResponseSchema):
    """The credential of a request: a session or an API key."""

    sometimes = frozenset({"session_id", "key_id"})

    method = EnumString(
        "AuthMethod",
        ("session", "api_key"),
        metadata=about("The kind of credential.", "session"),
    )
    session_id = Id(metadata=about("The session's id; only for a session.", _SESSION_ID))
    key_id = Id(metadata=about("The key's id; only for an API key."))
    scopes = fields.List(
        fields.String(),
        allow_none=True,
        metadata=about("The scopes that the key has now; null for a session.", None),
    )


class MeSchema(UserSchema):
    """The caller's account and credential."""

    auth = fields.Nested(AuthSchema(), metadata=about("The credential of this request."))


class SessionSchema(ResponseSchema):
    """A session."""

    id = Id(metadata=about("The session's id.", _SESSION_ID))
    created_at = Timestamp(metadata=about("When you signed in.", "2026-11-23T09:00:00Z"))
    last_used_at = Timestamp(
        metadata=about("When its tokens were last refreshed.", "2026-11-23T09:30:00Z")
    )
    ip = fields.String(
        allow_none=True, metadata=about("The address of the last refresh or sign-in.", "192.0.2.1")
    )
    user_agent = fields.String(
        allow_none=True, metadata=about("The user agent of that request.", "curl/8.11")
    )
    grace_used_at = Timestamp(
        allow_none=True,
        metadata=about(
            "When a replaced refresh token was last used from an address or user"
            " agent other than that of the refresh that replaced it. If it was not you, end the"
            " session.",
            None,
        ),
    )
    current = fields.Boolean(metadata=about("True for the calling session.", True))


class ChangeMeSchema(Schema):
    """Change your account; a new address is pending until you confirm it."""

    username = username()
    email = email()
    current_password = password("Your password.", required=True)


class ChangePasswordSchema(Schema):
    """Change your password."""

    current_password = password("Your current password.", required=True)
    new_password = password("The new password.", "purple elephants drink tea", required=True)


class ForgotSchema(Schema):
    """Request a link to set a password."""

    email = email(required=True)


class ResetSchema(Schema):
    """Set a password with a link."""

    token = token_field("The token from the link.", _PASSWORD_LINK)
    new_password = password("The new password.", "purple elephants drink tea", required=True)


class ConfirmEmailSchema(Schema):
    """Confirm a new address with a link."""

    token = token_field("The token from the link.", _EMAIL_LINK)
