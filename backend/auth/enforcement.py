"""Enforcing the marks of the service's own routes."""

from __future__ import annotations

from wsgiref.types import WSGIEnvironment

from ..core.errors import Forbidden
from ..web.access import Access
from .client_secrets import identify_client
from .guard import identify_caller, require_enrolment


def enforce(access: Access, environ: WSGIEnvironment) -> None:
    """Let the caller pass, as the actor of the call, or raise what it is refused for."""
    # What no key may call is no use of it either.
    scopes, cost = [access.key] if access.key else [], 0 if access.key is None else 1
    identify = identify_client if access.as_client else identify_caller
    identity = identify(environ, scopes, cost=cost)
    if identity.method == "api_key":
        if access.key is None:
            raise Forbidden("session_required", "This takes a signed-in person, not an API key.")
    elif access.admin and identity.role != "admin":
        raise Forbidden("forbidden", "This takes an administrator.")
    elif not access.before_enrolment:
        require_enrolment(identity)
