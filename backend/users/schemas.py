"""Schemas of the user routes."""

from typing import Any

from marshmallow import ValidationError, fields, validate

from ..core.email_addresses import MAX_EMAIL, fold_email
from ..core.identity import ROLES
from ..crypto.passwords import MAX_LENGTH, normalised
from ..web.api import PageQuery
from ..web.fields import (
    EnumString,
    Id,
    Pattern,
    QueryBoolean,
    ResponseSchema,
    Schema,
    StrictBoolean,
    Timestamp,
    about,
)

USER_ID = "0192d3a4-5b6c-7d8e-9f01-23456789abcd"
KINDS = ("person", "service")


class Email(fields.Email):
    """An e-mail address: ASCII local part, IDNA domain."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.validators = []  # _deserialize validates, instead of marshmallow

    def _deserialize(self, value: object, *args: object, **kwargs: object) -> str:
        if not isinstance(value, str):
            raise self.make_error("invalid")
        try:
            fold_email(value)
        except ValueError:
            raise self.make_error("invalid") from None
        return value


def username(**kwargs: Any) -> fields.String:
    """Return the field for a username."""
    rule = Pattern("[A-Za-z0-9._-]{3,64}", "3 to 64 ASCII letters, digits, dots, _ and -.")
    shown = about("The name to sign in with, in upper or lower case.", "alice")
    return fields.String(validate=rule, metadata=shown, **kwargs)


def password(
    description: str, example: str = "correct horse battery staple", **kwargs: Any
) -> fields.String:
    """Return the field for a password. The password policy sets the minimum length."""
    return fields.String(
        validate=_password_length,
        metadata=about(description, example, format="password", minLength=1),
        load_only=True,
        **kwargs,
    )


def _password_length(text: str) -> None:
    # Composing takes quadratic time in a run of marks; it turns at most four characters into one.
    if len(text) > 4 * MAX_LENGTH or not 1 <= len(normalised(text)) <= MAX_LENGTH:
        raise ValidationError(f"1 to {MAX_LENGTH} characters.")


def email(**kwargs: Any) -> Email:
    """Return the field for an e-mail address."""
    description = "The e-mail address, with an ASCII part before the @."
    shown = about(description, "alice@example.com", maxLength=MAX_EMAIL)
    return Email(metadata=shown, **kwargs)


def role() -> EnumString:
    """Return the field for a role."""
    shown = about("An `admin` can administer the service; a `user` cannot.", "user")
    return EnumString("Role", ROLES, metadata=shown)


def kind() -> EnumString:
    """Return the field for what an account is for."""
    shown = about("A `person` signs in; a `service` account only uses API keys.", "person")
    return EnumString("Kind", KINDS, metadata=shown)


class UserSchema(ResponseSchema):
    """An account."""

    id = Id(metadata=about("The user's id, which never changes.", USER_ID))
    username = fields.String(
        metadata=about("The name to sign in with, in upper or lower case.", "alice")
    )
    email = fields.String(
        allow_none=True,
        metadata=about("The e-mail address; a service account may have none.", "alice@example.com"),
    )
    pending_email = fields.String(
        allow_none=True, metadata=about("A new address that has not been confirmed yet.", None)
    )
    role = role()
    kind = kind()
    is_active = fields.Boolean(metadata=about("False if an administrator has disabled it.", True))
    mfa_enabled = fields.Boolean(metadata=about("Whether the second factor is on.", False))
    created_at = Timestamp(metadata=about("When it was created.", "2026-11-23T09:00:00Z"))
    updated_at = Timestamp(metadata=about("When it last changed.", "2026-11-23T09:00:00Z"))
    last_login_at = Timestamp(
        allow_none=True,
        metadata=about("When the user last signed in; null: never.", "2026-11-23T09:30:00Z"),
    )


class RegisterSchema(Schema):
    """Create an account."""

    username = username(required=True)
    email = email(allow_none=True)
    password = password("Without it, a person is mailed a link to choose one.")
    role = role()
    kind = kind()


class ChangeUserSchema(Schema):
    """Change an account."""

    username = username()
    email = email(allow_none=True)
    role = role()
    is_active = StrictBoolean(metadata=about("False disables the account.", True))


class UserQuery(PageQuery):
    """Which accounts to list."""

    search = fields.String(
        validate=validate.Length(1, 254),
        metadata=about("Text to find in the username or e-mail address, ignoring case."),
    )
    role = role()
    kind = kind()
    is_active = QueryBoolean(
        metadata=about("True: active accounts only; false: disabled ones only.")
    )
