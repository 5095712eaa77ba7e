"""What goes in and out of the auth routes."""

from marshmallow import fields, validate

from ..users.schemas import UserSchema, email, password, username
from ..web.api import EnumString, Id, ResponseSchema, Schema, Timestamp

_REFRESH_TOKEN = "btr_AZLTpFtsfY6fASNFZ4mrzQAAAAA.kFo2bS8u1n5mD3t0m9b6cXJv4yqYhT7wKpL2sQeRzWU"  # noqa: S105
_MFA_TOKEN = (
    "btm_AZLTpFtsfY6fASNFZ4mrzQAAAAAABj8xq2bQAA.kFo2bS8u1n5mD3t0m9b6cXJv4yqYhT7wKpL2sQeRzWU"  # noqa: S105
)
_PASSWORD_LINK = _MFA_TOKEN.replace("btm", "btp")
_EMAIL_LINK = _MFA_TOKEN.replace("btm", "bte")
_ACCESS_TOKEN = "eyJhbGciOiJIUzI1NiIsImtpZCI6IjhmMTRlNDVmIiwidHlwIjoiYXQrand0In0.e30.c2ln"  # noqa: S105


def _token(description: str, example: str) -> fields.String:
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
    password = password(required=True)


class LoginMfaSchema(Schema):
    """Sign in: the second step."""

    mfa_token = _token("What signing in answered with `mfa_required`.", _MFA_TOKEN)
    code = fields.String(
        required=True,
        validate=validate.Length(6, 40),
        metadata={"example": "123456", "description": "Of the app, or a recovery code."},
    )


class RefreshSchema(Schema):
    """Exchange a refresh token."""

    refresh_token = _token("Of the last sign-in or refresh.", _REFRESH_TOKEN)


class TokensSchema(ResponseSchema):
    """The tokens of a session."""

    access_token = fields.String(metadata={"example": _ACCESS_TOKEN})
    refresh_token = fields.String(metadata={"example": _REFRESH_TOKEN})
    token_type = fields.String(metadata={"example": "Bearer"})
    expires_in = fields.Integer(
        metadata={"example": 600, "description": "Seconds for which the access token is good."}
    )
    user = fields.Nested(UserSchema())


class AuthSchema(ResponseSchema):
    """The credential that a request was made with: a session, or a key."""

    sometimes = frozenset({"session_id", "key_id"})

    method = EnumString("AuthMethod", ("session", "api_key"), metadata={"example": "session"})
    session_id = Id(metadata={"example": "0192d3a4-7777-7d8e-9f01-23456789abcd"})
    key_id = Id()
    scopes = fields.List(
        fields.String(),
        allow_none=True,
        metadata={"example": None, "description": "What the key may do now; null for a session."},
    )


class MeSchema(UserSchema):
    """The caller's account, and the credential it was called with."""

    auth = fields.Nested(AuthSchema())


class SessionSchema(ResponseSchema):
    """A session."""

    id = Id(metadata={"example": "0192d3a4-7777-7d8e-9f01-23456789abcd"})
    created_at = Timestamp(metadata={"example": "2026-11-23T09:00:00Z"})
    last_used_at = Timestamp(
        metadata={"example": "2026-11-23T09:30:00Z", "description": "The last refresh."}
    )
    ip = fields.String(allow_none=True, metadata={"example": "192.0.2.1"})
    user_agent = fields.String(allow_none=True, metadata={"example": "curl/8.11"})
    grace_used_at = Timestamp(
        allow_none=True,
        metadata={
            "example": None,
            "description": "When an earlier refresh token was last used from another address or"
            " user agent than the refresh that replaced it. If that was not you, end the session.",
        },
    )
    current = fields.Boolean(
        metadata={"example": True, "description": "Whether it is the calling one."}
    )


class ChangeMeSchema(Schema):
    """Change one's own account; a new address waits until it is confirmed."""

    username = username()
    email = email()
    current_password = password(required=True)


class ChangePasswordSchema(Schema):
    """Change one's own password."""

    current_password = password(required=True)
    new_password = password("purple elephants drink tea", required=True)


class ForgotSchema(Schema):
    """Ask for a link to set a password."""

    email = email(required=True)


class ResetSchema(Schema):
    """Set a password by a link."""

    token = _token("The token in the link.", _PASSWORD_LINK)
    new_password = password("purple elephants drink tea", required=True)


class ConfirmEmailSchema(Schema):
    """Confirm a new address by a link."""

    token = _token("The token in the link.", _EMAIL_LINK)
