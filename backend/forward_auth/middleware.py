"""A middleware that guards any WSGI application, using a service's settings and database.

    application = Middleware(application, create_services(), scopes=["reports:read"])

Neither needs a Flask context, and the application runs outside the service.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from werkzeug.datastructures import Headers
from werkzeug.wrappers import Response

from ..auth.guard import authorize, denied, requirement
from ..core import context
from ..db.database import release
from ..services import Services
from ..web import problems
from ..web.headers import completer, rate_headers
from ..web.middleware import call_of, see_through_proxies

IDENTITY = "backend.identity"

# The application might treat /static/../reports as /reports.
_AMBIGUOUS = re.compile(r"//|/\.\.?(/|$)")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is calling; the application finds it in `environ["backend.identity"]`.

    `method` is session or api_key; `scopes` is None for a session.
    """

    user_id: UUID
    username: str
    role: str
    method: str
    session_id: UUID | None
    key_id: UUID | None
    scopes: frozenset[str] | None


class Guard:
    """Checks who is calling, and whether they have all of `scopes` and `role`.

    Raises ValueError for unknown scopes or roles.
    """

    def __init__(self, service: Services, scopes: Iterable[str], role: str | None) -> None:
        self._service = service
        self._wanted = requirement(scopes, role)
        self._complete = completer(service.settings)

    def check(self, environ: WSGIEnvironment) -> tuple[Response | None, list[tuple[str, str]]]:
        """Return (the refusal or None, rate-limit headers to add to the application's response).

        Stores the caller in the environ.
        """
        forget(environ)
        seen = dict(environ)  # a copy: the application decides for itself which proxies to trust
        see_through_proxies(seen, self._service.settings.trusted_proxies)
        call = call_of(seen)
        token = context.call.set(call)
        try:
            with self._service.active():
                who = authorize(environ, self._wanted)
            environ[IDENTITY] = Caller(
                who.user_id,
                who.username,
                who.role,
                who.method,
                who.session_id,
                who.key_id,
                who.scopes,
            )
            return None, rate_headers(call.rate) if call.rate else []
        except Exception as error:
            response = problems.answer(denied(error))
            headers = self._complete(environ, list(response.headers))
            headers += rate_headers(call.rate) if call.rate else []
            response.headers = Headers([*headers, ("X-Request-ID", call.request_id)])
            return response, []
        finally:
            context.call.reset(token)
            release(self._service.database)


class Middleware:
    """Runs the application for callers who have all of `scopes` and `role`, and refuses others.

    `open_paths` are open to everyone, without a check; a path that ends in `/*` includes everything
    below it. OPTIONS is checked too, since an application may answer it like GET. A middleware that
    answers the preflights of browsers (CORS) must therefore come before this one.
    """

    def __init__(
        self,
        app: WSGIApplication,
        service: Services,
        *,
        scopes: Iterable[str] = (),
        role: str | None = None,
        open_paths: Iterable[str] = (),
    ) -> None:
        self._app = app
        self._guard = Guard(service, scopes, role)
        paths = list(open_paths)
        self._open = frozenset(path for path in paths if not path.endswith("/*"))
        self._open_below = tuple(path[:-1] for path in paths if path.endswith("/*"))

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if self._is_open(environ.get("PATH_INFO") or "/"):
            forget(environ)
            return self._app(environ, start_response)
        refusal, more = self._guard.check(environ)
        if refusal:
            return refusal(environ, start_response)

        def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            return start_response(status, [*headers, *more], *exc_info)

        return self._app(environ, start)

    def _is_open(self, path: str) -> bool:
        if path in self._open:
            return True
        return path.startswith(self._open_below) and not _AMBIGUOUS.search(path)


def forget(environ: WSGIEnvironment) -> None:
    """Remove everything from the environ that a client could forge to look like our answer."""
    environ.pop(IDENTITY, None)
    for name in [name for name in environ if name.startswith("HTTP_X_AUTH_")]:
        del environ[name]
