"""What goes in and out of the routes of the second factor."""

import pyotp
from marshmallow import fields, validate

from ..users.schemas import password
from ..web.api import ResponseSchema, Schema

_SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"  # noqa: S105
_URI = pyotp.TOTP(_SECRET).provisioning_uri(name="alice", issuer_name="accounts.example.org")
_SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 49 49"><path d="M4 4.5h7"/></svg>'


def code(description: str) -> fields.String:
    """The field for a code."""
    return fields.String(
        required=True,
        validate=validate.Length(6, 40),
        metadata={"example": "123456", "description": description},
        load_only=True,
    )


class SecondFactorStateSchema(ResponseSchema):
    """Whether there is a second factor."""

    enabled = fields.Boolean(metadata={"example": True})
    recovery_codes_left = fields.Integer(metadata={"example": 10})


class SetUpSecondFactorSchema(Schema):
    """Set up a second factor."""

    current_password = password(required=True)


class SecondFactorSchema(ResponseSchema):
    """What an authenticator app needs, three times the same. Shown once."""

    secret = fields.String(metadata={"example": _SECRET, "description": "Base32, for typing in."})
    otpauth_uri = fields.String(
        metadata={"example": _URI, "description": "A link that opens the app on the same device."}
    )
    qr_svg = fields.String(
        metadata={"example": _SVG, "description": "An SVG element: the link as a QR code to scan."}
    )


class ConfirmSecondFactorSchema(Schema):
    """Confirm a second factor."""

    code = code("What the authenticator app shows.")


class ProveSecondFactorSchema(Schema):
    """Prove who is there, by both factors."""

    current_password = password(required=True)
    code = code("What the authenticator app shows, or a recovery code.")


class NewRecoveryCodesSchema(ResponseSchema):
    """Recovery codes. Shown once."""

    recovery_codes = fields.List(
        fields.String(),
        metadata={
            "example": ["MFRGGZD-FMZTWQ2-LKNNWG2-3TPOI"],
            "description": "Each is good once, in place of the authenticator app.",
        },
    )
