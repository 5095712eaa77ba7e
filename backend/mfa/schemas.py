"""Schemas of the second-factor routes."""

import pyotp
from marshmallow import fields, validate

from ..auth.schemas import MFA_TOKEN, token_field
from ..users.schemas import password
from ..web.fields import ResponseSchema, Schema, about

_SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"  # noqa: S105
_URI = pyotp.TOTP(_SECRET).provisioning_uri(name="alice", issuer_name="accounts.example.org")
_SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 49 49"><path d="M4 4.5h7"/></svg>'


def code(description: str) -> fields.String:
    """Return the field for a code."""
    return fields.String(
        required=True,
        validate=validate.Length(6, 40),
        metadata=about(description, "123456"),
        load_only=True,
    )


class LoginMfaSchema(Schema):
    """Complete a sign-in with a second factor."""

    mfa_token = token_field("The `mfa_token` from the answer `mfa_required`.", MFA_TOKEN)
    code = code("The code that the app shows, or a recovery code.")


class SecondFactorStateSchema(ResponseSchema):
    """Whether the user has a second factor."""

    enabled = fields.Boolean(metadata=about("Whether signing in requires a code.", True))
    recovery_codes_left = fields.Integer(metadata=about("How many recovery codes are left.", 10))


class SetUpSecondFactorSchema(Schema):
    """Set up a second factor."""

    current_password = password("Your password.", required=True)


class SecondFactorSchema(ResponseSchema):
    """The secret for an authenticator app, in three forms. Shown once."""

    secret = fields.String(metadata=about("The secret in Base32, to be typed in.", _SECRET))
    otpauth_uri = fields.String(metadata=about("A link that opens the app on this device.", _URI))
    qr_svg = fields.String(metadata=about("The link as a QR code to scan: an SVG element.", _SVG))


class ConfirmSecondFactorSchema(Schema):
    """Confirm a second factor."""

    code = code("The code that the authenticator app shows.")


class ProveSecondFactorSchema(Schema):
    """Prove who you are with both factors."""

    current_password = password("Your password.", required=True)
    code = code("The code that the authenticator app shows, or a recovery code.")


class NewRecoveryCodesSchema(ResponseSchema):
    """Recovery codes. Shown once."""

    recovery_codes = fields.List(
        fields.String(),
        metadata=about(
            "Each works once instead of a code from the app.", ["MFRGGZD-FMZTWQ2-LKNNWG2-3TPOI"]
        ),
    )
