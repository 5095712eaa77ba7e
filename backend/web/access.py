"""The guard: who is calling, by what credential, and may they pass.

Every route carries one mark, which is enforced here and documented from the same value. A route
without a mark is refused when the app is built, so that nothing is open by mistake.
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
    """Who may call a route. `key` is the scope that an API key needs; None: no key will do.

    `before_enrolment`: also a session whose user must set up a second factor and has not.
    `by_itself`: the view is public, judges caller and query by itself, and reads no body.
    `hashes`: refused before all else while too many passwords are being hashed.
    `as_client`: the key may also come as an OAuth client's secret.
    """

    public: bool = False
    admin: bool = False
    key: str | None = None
    before_enrolment: bool = False
    by_itself: bool = False
    hashes: bool = False
    as_client: bool = False

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
    """Above a mark: what is needed to set up the second factor that MFA_REQUIRED_ROLES asks for."""
    view.access = replace(view.access, before_enrolment=True)  # type: ignore[attr-defined]
    return view


def as_client(view: View) -> View:
    """Above a mark: the key may also come as an OAuth client's secret."""
    view.access = replace(view.access, as_client=True)  # type: ignore[attr-defined]
    return view


def actor() -> Identity:
    """Who is calling. For views that are not public."""
    identity = context.current_call().identity
    assert identity is not None, "a public route has no actor"
    return identity


def init_app(app: Flask, enforce: Callable[[Access, WSGIEnvironment], None]) -> None:
    """Put the guard before every view of the app. RuntimeError if one has no mark.

    `enforce` lets the caller of a view that is not public pass, as the actor of the call, or
    raises what the caller is refused for.
    """
    unmarked = [name for name, view in app.view_functions.items() if not hasattr(view, "access")]
    if unmarked:
        raise RuntimeError(f"views without an access mark: {', '.join(unmarked)}")
    app.before_request(functools.partial(_guard, app.view_functions, enforce))


def hashing_paths(app: Flask) -> frozenset[str]:
    """The paths whose requests take a password to be hashed, and anybody may send."""
    views: dict[str, Any] = app.view_functions
    rules = app.url_map.iter_rules()
    return frozenset(rule.rule for rule in rules if views[rule.endpoint].access.hashes)


def _guard(
    views: dict[str, Any], enforce: Callable[[Access, WSGIEnvironment], None]
) -> ResponseReturnValue | None:
    asked = request._get_current_object()  # type: ignore[attr-defined]
    rule, environ = asked.url_rule, asked.environ
    if environ["PATH_INFO"].startswith("//") or not environ["PATH_INFO"].startswith("/"):
        raise NotFound  # Werkzeug takes several slashes, or none, for one
    if rule is None:
        return None  # 404 or 405, which the dispatch raises
    context.current_call().route = rule.rule
    if environ["REQUEST_METHOD"] == "OPTIONS" and getattr(rule, "provide_automatic_options", False):
        return current_app.make_default_options_response(), 204
    view = views[rule.endpoint]
    access: Access = view.access
    if access.hashes:
        services.current().password_hasher.require_place()  # a flood of these costs next to nothing
    if not access.public:
        enforce(access, environ)
    if not access.by_itself:
        parsing.admit(view, environ)
    return None
