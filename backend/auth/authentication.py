"""Find out who is calling, and with which credential, in the same way for every door.

The credential is read from the WSGI environ, so that a door does not need Flask.
"""

from __future__ import annotations

import re
from wsgiref.types import WSGIEnvironment

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
from ..core.identity import Identity, Need
from ..web.headers import api_key_of, bearer_of
from . import lookup

_ACCESS_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")

# The decisions that mean that a key is not valid, or no longer.
_INVALID = frozenset({"not_found", "revoked", "disabled", "expired", "owner_inactive"})


def authenticate(environ: WSGIEnvironment, need: Need | None) -> Identity:
    """Return the identity behind the request's credential (RFC 6750 section 2.1, or X-API-Key).

    Raises Failure `unauthenticated` if nothing was sent, and InvalidCredentials if it is not valid.
    `need` is checked for keys only; see `by_api_key`.
    """
    bearer, key = _presented(environ)
    try:
        if _ACCESS_TOKEN.fullmatch(bearer):
            try:
                return _set_actor(lookup.by_access_token(bearer))
            except InvalidCredentials:
                if not key:  # in both headers, since an imported key may look like an access token
                    raise
        return by_api_key(key or bearer, need)
    except InvalidCredentials as refusal:
        refusal.challenge = INVALID_TOKEN
        raise


def _presented(environ: WSGIEnvironment) -> tuple[str, str]:
    """Return (bearer token, X-API-Key) as sent. Both may be sent only if they are equal."""
    bearer = bearer_of(environ)
    key = api_key_of(environ)
    if bearer and key and bearer != key:
        raise Failure("ambiguous_credentials", "Two different credentials were sent.")
    if not bearer and not key:
        raise Failure("unauthenticated", "No credential was sent.")
    return bearer, key


def by_api_key(text: str, need: Need | None) -> Identity:
    """Return the identity behind the API key with this text; it counts as used.

    Raises Forbidden if the key lacks something that it needs or may not be used from this address,
    and Failure `rate_limited` or `usage_exceeded` if its limit or quota is used up. `need` is None
    where no key is accepted: then it does not count as used, and only the address is checked.
    """
    call = context.current_call()
    wanted, cost = (Need(), 0) if need is None else (need, 1)
    decision = verification.verify(text, wanted.scopes, call.address, role=wanted.role, cost=cost)
    key = decision.key
    if key is None or decision.code in _INVALID:
        raise InvalidCredentials  # one answer, whatever makes the key invalid
    call.rate = decision.rate
    identity = _set_actor(key.identity)
    if decision.code != VALID and (cost or decision.code == "ip_not_allowed"):
        raise _refused(decision, wanted)
    return identity


def _refused(decision: Decision, need: Need) -> Failure:
    """Return the failure that says why a valid key may not do this."""
    if decision.code == "ip_not_allowed":
        return Forbidden("ip_not_allowed", "The API key may not be used from this address.")
    if decision.code == "forbidden":
        return wrong_role(need)
    if decision.code == "insufficient_scope":
        return lacks_scope("The API key", need)
    after = decision.retry_after
    if decision.code == "rate_limited":
        return Failure("rate_limited", "The API key's rate limit is reached.", retry_after=after)
    return Failure("usage_exceeded", "The API key's quota is used up.", retry_after=after)


def wrong_role(need: Need) -> Forbidden:
    """Return the error for a caller without the role that is needed."""
    return Forbidden("forbidden", f"This requires the role {need.role}.")


def lacks_scope(credential: str, need: Need) -> Forbidden:
    """Return the error for a credential without the scopes that are needed."""
    wanted = " ".join(need.scopes)
    return Forbidden(
        "insufficient_scope",
        f"{credential} lacks the scope {wanted}.",
        challenge=f'{INSUFFICIENT_SCOPE}, scope="{wanted}"',
    )


def _set_actor(identity: Identity) -> Identity:
    """Set the identity as the actor of the call, and for the log; return it."""
    call = context.current_call()
    call.identity = identity
    call.who = f"user:{identity.user_id}"
    if identity.key_id:
        call.who += f" key:{identity.key_id}"
    return identity
