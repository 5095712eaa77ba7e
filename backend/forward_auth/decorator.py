"""A decorator that guards single views of another Flask application.

    @app.get("/reports")
    @guarded(service, "reports:read")
    def reports() -> ...:
        caller = request.environ["backend.identity"]

It stores the caller where the middleware does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from flask import after_this_request, current_app, request
from flask.typing import ResponseReturnValue
from werkzeug.wrappers import Response

from ..services import Services
from .middleware import Guard

View = Callable[..., ResponseReturnValue]


def guarded(service: Services, *scopes: str, role: str | None = None) -> Callable[[View], View]:
    """Decorate a view, under `route`: allow only callers who have all of `scopes` and `role`.

    Others get the service's error responses. Raises ValueError for unknown scopes or roles.
    """
    guard = Guard(service, scopes, role)

    def decorate(view: View) -> View:
        @functools.wraps(view)
        def wrapper(*args: Any, **kwargs: Any) -> ResponseReturnValue:
            refusal, headers = guard.check(request.environ)
            if refusal:
                return refusal

            @after_this_request
            def _add_headers(response: Response) -> Response:
                response.headers.extend(headers)
                return response

            return current_app.ensure_sync(view)(*args, **kwargs)

        return wrapper

    return decorate
