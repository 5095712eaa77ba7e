"""The second factor: setting it up, checking codes, removing it.

One-time codes follow RFC 6238 as all authenticator apps implement it: SHA-1, six digits, 30
seconds. Users who lose the app have ten recovery codes. Wrong codes count like wrong passwords.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pyotp

from .. import services
from ..audit import service as audit
from ..auth import sessions
from ..core import clock, context
from ..core.errors import Conflict, Failure, Forbidden, InvalidCredentials, InvalidToken
from ..core.identity import Identity
from ..core.settings_parsers import Limit
from ..crypto.keyring import SECOND_STEP
from ..db.database import atomic, current, lock
from ..mail import mailer
from ..throttling import limits
from ..throttling import service as throttling
from ..users import permissions
from ..users import service as users
from ..users.models import User
from . import codes
from .models import RecoveryCode, SecondFactor

SECOND_STEP_FOR = timedelta(minutes=5)
SECOND_STEP_TRIES = Limit(5, 300)


def require_code(user: User) -> None:
    """Raise Failure `mfa_required`, with a token for `login`, if the user has a second factor."""
    if user.mfa_enabled:
        keyring = services.current().keyring
        token = keyring.sign_for(SECOND_STEP, user.id, user.session_epoch, SECOND_STEP_FOR)
        raise Failure(
            "mfa_required", "A second-factor code is required.", members={"mfa_token": token}
        )


def require_enrolment(user: Any) -> None:
    """Raise Forbidden for a user without a second factor whose role requires one."""
    if user.role in context.settings().mfa_required_roles and not user.mfa_enabled:
        raise Forbidden("mfa_enrolment_required", "Set up a second factor first.")


def login(mfa_token: str, code: str) -> dict[str, Any]:
    """Return the tokens of a new session for the user of `mfa_token`, if the code is theirs.

    Raises InvalidCredentials for a wrong code, and for a token that is used, too old, or has been
    tried with five wrong codes.
    """
    user, step = _user_of(mfa_token), f"second step {mfa_token}"
    with throttling.attempt(user, "login.mfa", code=True):
        if not limits.allow(step, SECOND_STEP_TRIES) or not codes.check(user, code):
            raise InvalidCredentials
    limits.use_up(step, SECOND_STEP_TRIES)  # each token works once
    return sessions.open_session(user, "login.mfa")


def _user_of(mfa_token: str) -> User:
    """Return the user who got this token for their password, unless it has changed since."""
    try:
        user_id, epoch = services.current().keyring.read_for(SECOND_STEP, mfa_token)
    except InvalidToken:
        raise InvalidCredentials from None
    user: User | None = User.get_or_none(
        (User.id == user_id) & (User.session_epoch == epoch) & User.is_active & User.mfa_enabled
    )
    if user is None:
        raise InvalidCredentials
    return user


def state(actor: Identity) -> dict[str, Any]:
    """Return whether the actor has a second factor, and how many recovery codes are left."""
    left = RecoveryCode.select().where(RecoveryCode.user == actor.user_id).count()
    return {"enabled": actor.user.mfa_enabled, "recovery_codes_left": left}


def start(actor: Identity, current_password: str) -> dict[str, str]:
    """Create a secret for the actor's authenticator app: in base32, as a URI, as a QR code in SVG.

    It takes effect once `confirm` gets one of its codes, and replaces an earlier unconfirmed one.
    Raises Forbidden for a wrong password, Conflict if the actor already has a second factor.
    """
    user = throttling.require_password(actor, current_password, "mfa.enable")
    secret = pyotp.random_base32()
    with current.atomic():
        _lock_user(user.id, enabled=False)
        SecondFactor.delete().where(SecondFactor.user == user).execute()
        SecondFactor.create(user=user, **codes.encrypted(secret))
    issuer = context.settings().service_name
    uri = pyotp.TOTP(secret).provisioning_uri(name=user.username, issuer_name=issuer)
    return {"secret": secret, "otpauth_uri": uri, "qr_svg": codes.qr_svg(uri)}


def confirm(actor: Identity, code: str) -> list[str]:
    """Activate the secret from `start` with one of its codes; return new recovery codes.

    Raises Forbidden for a wrong code, Conflict if there is nothing to confirm.
    """
    user = users.get(actor, actor.user_id)
    factor = SecondFactor.get_or_none(SecondFactor.user == user)
    if factor is None or user.mfa_enabled:
        raise Conflict("conflict", "There is no second factor to confirm.")
    with throttling.attempt(user, "mfa.enable", actor, code=True):
        if not codes.use_one_time_code(factor, code):
            raise throttling.wrong_code()
    with current.atomic():
        _lock_user(user.id, enabled=False)
        same = SecondFactor.id == factor.id
        if not SecondFactor.update(confirmed_at=clock.now()).where(same).execute():
            raise Conflict(
                "conflict",
                "The second factor was set up again in another request; confirm that one.",
            )
        _set_enabled(user.id, enabled=True)
        audit.record(actor, "mfa.enable", target=("user", user.id))
        mailer.send_to(user, "mfa_enabled")
        return codes.replace_recovery_codes(user.id)


def disable(actor: Identity, current_password: str, code: str) -> None:
    """Remove the actor's second factor.

    Raises Forbidden for a wrong password or code, Conflict if there is none.
    """
    user = _prove(actor, current_password, code, "mfa.disable")
    with current.atomic():
        _lock_user(user.id, enabled=True)
        _remove(user.id)
        audit.record(actor, "mfa.disable", target=("user", user.id))
        mailer.send_to(user, "mfa_disabled", by_admin=False)


def new_recovery_codes(actor: Identity, current_password: str, code: str) -> list[str]:
    """Return ten new recovery codes, which replace all earlier ones. Refuses as `disable` does."""
    user = _prove(actor, current_password, code, "mfa.enable")
    with current.atomic():
        _lock_user(user.id, enabled=True)
        audit.record(actor, "mfa.enable", target=("user", user.id), recovery_codes="new")
        mailer.send_to(user, "recovery_codes")
        return codes.replace_recovery_codes(user.id)


@atomic
def clear(actor: Identity, user_id: UUID) -> None:
    """Remove another user's second factor, if they have one. For administrators."""
    user = permissions.for_update(actor, user_id, not_own=True)
    _remove(user.id)
    if user.mfa_enabled:
        audit.record(actor, "mfa.disable", target=("user", user.id), by_admin=True)
        mailer.send_to(user, "mfa_disabled", by_admin=True)


