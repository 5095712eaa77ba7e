"""Enforces the access marks of the service's own routes."""

from __future__ import annotations

from wsgiref.types import WSGIEnvironment

from ..core.errors import Forbidden
from ..web.access import Access
from .client_secrets import identify_client
from .guard import identify_caller, require_enrolment


def enforce(access: Access, environ: WSGIEnvironment) -> None:
    """Make the caller the actor of the call, or raise Failure if they may not call the route."""
    # A route that no key may call does not count as a use of the key.
    scopes, cost = [access.key] if access.key else [], 0 if access.key is None else 1
    identify = identify_client if access.as_client else identify_caller
    identity = identify(environ, scopes, cost=cost)
    if identity.method == "api_key":
        if access.key is None:
            raise Forbidden("session_required", "This requires a signed-in person, not an API key.")
    elif access.admin and identity.role != "admin":
        raise Forbidden("forbidden", "This requires an administrator.")
    elif not access.before_enrolment:
        require_enrolment(identity)
