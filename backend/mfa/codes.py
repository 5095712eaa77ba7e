"""One-time codes and recovery codes: create them, and use them up. Skip it on a first reading."""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import logging
import re
import secrets
from uuid import UUID

import pyotp
import segno

from .. import services
from ..core import clock
from ..db.database import count_by
from ..users.models import User
from .models import RecoveryCode, SecondFactor

log = logging.getLogger(__name__)

STEP = 30  # seconds
RECOVERY_CODES = 10


def check(user: User, code: str) -> bool:
    """Use up one of the user's one-time or recovery codes; False if it is wrong or already used.

    Call it inside `throttling.attempt` and outside any transaction: an accepted code stays used,
    whatever happens afterwards.
    """
    factor = SecondFactor.get_or_none(
        (SecondFactor.user == user) & SecondFactor.confirmed_at.is_null(False)
    )
    if factor is None:
        return False
    return use_one_time_code(factor, code) or _use_recovery_code(user, code)


def secrets_in_use() -> dict[str, int]:
    """Count the second factors that depend on each SECRET_KEY, by its id."""
    confirmed = SecondFactor.confirmed_at.is_null(False)
    return count_by(SecondFactor.secret_id, SecondFactor.select().where(confirmed))


def use_one_time_code(factor: SecondFactor, code: str) -> bool:
    """Use up the code's step and all earlier ones in one guarded UPDATE; False for a wrong code.

    Also re-encrypts a secret of an earlier SECRET_KEY, so that the earlier one can be dropped.
    """
    try:
        secret, is_earlier = services.current().keyring.decrypt(factor.secret)
    except LookupError:
        log.error(  # noqa: TRY400 (a traceback adds nothing)
            "second factor lost: its SECRET_KEY is no longer set",
            extra={"user_id": str(factor.user_id)},
        )
        return False
    step = _step_of(secret.decode(), code)
    if step is None:
        return False
    changes = {"last_step": step} | (encrypted(secret.decode()) if is_earlier else {})
    unused = (SecondFactor.id == factor.id) & (SecondFactor.last_step < step)
    return bool(SecondFactor.update(**changes).where(unused).execute())


def _step_of(secret: str, code: str) -> int | None:
    """Return the step that the code is for, now or one off (RFC 6238 section 5.2), or None."""
    totp, now, given = pyotp.TOTP(secret), int(clock.timestamp()) // STEP, _compact(code).encode()
    for step in (now, now - 1, now + 1):
        if hmac.compare_digest(totp.generate_otp(step).encode(), given):
            return step
    return None


def encrypted(secret: str) -> dict[str, str]:
    """Return the columns that store the secret, encrypted under the current SECRET_KEY."""
    keyring = services.current().keyring
    return {"secret": keyring.encrypt(secret.encode()), "secret_id": keyring.secret_ids[0]}


def qr_svg(text: str) -> str:
    """Return a QR code as an SVG element that fills its container, white even on a dark page."""
    svg = io.BytesIO()
    segno.make_qr(text, error="m").save(
        svg,
        kind="svg",
        xmldecl=False,
        nl=False,
        omitsize=True,
        svgclass=None,
        lineclass=None,
        light="#fff",
        border=4,  # modules, as ISO/IEC 18004 requires
    )
    return svg.getvalue().decode()


def replace_recovery_codes(user_id: UUID) -> list[str]:
    """Replace the user's recovery codes with ten new ones: 128 random bits each, in base32."""
    RecoveryCode.delete().where(RecoveryCode.user == user_id).execute()
    drawn = (base64.b32encode(secrets.token_bytes(16)).decode() for _ in range(RECOVERY_CODES))
    texts = [text.rstrip("=") for text in drawn]
    rows = [{"user": user_id, "digest": _digest(text)} for text in texts]
    RecoveryCode.insert_many(rows).execute()
    return ["-".join(re.findall(".{1,7}", text)) for text in texts]


def _use_recovery_code(user: User, code: str) -> bool:
    """Use up the recovery code with one DELETE; False if it is not one of the user's."""
    same = (RecoveryCode.user == user) & (RecoveryCode.digest == _digest(_compact(code)))
    return bool(RecoveryCode.delete().where(same).execute())


def _digest(text: str) -> str:
    # A fast hash is enough, since 2^128 codes cannot be tried. The time that a query takes may
    # reveal something about the digest, but nothing about the code.
    return hashlib.sha256(text.encode()).hexdigest()


def _compact(code: str) -> str:
    """Return the code in the form that is compared, however it was typed."""
    return code.replace("-", "").replace(" ", "").upper()
