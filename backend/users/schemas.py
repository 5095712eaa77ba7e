"""What goes in and out of the user routes."""

from marshmallow import ValidationError, fields, validate

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
from .service import MAX_EMAIL, fold_email

KINDS = ("person", "service")


class Email(fields.Email):
    """An e-mail address: ASCII local part, IDNA domain."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]
        self.validators = []  # ours, in place of marshmallow's own

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
    return fields.String(validate=rule, metadata={"example": "alice"}, **kwargs)  # type: ignore[arg-type]


def password(example: str = "correct horse battery staple", **kwargs: object) -> fields.String:
    """The field for a password; how long it must at least be is the policy's business."""
    return fields.String(
        validate=_password_length,
        metadata={"example": example, "format": "password", "minLength": 1},
        load_only=True,
        **kwargs,  # type: ignore[arg-type]
    )


def _password_length(text: str) -> None:
    # Composing is quadratic in the length of a run of marks, and makes four characters one at most.
    if len(text) > 4 * MAX_LENGTH or not 1 <= len(normalised(text)) <= MAX_LENGTH:
        raise ValidationError(f"1 to {MAX_LENGTH} characters.")


def email(**kwargs: object) -> Email:
    """The field for an e-mail address."""
    about = {"example": "alice@example.com", "maxLength": MAX_EMAIL}
    return Email(metadata=about, **kwargs)


def role() -> EnumString:
    """The field for a role."""
    return EnumString("Role", ROLES, metadata={"example": "user"})


def kind() -> EnumString:
    """The field for what an account is for."""
    return EnumString("Kind", KINDS, metadata={"example": "person"})


class UserSchema(ResponseSchema):
    """An account."""

    id = Id(metadata={"example": "0192d3a4-5b6c-7d8e-9f01-23456789abcd"})
    username = fields.String(metadata={"example": "alice"})
    email = fields.String(allow_none=True, metadata={"example": "alice@example.com"})
    pending_email = fields.String(
        allow_none=True,
        metadata={"example": None, "description": "A new address that is not confirmed yet."},
    )
    role = role()
    kind = kind()
    is_active = fields.Boolean(metadata={"example": True})
    mfa_enabled = fields.Boolean(metadata={"example": False})
    created_at = Timestamp(metadata={"example": "2026-11-23T09:00:00Z"})
    updated_at = Timestamp(metadata={"example": "2026-11-23T09:00:00Z"})
    last_login_at = Timestamp(allow_none=True, metadata={"example": "2026-11-23T09:30:00Z"})


class RegisterSchema(Schema):
    """Create an account."""

    username = username(required=True)
    email = email(allow_none=True)
    password = password()
    role = role()
    kind = kind()


class ChangeUserSchema(Schema):
    """Change an account."""

    username = username()
    email = email(allow_none=True)
    role = role()
    is_active = StrictBoolean(metadata={"example": True})


class UserQuery(PageQuery):
    """Which accounts to list."""

    search = fields.String(
        validate=validate.Length(1, 254),
        metadata={"description": "Literally, in username and e-mail, in either case."},
    )
    role = role()
    kind = kind()
    is_active = QueryBoolean()
