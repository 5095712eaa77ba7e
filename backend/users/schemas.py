"""Schemas of the user routes."""

from marshmallow import ValidationError, fields, validate

from ..core.email_addresses import MAX_EMAIL, fold_email
from ..core.identity import ROLES
from ..crypto.passwords import MAX_LENGTH, normalised
from ..web.api import (
    EnumString,
    Id,
    PageQuery,
    Pattern,
    QueryBoolean,
    ResponseSchema,
    Schema,
    StrictBoolean,
    Timestamp,
)

KINDS = ("person", "service")


class Email(fields.Email):
    """An e-mail address: ASCII local part, IDNA domain."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]
        self.validators = []  # _deserialize validates, instead of marshmallow

    def _deserialize(self, value: object, *args: object, **kwargs: object) -> str:
        if not isinstance(value, str):
            raise self.make_error("invalid")
        try:
            fold_email(value)
        except ValueError:
            raise self.make_error("invalid") from None
        return value


def username(**kwargs: object) -> fields.String:
    """The field for a username."""
    rule = Pattern("[A-Za-z0-9._-]{3,64}", "3 to 64 ASCII letters, digits, dots, _ and -.")
    about = {"example": "alice", "description": "The name to sign in with, in either case."}
    return fields.String(validate=rule, metadata=about, **kwargs)  # type: ignore[arg-type]


def password(
    description: str, example: str = "correct horse battery staple", **kwargs: object
) -> fields.String:
    """The field for a password. The password policy, not the schema, sets the minimum length."""
    return fields.String(
        validate=_password_length,
        metadata={
            "example": example,
            "format": "password",
            "minLength": 1,
            "description": description,
        },
        load_only=True,
        **kwargs,  # type: ignore[arg-type]
    )


def _password_length(text: str) -> None:
    # Composing takes quadratic time in a run of marks; it turns at most four characters into one.
    if len(text) > 4 * MAX_LENGTH or not 1 <= len(normalised(text)) <= MAX_LENGTH:
        raise ValidationError(f"1 to {MAX_LENGTH} characters.")


def email(**kwargs: object) -> Email:
    """The field for an e-mail address."""
    about = {
        "example": "alice@example.com",
        "maxLength": MAX_EMAIL,
        "description": "The e-mail address, with an ASCII part before the @.",
    }
    return Email(metadata=about, **kwargs)


def role() -> EnumString:
    """The field for a role."""
    about = {
        "example": "user",
        "description": "An `admin` can administer the service; a `user` cannot.",
    }
    return EnumString("Role", ROLES, metadata=about)


def kind() -> EnumString:
    """The field for what an account is for."""
    about = {
        "example": "person",
        "description": "A `person` signs in; a `service` account only uses API keys.",
    }
    return EnumString("Kind", KINDS, metadata=about)


class UserSchema(ResponseSchema):
    """An account."""

    id = Id(
        metadata={
            "example": "0192d3a4-5b6c-7d8e-9f01-23456789abcd",
            "description": "The user's id, which never changes.",
        }
    )
    username = fields.String(
        metadata={"example": "alice", "description": "The name to sign in with, in either case."}
    )
    email = fields.String(
        allow_none=True,
        metadata={
            "example": "alice@example.com",
            "description": "The e-mail address; a service account may have none.",
        },
    )
    pending_email = fields.String(
        allow_none=True,
        metadata={"example": None, "description": "A new address that has not been confirmed yet."},
    )
    role = role()
    kind = kind()
    is_active = fields.Boolean(
        metadata={"example": True, "description": "False if an administrator has disabled it."}
    )
    mfa_enabled = fields.Boolean(
        metadata={"example": False, "description": "Whether the second factor is on."}
    )
    created_at = Timestamp(
        metadata={"example": "2026-11-23T09:00:00Z", "description": "When it was created."}
    )
    updated_at = Timestamp(
        metadata={"example": "2026-11-23T09:00:00Z", "description": "When it last changed."}
    )
    last_login_at = Timestamp(
        allow_none=True,
        metadata={
            "example": "2026-11-23T09:30:00Z",
            "description": "When the user last signed in; null: never.",
        },
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
    is_active = StrictBoolean(
        metadata={"example": True, "description": "False disables the account."}
    )


class UserQuery(PageQuery):
    """Which accounts to list."""

    search = fields.String(
        validate=validate.Length(1, 254),
        metadata={"description": "Text to find in username or e-mail address, in either case."},
    )
    role = role()
    kind = kind()
    is_active = QueryBoolean(
        metadata={"description": "True: active accounts only; false: disabled ones only."}
    )
