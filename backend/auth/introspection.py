"""Introspect tokens (RFC 7662), and revoke them (RFC 7009).

Skip it on a first reading. Both take tokens of every kind: access tokens, refresh tokens, API keys.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from .. import services
from ..api_keys import lookup, revocation
from ..api_keys.verification import VALID, checks, first_failure
from ..core import context
from ..core.errors import Failure, InvalidCredentials
from ..core.identity import Identity
from ..db.database import made_at
from . import lookup as session_lookup
from . import refresh_tokens, sessions


def introspect(actor: Identity, token: str) -> dict[str, Any]:
    """Return the response of RFC 7662 section 2.2: what the token is, or that it is not active.

    Active means usable now, as far as can be known without using it: this spends nothing, rotates
    nothing, and activates no new secret. What is left of an API key's limit or quota is not
    considered. A key with `allowed_ips` is not active, because its caller's address is unknown
    here: use `verify` for it. Nor is the session of a user who must still set up a second factor.
    """
    for describe in (_access_token, _refresh_token, _api_key):
        try:
            members = describe(token)
        except InvalidCredentials:
            continue
        present = {name: value for name, value in members.items() if value is not None}
        return {"active": True, "iss": context.settings().jwt_issuer, **present}
    return {"active": False}


def _access_token(token: str) -> dict[str, Any]:
    claims = services.current().access_tokens.claims(token)
    who = session_lookup.by_access_token(token)
    of_token = {name: claims[name] for name in ("sid", "iat", "exp", "aud", "jti")}
    return {"token_type": "access_token", **_of_session(who.user), **of_token}


def _refresh_token(token: str) -> dict[str, Any]:
    session = refresh_tokens.session_of_refresh_token(token)
    return {
        "token_type": "refresh_token",
        **_of_session(session.user),
        "sid": str(session.id),
        "iat": _seconds(session.rotated_at or session.created_at),
        "exp": _seconds(session.expires_at),
    }


def _api_key(token: str) -> dict[str, Any]:
    key = lookup.key_of(token)
    if key is None or first_failure(checks(key, (), None)) != VALID:
        raise InvalidCredentials
    ends = [each for each in (key.expires_at, key.secret.ends_at) if each]
    return {
        "token_type": "api_key",
        **_about(key.owner),
        "scope": " ".join(sorted(key.scopes)) or None,  # RFC 6749 section 3.3 allows no empty one
        "client_id": str(key.id),
        "iat": made_at(UUID(str(key.secret.id))),
        "exp": _seconds(min(ends)) if ends else None,
    }


def _of_session(user: Any) -> dict[str, Any]:
    try:
        for check in services.current().session_checks:
            check(user)
    except Failure:
        raise InvalidCredentials from None
    return _about(user)


def _about(user: Any) -> dict[str, Any]:
    return {"sub": str(user.id), "username": user.username, "role": user.role}


def _seconds(at: datetime) -> int:
    return int(at.timestamp())


def revoke(token: str) -> None:
    """End the token's session, or revoke it if it is an API key; other text changes nothing.

    Like `sessions.revoke_token` and `revocation.revoke_by_possession`.
    """
    try:
        sessions.revoke_token(token)
    except InvalidCredentials:
        revocation.revoke_by_possession(token)
