"""Who is calling, with which credential, and whether they may: the same for every entrance.

The credential is read from the WSGI environ, so that no entrance needs Flask.
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

# The decisions that mean a key is not valid at all, or not any more.
_NOT_GOOD = frozenset({"not_found", "revoked", "disabled", "expired", "owner_inactive"})


@dataclass(frozen=True, slots=True)
class Asked:
    """What another service requires of a caller. Raises ValueError for unknown scopes or roles."""

    scopes: tuple[str, ...] = ()
    role: str | None = None

    def __post_init__(self) -> None:
        for scope in self.scopes:
            if not _SCOPE.fullmatch(scope):
                raise ValueError(f"not a scope: {scope!r}")
        if self.role is not None and self.role not in ROLES:
            raise ValueError(f"not a role: {self.role!r}")


def admit(environ: WSGIEnvironment, asked: Asked) -> Identity:
    """Return the identity behind the request's credential if it may do this; else raise Failure.

    A session may do what its role may; for keys see `identify_caller`.
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
    """Return the failure with which to refuse a request to another service.

    It is only logged: an audit row for each would turn a flood of requests into a flood of writes.
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
    """Return the identity behind the request's credential (RFC 6750 section 2.1, or X-API-Key).

    Raises Failure `unauthenticated` if nothing was sent, and InvalidCredentials if it is not valid.
    Scopes and role are checked for keys only: Forbidden if the key lacks them or may not be used
    from here. A key that passes counts as used; Failure `rate_limited` or `usage_exceeded` if it is
    used up. A `cost` of 0 does not count as a use, and only checks the key's address.
    """
    bearer, key = _presented(environ)
    try:
        if _ACCESS_TOKEN.fullmatch(bearer):
            try:
                return _known(identify.by_access_token(bearer))
            except InvalidCredentials:
                if not key:  # in both headers, since an imported key may look like an access token
                    raise
        return by_api_key(key or bearer, scopes, role, cost)
    except InvalidCredentials as refusal:
        refusal.challenge = INVALID_TOKEN
        raise


def _presented(environ: WSGIEnvironment) -> tuple[str, str]:
    """Return what was sent as (bearer token, X-API-Key). Both may be sent if they are equal."""
    bearer = bearer_of(environ)
    key = environ.get("HTTP_X_API_KEY", "").strip(" \t")
    if bearer and key and bearer != key:
        raise Failure("ambiguous_credentials", "Two different credentials were sent.")
    if not bearer and not key:
        raise Failure("unauthenticated", "No credential was sent.")
    return bearer, key


def by_api_key(text: str, scopes: Sequence[str], role: str | None, cost: int) -> Identity:
    """Return the identity behind the API key with this text; see `identify_caller`."""
    call = context.current_call()
    decision = verification.verify(text, scopes, call.address, role=role, cost=cost)
    key = decision.key
    if key is None or decision.code in _NOT_GOOD:
        raise InvalidCredentials  # one answer, whatever makes the key invalid
    call.rate = decision.rate
    identity = _known(key.identity)
    if decision.code != VALID and (cost or decision.code == "ip_not_allowed"):
        raise _refused(decision, scopes, role)
    return identity


def _refused(decision: Decision, scopes: Sequence[str], role: str | None) -> Failure:
    """Return the failure that says why a valid key may not do this."""
    if decision.code == "ip_not_allowed":
        return Forbidden("ip_not_allowed", "The API key may not be used from this address.")
    if decision.code == "forbidden":
        return _wrong_role(role)
    if decision.code == "insufficient_scope":
        return _lacks("The API key", scopes)
    after = decision.retry_after
    if decision.code == "rate_limited":
        return Failure("rate_limited", "The API key's rate limit is reached.", retry_after=after)
    return Failure("usage_exceeded", "The API key's quota is used up.", retry_after=after)


def _wrong_role(role: str | None) -> Failure:
    return Forbidden("forbidden", f"This requires the role {role}.")


def _lacks(what: str, scopes: Sequence[str]) -> Failure:
    wanted = " ".join(scopes)
    return Forbidden(
        "insufficient_scope",
        f"{what} lacks the scope {wanted}.",
        challenge=f'{INSUFFICIENT_SCOPE}, scope="{wanted}"',
    )


def _known(identity: Identity) -> Identity:
    """Return the identity, after noting it for the log and as the actor of the call."""
    call = context.current_call()
    call.identity = identity
    call.who = f"user:{identity.user_id}"
    if identity.key_id:
        call.who += f" key:{identity.key_id}"
    return identity
