"""/v1/auth/mfa: your second factor; /v1/users/{id}/mfa: other people's, for administrators."""

from typing import Any
from uuid import UUID

from ..auth.schemas import TokensSchema
from ..web.access import actor, admin, before_enrolment, public, session
from ..web.api import Blueprint
from . import service
from .schemas import (
    ConfirmSecondFactorSchema,
    LoginMfaSchema,
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
    description="The second factor: codes from an authenticator app (TOTP, RFC 6238)",
)


@blp.route("/auth/login/mfa", methods=["POST"])
@public
@blp.doc(operationId="auth_login_mfa")
@blp.arguments(LoginMfaSchema)
@blp.response(200, TokensSchema)
@blp.fails("invalid_credentials", "rate_limited")
def login(step: dict[str, str]) -> dict[str, Any]:
    """Complete a sign-in with a second-factor code

    Returns the tokens of a new session. An `mfa_token` works for one sign-in, for five minutes and
    at most five attempts. Each code works once.
    """
    return service.login(**step)


@blp.route("/auth/mfa")
@before_enrolment
@session
@blp.response(200, SecondFactorStateSchema)
def get_state() -> dict[str, Any]:
    """Get the state of your second factor

    Returns whether it is on and how many recovery codes are left.
    """
    return service.state(actor())


@blp.route("/auth/mfa", methods=["POST"])
@before_enrolment
@session
@blp.arguments(SetUpSecondFactorSchema)
@blp.response(201, SecondFactorSchema)
@blp.fails("wrong_password", "rate_limited", "conflict")
def start(body: dict[str, str]) -> dict[str, str]:
    """Start setting up a second factor

    Returns the secret for your authenticator app, which is never shown again. Confirm it with a
    code to switch the second factor on. Starting again replaces a secret that you have not
    confirmed.
    """
    return service.start(actor(), **body)


@blp.route("/auth/mfa/confirm", methods=["POST"])
@before_enrolment
@session
@blp.arguments(ConfirmSecondFactorSchema)
@blp.response(200, NewRecoveryCodesSchema)
@blp.fails("wrong_code", "rate_limited", "conflict")
def confirm(body: dict[str, str]) -> dict[str, list[str]]:
    """Switch your second factor on with a code from the app

    Returns ten recovery codes, which are never shown again. From now on, signing in requires a
    code.
    """
    return {"recovery_codes": service.confirm(actor(), **body)}


@blp.route("/auth/mfa/disable", methods=["POST"])
@before_enrolment
@session
@blp.arguments(ProveSecondFactorSchema)
@blp.response(204)
@blp.fails("wrong_password", "wrong_code", "rate_limited", "conflict")
def disable(proof: dict[str, str]) -> None:
    """Switch your second factor off

    This also deletes your recovery codes. You are notified by e-mail.
    """
    service.disable(actor(), **proof)


@blp.route("/auth/mfa/recovery-codes", methods=["POST"])
@before_enrolment
@session
@blp.arguments(ProveSecondFactorSchema)
@blp.response(200, NewRecoveryCodesSchema)
@blp.fails("wrong_password", "wrong_code", "rate_limited", "conflict")
def new_recovery_codes(proof: dict[str, str]) -> dict[str, list[str]]:
    """Replace your recovery codes

    Returns ten new recovery codes, which are never shown again. The earlier ones stop working.
    """
    return {"recovery_codes": service.new_recovery_codes(actor(), **proof)}


@blp.route("/users/<id:user_id>/mfa", methods=["DELETE"])
@admin("users:write")
@blp.response(204)
@blp.fails("session_required")
def clear(user_id: UUID) -> None:
    """Remove another user's second factor

    Use this if the user has lost their device; they are notified by e-mail. To switch your own
    second factor off, use `POST /v1/auth/mfa/disable`.
    """
    service.clear(actor(), user_id)
