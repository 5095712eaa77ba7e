"""The guard before single views of a Flask application other than the service's own.

    @app.get("/reports")
    @guarded(service, "reports:read")
    def reports() -> ...:
        caller = request.environ["backend.identity"]

Who is calling is left where the middleware leaves it.
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
    """Decorator, under `route`: only for callers who hold all of `scopes`, and `role`.

    Others are refused as the service refuses. ValueError if there are no such scopes or role.
    """
    door = Door(service, scopes, role)

    def decorate(view: View) -> View:
        @functools.wraps(view)
        def wrapper(*args: Any, **kwargs: Any) -> ResponseReturnValue:
            refusal, told = door.ask(request.environ)
            if refusal:
                return refusal

            @after_this_request
            def _tell(response: Response) -> Response:
                response.headers.extend(told)
                return response

            return current_app.ensure_sync(view)(*args, **kwargs)

        return wrapper

    return decorate
