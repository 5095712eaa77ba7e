"""May the caller pass? One function decides, for routes, proxies, WSGI applications and views."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from wsgiref.types import WSGIEnvironment

from flask import Flask

from .. import services
from ..api_keys.scopes import PATTERN, allowed
from ..core import context
from ..core.errors import Failure, Forbidden
from ..core.identity import ROLES, Identity, Need, Requirement, holds_role
from ..web import problems
from .authentication import authenticate, lacks_scope, wrong_role
from .client_secrets import authenticate_client

log = logging.getLogger(__name__)

_SCOPE = re.compile(PATTERN)


def authorize(environ: WSGIEnvironment, wanted: Requirement) -> Identity:
    """Return the caller, who becomes the actor of the call, or raise Failure if they may not pass.

    An API key that passes counts as used.
    """
    identify = authenticate_client if wanted.as_client else authenticate
    identity = identify(environ, wanted.key)
    if identity.method != "api_key":
        _check_session(identity, wanted)
    elif wanted.key is None:
        raise Forbidden("session_required", "This requires a signed-in person, not an API key.")
    return identity


def _check_session(identity: Identity, wanted: Requirement) -> None:
    need, kind = wanted.session, identity.user.kind
    if not holds_role(identity.role, need.role):
        raise wrong_role(need)
    if not all(allowed(scope, identity.role, kind) for scope in need.scopes):
        raise lacks_scope("The session", need)
    if not wanted.before_enrolment:
        for check in services.current().session_checks:
            check(identity.user)


def requirement(scopes: Iterable[str], role: str | None) -> Requirement:
    """Return the requirement of another service: all of these scopes, and the role.

    A session has a scope if its user's role allows a key to have it. Raises ValueError for unknown
    scopes or roles.
    """
    need = Need(role, tuple(scopes))
    for scope in need.scopes:
        if not _SCOPE.fullmatch(scope):
            raise ValueError(f"not a scope: {scope!r}")
    if role is not None and role not in ROLES:
        raise ValueError(f"not a role: {role!r}")
    return Requirement(need, need)


def require_reserved_scopes(app: Flask) -> None:
    """Raise RuntimeError if everyone may create a key that passes an administrator's mark."""
    for name, view in app.view_functions.items():
        wanted: Requirement | None = getattr(view, "access").requirement  # noqa: B009
        if wanted and wanted.session.role == "admin" and wanted.key:
            for scope in wanted.key.scopes:
                if allowed(scope, "user", "person"):
                    raise RuntimeError(
                        f"{name}: everyone may create a key with {scope}; declare it in SUBJECT:"
                        f' scopes=(Scope("{scope}", for_admins=True),)'
                    )


def denied(error: Exception) -> Failure:
    """Return the failure with which to refuse a request to another service.

    It is only logged: an audit row for each would turn a flood of requests into a flood of writes.
    """
    failure, call = problems.failure_of(error), context.current_call()
    about = {"code": failure.code, "who": call.who, "ip": call.address}
    log.info("access.denied: %s", failure.code, extra=about)
    return failure
