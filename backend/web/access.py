"""The guard: who is calling, with which credential, and may they pass.

Every route carries one mark, which is enforced here and documented from the same value. Building an
app with an unmarked route fails, so that nothing is open by mistake.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from wsgiref.types import WSGIEnvironment

from flask import Flask, current_app, request
from flask.typing import ResponseReturnValue

from .. import services
from ..core import context
from ..core.errors import NotFound
from ..core.identity import Identity
from . import parsing

View = TypeVar("View", bound=Callable[..., Any])

ANY_KEY = ""  # in place of a scope


@dataclass(frozen=True, slots=True)
class Access:
    """Who may call a route. `key` is the scope that an API key needs; None if no key is accepted.

    `before_enrolment`: also accept a session whose user must still set up a second factor.
    `by_itself`: the view is public, checks caller and query itself, and reads no body.
    `hashes`: refuse before anything else while too many passwords are being hashed.
    `as_client`: also accept the key as an OAuth client's secret.
    """

    public: bool = False
    admin: bool = False
    key: str | None = None
    before_enrolment: bool = False
    by_itself: bool = False
    hashes: bool = False
    as_client: bool = False

    def codes(self) -> list[str]:
        """The error codes with which the guard may refuse."""
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


# The marks. Put one directly under @blp.route, or under @before_enrolment.
public = _mark(Access(public=True))
public_hashing = _mark(Access(public=True, hashes=True))
by_itself = _mark(Access(public=True, by_itself=True))
session = _mark(Access())
session_or_any_key = _mark(Access(key=ANY_KEY))


def session_or_key(scope: str) -> Callable[[View], View]:
    """Mark: a session, or an API key that holds `scope`."""
    return _mark(Access(key=scope))


def admin(scope: str | None = None) -> Callable[[View], View]:
    """Mark: an administrator's session, or an API key that holds `scope`, if one is named."""
    return _mark(Access(admin=True, key=scope))


def before_enrolment(view: View) -> View:
    """Above a mark: also for users who must first set up the second factor (MFA_REQUIRED_ROLES)."""
    view.access = replace(view.access, before_enrolment=True)  # type: ignore[attr-defined]
    return view


def as_client(view: View) -> View:
    """Above a mark: also accept the key as an OAuth client's secret."""
    view.access = replace(view.access, as_client=True)  # type: ignore[attr-defined]
    return view


def actor() -> Identity:
    """Return who is calling. For views that are not public."""
    identity = context.current_call().identity
    assert identity is not None, "a public route has no actor"
    return identity


def init_app(app: Flask, enforce: Callable[[Access, WSGIEnvironment], None]) -> None:
    """Put the guard before every view of the app. RuntimeError if one has no mark.

    For a view that is not public, `enforce` makes the caller the actor of the call, or raises the
    error that refuses them.
    """
    unmarked = [name for name, view in app.view_functions.items() if not hasattr(view, "access")]
    if unmarked:
        raise RuntimeError(f"views without an access mark: {', '.join(unmarked)}")
    app.before_request(functools.partial(_guard, app.view_functions, enforce))


def hashing_paths(app: Flask) -> frozenset[str]:
    """The paths to which anyone may send a password that is then hashed."""
    views: dict[str, Any] = app.view_functions
    rules = app.url_map.iter_rules()
    return frozenset(rule.rule for rule in rules if views[rule.endpoint].access.hashes)


def _guard(
    views: dict[str, Any], enforce: Callable[[Access, WSGIEnvironment], None]
) -> ResponseReturnValue | None:
    asked = request._get_current_object()  # type: ignore[attr-defined]
    rule, environ = asked.url_rule, asked.environ
    if environ["PATH_INFO"].startswith("//") or not environ["PATH_INFO"].startswith("/"):
        raise NotFound  # Werkzeug treats several slashes, or none, as one
    if rule is None:
        return None  # 404 or 405, which the dispatch raises
    context.current_call().route = rule.rule
    if environ["REQUEST_METHOD"] == "OPTIONS" and getattr(rule, "provide_automatic_options", False):
        return current_app.make_default_options_response(), 204
    view = views[rule.endpoint]
    access: Access = view.access
    if access.hashes:
        services.current().password_hasher.require_place()  # makes a flood cost next to nothing
    if not access.public:
        enforce(access, environ)
    if not access.by_itself:
        parsing.admit(view, environ)
    return None
