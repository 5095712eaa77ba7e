"""Access marks: who may call a route, enforced before its view runs.

Every route carries one mark, from which access is both enforced and documented. Building an app
with an unmarked route fails, so that nothing is open by mistake.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from wsgiref.types import WSGIEnvironment

from flask import Flask, current_app, request
from flask.typing import ResponseReturnValue

from .. import services
from ..core import context
from ..core.errors import NotFound
from ..core.identity import Identity, Need, Requirement
from . import parsing, problems

View = TypeVar("View", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Access:
    """Who may call a route; anyone if there is no `requirement`.

    `checks_itself`: the view checks the caller and the query itself, and reads no body.
    `hashes`: while too many passwords are being hashed, refuse before anything else.
    """

    requirement: Requirement | None = None
    checks_itself: bool = False
    hashes: bool = False

    def codes(self) -> list[str]:
        """Return the error codes with which the guard may refuse."""
        wanted = self.requirement
        if wanted is None:
            return []
        codes = ["ambiguous_credentials", "unauthenticated", "invalid_credentials"]
        codes.append("ip_not_allowed")
        if wanted.session.role:
            codes.append("forbidden")
        if wanted.key is None:
            codes.append("session_required")
        else:
            codes += ["rate_limited", "usage_exceeded"]
            codes += ["insufficient_scope"] if wanted.key.scopes else []
        if not wanted.before_enrolment:
            codes.append("mfa_enrolment_required")
        return codes


def _mark(access: Access) -> Callable[[View], View]:
    def decorate(view: View) -> View:
        view.access = access  # type: ignore[attr-defined]
        return view

    return decorate


def _require(requirement: Requirement) -> Callable[[View], View]:
    return _mark(Access(requirement))


# The marks. Put one directly under @blp.route, or under @before_enrolment.
public = _mark(Access())
public_hashing = _mark(Access(hashes=True))
checks_itself = _mark(Access(checks_itself=True))
session = _require(Requirement())
session_or_any_key = _require(Requirement(key=Need()))


def session_or_key(scope: str) -> Callable[[View], View]:
    """Mark: a session, or an API key that holds `scope`."""
    return _require(Requirement(key=Need(scopes=(scope,))))


def admin(scope: str | None = None) -> Callable[[View], View]:
    """Mark: an administrator's session, or an API key that holds `scope`, if one is named."""
    return _require(Requirement(Need("admin"), Need(scopes=(scope,)) if scope else None))


def before_enrolment(view: View) -> View:
    """Above a mark: also for users who must still set up a second factor (MFA_REQUIRED_ROLES)."""
    return _require(_required(view)._replace(before_enrolment=True))(view)


def as_client(view: View) -> View:
    """Above a mark: also accept the key as an OAuth client's secret."""
    return _require(_required(view)._replace(as_client=True))(view)


def _required(view: Any) -> Requirement:
    requirement: Requirement | None = view.access.requirement
    assert requirement, "a public route accepts everyone already"
    return requirement


def actor() -> Identity:
    """Return the caller. For views that are not public."""
    identity = context.current_call().identity
    assert identity is not None, "a public route has no actor"
    return identity


def init_app(app: Flask, authorize: Callable[[WSGIEnvironment, Requirement], object]) -> None:
    """Put the guard before every view of the app. Raises RuntimeError if one has no mark.

    `authorize` sets the caller as the actor of the call, or raises the error that refuses them.
    """
    unmarked = [name for name, view in app.view_functions.items() if not hasattr(view, "access")]
    if unmarked:
        raise RuntimeError(f"views without an access mark: {', '.join(unmarked)}")
    codes = {code for view in app.view_functions.values() for code in getattr(view, "fails", ())}
    if unknown := codes - problems.CODES.keys():
        raise RuntimeError(f"unknown error codes: {', '.join(sorted(unknown))}")
    app.before_request(functools.partial(_guard, app.view_functions, authorize))


def hashing_paths(app: Flask) -> frozenset[str]:
    """Return the paths to which anyone may send a password that is then hashed."""
    views: dict[str, Any] = app.view_functions
    rules = app.url_map.iter_rules()
    return frozenset(rule.rule for rule in rules if views[rule.endpoint].access.hashes)


def _guard(
    views: dict[str, Any], authorize: Callable[[WSGIEnvironment, Requirement], object]
) -> ResponseReturnValue | None:
    current = request._get_current_object()  # type: ignore[attr-defined]
    rule, environ = current.url_rule, current.environ
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
    if access.requirement:
        authorize(environ, access.requirement)
    if not access.checks_itself:
        parsing.check_request(view, environ)
    return None
