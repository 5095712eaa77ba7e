"""Guards single views of a Flask application other than the service itself.

    @app.get("/reports")
    @guarded(service, "reports:read")
    def reports() -> ...:
        caller = request.environ["backend.identity"]

The caller is stored where the middleware stores it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from flask import after_this_request, current_app, request
from flask.typing import ResponseReturnValue
from werkzeug.wrappers import Response

from ..services import Services
from .middleware import Door

View = Callable[..., ResponseReturnValue]


def guarded(service: Services, *scopes: str, role: str | None = None) -> Callable[[View], View]:
    """Decorator, under `route`: allow only callers with all of `scopes` and with `role`.

    Others are refused as the service refuses. Raises ValueError for unknown scopes or roles.
    """
    door = Door(service, scopes, role)

    def decorate(view: View) -> View:
        @functools.wraps(view)
        def wrapper(*args: Any, **kwargs: Any) -> ResponseReturnValue:
            refusal, headers = door.ask(request.environ)
            if refusal:
                return refusal

            @after_this_request
            def _add_headers(response: Response) -> Response:
                response.headers.extend(headers)
                return response

            return current_app.ensure_sync(view)(*args, **kwargs)

        return wrapper

    return decorate
