"""The guard: who is calling, by what credential, and may they pass.

Every route carries one mark, which is enforced here and documented from the same value. A route
without a mark is refused when the app is built, so that nothing is open by mistake.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from flask import Flask, current_app, request
from flask.typing import ResponseReturnValue

from ..auth import identify, verification
from ..auth.decide import VALID
from ..auth.verification import Decision
from ..core import context
from ..core.errors import (
    INSUFFICIENT_SCOPE,
    INVALID_TOKEN,
    Failure,
    Forbidden,
    InvalidCredentials,
    NotFound,
)
from ..core.identity import Identity
from . import admission

View = TypeVar("View", bound=Callable[..., Any])

_ACCESS_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")

ANY_KEY = ""  # in place of a scope

# What is decided of a key that is nobody's, or nobody's any more.
_NOT_GOOD = frozenset({"not_found", "revoked", "disabled", "expired", "owner_inactive"})


@dataclass(frozen=True, slots=True)
class Access:
    """Who may call a route. `key` is the scope that an API key needs; None: no key will do.

    `before_enrolment`: also a session whose user must set up a second factor and has not.
    """

    public: bool = False
    admin: bool = False
    key: str | None = None
    before_enrolment: bool = False

    def codes(self) -> list[str]:
        """The error codes that the guard answers with."""
        if self.public:
            return []
        codes = ["ambiguous_credentials", "unauthenticated", "invalid_credentials"]
        codes.append("ip_not_allowed")
        if self.key is not None:
            codes += ["rate_limited", "usage_exceeded"]
        if self.admin:
            codes.append("forbidden")
        if self.key is None:
            codes.append("session_required")
        elif self.key != ANY_KEY:
            codes.append("insufficient_scope")
        if not self.before_enrolment:
            codes.append("mfa_enrolment_required")
        return codes


def _mark(access: Access) -> Callable[[View], View]:
    def decorate(view: View) -> View:
        view.access = access  # type: ignore[attr-defined]
        return view

    return decorate


# The marks. Each stands directly under @blp.route, or under @before_enrolment.
public = _mark(Access(public=True))
session = _mark(Access())
session_or_any_key = _mark(Access(key=ANY_KEY))


def session_or_key(scope: str) -> Callable[[View], View]:
    """Mark: a session, or an API key that holds `scope`."""
    return _mark(Access(key=scope))


def admin(scope: str | None = None) -> Callable[[View], View]:
    """Mark: an administrator's session, or an API key that holds `scope`, if one is named."""
    return _mark(Access(admin=True, key=scope))


def before_enrolment(view: View) -> View:
    """Above a mark: what is needed to set up the second factor that MFA_REQUIRED_ROLES asks for."""
    view.access = replace(view.access, before_enrolment=True)  # type: ignore[attr-defined]
    return view


def actor() -> Identity:
    """Who is calling. For views that are not public."""
    identity = _call().identity
    assert identity is not None, "a public route has no actor"
    return identity


def init_app(app: Flask) -> None:
    """Put the guard before every view of the app. RuntimeError if one has no mark."""
    unmarked = [name for name, view in app.view_functions.items() if not hasattr(view, "access")]
    if unmarked:
        raise RuntimeError(f"views without an access mark: {', '.join(unmarked)}")
    app.before_request(_guard)


def _guard() -> ResponseReturnValue | None:
    rule = request.url_rule
    if rule is None:
        return None  # 404 or 405, which the dispatch raises
    if request.environ["PATH_INFO"].startswith("//"):
        raise NotFound  # Werkzeug takes several slashes for one
    _call().route = rule.rule
    if request.method == "OPTIONS" and getattr(rule, "provide_automatic_options", False):
        return current_app.make_default_options_response(), 204
    view: Any = current_app.view_functions[rule.endpoint]
    if not view.access.public:
        _enforce(view.access, identify_caller(view.access))
    admission.admit(view)
    return None


def _enforce(access: Access, identity: Identity) -> None:
    """Let the identity pass, as the actor of the call, or raise what it is refused for."""
    if identity.method == "api_key":
        if access.key is None:
            raise Forbidden("session_required", "This takes a signed-in person, not an API key.")
    elif access.admin and identity.role != "admin":
        raise Forbidden("forbidden", "This takes an administrator.")
    elif not access.before_enrolment and _must_enrol(identity):
        raise Forbidden("mfa_enrolment_required", "Set up a second factor first.")


def _must_enrol(identity: Identity) -> bool:
    required = identity.role in context.settings().mfa_required_roles
    return required and not identity.user.mfa_enabled


def _call() -> context.Call:
    call = context.call.get()
    assert call is not None, "outside of the envelope"
    return call


def identify_caller(access: Access) -> Identity:
    """The identity behind the request's credential (RFC 6750 section 2.1, or X-API-Key).

    Failure `unauthenticated` if nothing was sent, InvalidCredentials if it is not good, Forbidden
    for a key that may not be used from here or lacks the scope that `access` asks for. A key that
    passes has been used; Failure `rate_limited` or `usage_exceeded` if it is used up.
    """
    scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
    bearer = bearer.strip(" \t") if scheme.lower() == "bearer" else ""
    key = request.headers.get("X-API-Key", "").strip(" \t")
    if bearer and key and bearer != key:
        raise Failure("ambiguous_credentials", "Two different credentials were sent.")
    if not bearer and not key:
        raise Failure("unauthenticated", "No credential was sent.")
    try:
        if not key and _ACCESS_TOKEN.fullmatch(bearer):
            return _known(identify.by_access_token(bearer))
        return _by_api_key(key or bearer, access)
    except InvalidCredentials as refusal:
        refusal.challenge = INVALID_TOKEN
        raise


def _by_api_key(text: str, access: Access) -> Identity:
    scopes, call = [access.key] if access.key else [], _call()
    # What no key may call is no use of it either.
    cost = 0 if access.key is None else 1
    decision = verification.verify(text, scopes, call.address, cost=cost)
    key = decision.key
    if key is None or decision.code in _NOT_GOOD:
        raise InvalidCredentials  # one answer for all that is wrong with a key
    call.rate = decision.rate
    _known(key.identity)
    if decision.code != VALID and (cost or decision.code == "ip_not_allowed"):
        raise _refused(decision, access)
    return key.identity


def _refused(decision: Decision, access: Access) -> Failure:
    """Why a good key may not pass."""
    if decision.code == "ip_not_allowed":
        return Forbidden("ip_not_allowed", "The API key may not be used from this address.")
    if decision.code == "insufficient_scope":
        return Forbidden(
            "insufficient_scope",
            f"The API key lacks the scope {access.key}.",
            challenge=f'{INSUFFICIENT_SCOPE}, scope="{access.key}"',
        )
    after = decision.retry_after
    if decision.code == "rate_limited":
        return Failure("rate_limited", "The API key's limit is reached.", retry_after=after)
    return Failure("usage_exceeded", "The API key's quota is used up.", retry_after=after)


def _known(identity: Identity) -> Identity:
    """The identity, noted for the log and as the actor of the call."""
    call = _call()
    call.identity = identity
    call.who = f"user:{identity.user_id}"
    if identity.key_id:
        call.who += f" key:{identity.key_id}"
    return identity
