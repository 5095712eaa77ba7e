"""/v1/auth/mfa: one's own second factor; /v1/users/{id}/mfa: that of others, for administrators."""

from typing import Any
from uuid import UUID

from ..web.access import actor, admin, before_enrolment, session
from ..web.api import Blueprint
from . import service
from .schemas import (
    ConfirmSecondFactorSchema,
    NewRecoveryCodesSchema,
    ProveSecondFactorSchema,
    SecondFactorSchema,
    SecondFactorStateSchema,
    SetUpSecondFactorSchema,
)

blp = Blueprint(
    "mfa",
    __name__,
    url_prefix="",
    description="The second factor: codes of an authenticator app (TOTP, RFC 6238)",
)


@blp.route("/auth/mfa")
@before_enrolment
@session
@blp.response(200, SecondFactorStateSchema)
def get_state() -> dict[str, Any]:
    """Whether one has a second factor, and how many recovery codes are left"""
    return service.state(actor())


@blp.route("/auth/mfa", methods=["POST"])
@before_enrolment
@session
@blp.arguments(SetUpSecondFactorSchema)
@blp.response(201, SecondFactorSchema)
@blp.fails("wrong_password", "rate_limited", "conflict")
def start(body: dict[str, str]) -> dict[str, str]:
    """Begin to set up a second factor: what the authenticator app needs; confirm it with a code"""
    return service.start(actor(), **body)


@blp.route("/auth/mfa/confirm", methods=["POST"])
@before_enrolment
@session
@blp.arguments(ConfirmSecondFactorSchema)
@blp.response(200, NewRecoveryCodesSchema)
@blp.fails("wrong_code", "rate_limited", "conflict")
def confirm(body: dict[str, str]) -> dict[str, list[str]]:
    """Switch the second factor on with a code of the app; the recovery codes are shown this once"""
    return {"recovery_codes": service.confirm(actor(), **body)}


@blp.route("/auth/mfa/disable", methods=["POST"])
@before_enrolment
@session
@blp.arguments(ProveSecondFactorSchema)
@blp.response(204)
@blp.fails("wrong_password", "wrong_code", "rate_limited", "conflict")
def disable(proof: dict[str, str]) -> None:
    """Switch the second factor off"""
    service.disable(actor(), **proof)


@blp.route("/auth/mfa/recovery-codes", methods=["POST"])
@before_enrolment
@session
@blp.arguments(ProveSecondFactorSchema)
@blp.response(200, NewRecoveryCodesSchema)
@blp.fails("wrong_password", "wrong_code", "rate_limited", "conflict")
def new_recovery_codes(proof: dict[str, str]) -> dict[str, list[str]]:
    """Get ten new recovery codes, which void the earlier ones"""
    return {"recovery_codes": service.new_recovery_codes(actor(), **proof)}


@blp.route("/users/<id:user_id>/mfa", methods=["DELETE"])
@admin("users:write")
@blp.response(204)
@blp.fails("session_required")
def clear(user_id: UUID) -> None:
    """Remove the second factor of another user, who has lost it

    To disable your own, use `POST /v1/auth/mfa/disable`.
    """
    service.clear(actor(), user_id)
