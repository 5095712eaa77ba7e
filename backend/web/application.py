"""Flask's application, without per-request work that this service does not need."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any
from urllib.parse import urlsplit
from wsgiref.types import StartResponse, WSGIEnvironment

from flask import Flask, Request, Response
from flask.json.provider import DefaultJSONProvider
from flask.sessions import NullSession, SessionInterface
from werkzeug.routing import MapAdapter, Rule

# Encodes responses. Flask's own provider would create an encoder each time.
to_json = json.JSONEncoder(default=DefaultJSONProvider.default, separators=(",", ":")).encode


class JSON(DefaultJSONProvider):
    """Compact JSON, with members in the order in which they are declared."""

    compact = True
    sort_keys = False


class Ready(Response):
    """A response whose body is complete."""

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        """Pass it to the server. Werkzeug would copy the headers and wrap the body, in 15 us."""
        is_plain = self.status_code == 200 and type(self.response) is list and not self._on_close
        if not is_plain or environ["REQUEST_METHOD"] == "HEAD":
            return super().__call__(environ, start)
        headers = list(self.headers)
        if not self.response:
            headers.append(("Content-Length", "0"))
        start(self.status, headers)
        return self.response  # type: ignore[return-value]


class Empty(Ready):
    """A response without a body, and therefore without a Content-Type."""

    default_mimetype = None


class NoSessions(SessionInterface):
    """Reads and sets no cookies."""

    _none = NullSession()

    def open_session(self, app: Flask, request: Any) -> NullSession:
        """Return a session that refuses to be written to."""
        return self._none

    def save_session(self, *args: Any) -> None:
        """Do nothing."""


class LazyRule(Rule):
    """A route that compiles its URL builder when it is first needed, which is rarely the case.

    Werkzeug's own class compiles it at start-up, which takes 10 of 15 ms of creating an app.
    """

    def _compile_builder(self, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
        made = cache(super()._compile_builder)
        return lambda rule, /, **values: made(append_unknown)(rule, **values)


class Application(Flask):
    """A Flask application with synchronous views only. Its links use the host of `public_url`."""

    url_rule_class = LazyRule
    json_provider_class = JSON
    session_interface = NoSessions()

    def __init__(self, name: str, public_url: str) -> None:
        self._public = urlsplit(public_url)
        super().__init__(name, static_folder=None)

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """Return an adapter that finds the request's route, and builds links without its Host."""
        config = self.config
        if config["SERVER_NAME"] or config["TRUSTED_HOSTS"]:
            return super().create_url_adapter(request)
        if request is None:
            return None
        return MapAdapter(
            self.url_map,
            server_name=self._public.netloc,
            script_name=request.root_path,
            subdomain="",
            url_scheme=self._public.scheme,
            path_info=request.path,
            default_method=request.method,
        )

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function itself. Flask would check each time whether it is a coroutine."""
        return func
