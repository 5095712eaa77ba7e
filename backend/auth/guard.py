"""Who is calling, by what credential, and may they pass: the same at every door.

What was presented is read from the WSGI environ, so that no door needs Flask for it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from wsgiref.types import WSGIEnvironment

from ..api_keys import scopes as rules
from ..api_keys import verification
from ..api_keys.verification import VALID, Decision
from ..core import context
from ..core.errors import (
    INSUFFICIENT_SCOPE,
    INVALID_TOKEN,
    Failure,
    Forbidden,
    InvalidCredentials,
)
from ..core.identity import ROLES, Identity, holds_role
from ..mfa import service as mfa
from ..web import problems
from ..web.headers import bearer_of
from . import identify

log = logging.getLogger(__name__)

_ACCESS_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_SCOPE = re.compile(rules.PATTERN)

# What is decided of a key that is nobody's, or nobody's any more.
_NOT_GOOD = frozenset({"not_found", "revoked", "disabled", "expired", "owner_inactive"})


@dataclass(frozen=True, slots=True)
class Asked:
    """What a door of another service asks of a caller. ValueError for what nobody could have."""

    scopes: tuple[str, ...] = ()
    role: str | None = None

    def __post_init__(self) -> None:
        for scope in self.scopes:
            if not _SCOPE.fullmatch(scope):
                raise ValueError(f"not a scope: {scope!r}")
        if self.role is not None and self.role not in ROLES:
            raise ValueError(f"not a role: {self.role!r}")


def admit(environ: WSGIEnvironment, asked: Asked) -> Identity:
    """The identity behind the request's credential, if it may do what is asked; else Failure.

    A session may do what its role may; see `identify_caller` for what a key may.
    """
    identity = identify_caller(environ, asked.scopes, asked.role)
    if identity.method == "session":
        kind = identity.user.kind
        if not holds_role(identity.role, asked.role):
            raise _wrong_role(asked.role)
        if not all(rules.allowed(scope, identity.role, kind) for scope in asked.scopes):
            raise _lacks("The session", asked.scopes)
        require_enrolment(identity)
    return identity


def denied(error: Exception) -> Failure:
    """The failure by which the door of another service refuses.

    It stands in the log alone: a row for each would make a flood of requests one of writes.
    """
    failure, call = problems.failure_of(error), context.current_call()
    about = {"code": failure.code, "who": call.who, "ip": call.address}
    log.info("access.denied: %s", failure.code, extra=about)
    return failure


def require_enrolment(identity: Identity) -> None:
    """Raise Forbidden if this session's user must set up a second factor and has not."""
    if mfa.is_missing(identity.user):
        raise Forbidden("mfa_enrolment_required", "Set up a second factor first.")


def identify_caller(
    environ: WSGIEnvironment, scopes: Sequence[str] = (), role: str | None = None, *, cost: int = 1
) -> Identity:
    """The identity behind the request's credential (RFC 6750 section 2.1, or X-API-Key).

    Failure `unauthenticated` if nothing was sent, InvalidCredentials if it is not good. Scopes and
    role are asked of a key alone: Forbidden if it lacks them or may not be used from here. A key
    that passes has been used; Failure `rate_limited` or `usage_exceeded` if it is used up. At a
    `cost` of 0 it is not used, and refused for its address alone.
    """
    bearer, key = _presented(environ)
    try:
        if _ACCESS_TOKEN.fullmatch(bearer):
            try:
                return _known(identify.by_access_token(bearer))
            except InvalidCredentials:
                if not key:  # in both headers: an imported key may look like an access token
                    raise
        return by_api_key(key or bearer, scopes, role, cost)
    except InvalidCredentials as refusal:
        refusal.challenge = INVALID_TOKEN
        raise


def _presented(environ: WSGIEnvironment) -> tuple[str, str]:
    """The texts that were sent as a bearer token and as X-API-Key; both if they are equal."""
    bearer = bearer_of(environ)
    key = environ.get("HTTP_X_API_KEY", "").strip(" \t")
    if bearer and key and bearer != key:
        raise Failure("ambiguous_credentials", "Two different credentials were sent.")
    if not bearer and not key:
        raise Failure("unauthenticated", "No credential was sent.")
    return bearer, key


def by_api_key(text: str, scopes: Sequence[str], role: str | None, cost: int) -> Identity:
    """The identity behind the API key with this text; see `identify_caller`."""
    call = context.current_call()
    decision = verification.verify(text, scopes, call.address, role=role, cost=cost)
    key = decision.key
    if key is None or decision.code in _NOT_GOOD:
        raise InvalidCredentials  # one answer for all that is wrong with a key
    call.rate = decision.rate
    identity = _known(key.identity)
    if decision.code != VALID and (cost or decision.code == "ip_not_allowed"):
        raise _refused(decision, scopes, role)
    return identity


def _refused(decision: Decision, scopes: Sequence[str], role: str | None) -> Failure:
    """Why a good key may not pass."""
    if decision.code == "ip_not_allowed":
        return Forbidden("ip_not_allowed", "The API key may not be used from this address.")
    if decision.code == "forbidden":
        return _wrong_role(role)
    if decision.code == "insufficient_scope":
        return _lacks("The API key", scopes)
    after = decision.retry_after
    if decision.code == "rate_limited":
        return Failure("rate_limited", "The API key's limit is reached.", retry_after=after)
    return Failure("usage_exceeded", "The API key's quota is used up.", retry_after=after)


def _wrong_role(role: str | None) -> Failure:
    return Forbidden("forbidden", f"This takes the role {role}.")


def _lacks(what: str, scopes: Sequence[str]) -> Failure:
    wanted = " ".join(scopes)
    return Forbidden(
        "insufficient_scope",
        f"{what} lacks the scope {wanted}.",
        challenge=f'{INSUFFICIENT_SCOPE}, scope="{wanted}"',
    )


def _known(identity: Identity) -> Identity:
    """The identity, noted for the log and as the actor of the call."""
    call = context.current_call()
    call.identity = identity
    call.who = f"user:{identity.user_id}"
    if identity.key_id:
        call.who += f" key:{identity.key_id}"
    return identity