def _prove(actor: Identity, current_password: str, code: str, action: str) -> User:
    """Return the actor's row if both the password and the code are right.

    Checks the password first, so that a wrong one does not use up the code.
    """
    user = throttling.require_password(actor, current_password, action)
    if not user.mfa_enabled:
        raise _conflict(enabled=False)
    with throttling.attempt(user, action, actor, code=True):
        if not codes.check(user, code):
            raise throttling.wrong_code()
    return user


def _conflict(*, enabled: bool) -> Conflict:
    return Conflict("conflict", f"The second factor is {'already' if enabled else 'not'} on.")


def _lock_user(user_id: UUID, *, enabled: bool) -> None:
    """Lock the user's row; raise Conflict unless the second factor is on (`enabled`) or off."""
    rows = User.select(User.id).where((User.id == user_id) & (User.mfa_enabled == enabled))
    if not lock(rows):
        raise _conflict(enabled=not enabled)


def _set_enabled(user_id: UUID, *, enabled: bool) -> None:
    """Set the column by which all other code knows whether the second factor is on."""
    changed = User.update(mfa_enabled=enabled, updated_at=clock.now())
    changed.where((User.id == user_id) & (User.mfa_enabled != enabled)).execute()


def _remove(user_id: UUID) -> None:
    _set_enabled(user_id, enabled=False)
    for table in (SecondFactor, RecoveryCode):
        table.delete().where(table.user == user_id).execute()
