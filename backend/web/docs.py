"""The documentation pages: the OpenAPI document, Swagger UI and Redoc, served by this process.

All addresses in the pages are relative, so that they work under any prefix. The pages' CSP lets
them load files only from this service. It allows unsafe-inline for styles, because the pages'
libraries set styles from scripts.
"""

from __future__ import annotations

import functools
from html import escape
from pathlib import Path

from flask import Blueprint, Flask, Response, abort, jsonify, request
from flask.typing import ResponseReturnValue

from ..core import context
from . import openapi
from .access import public
from .api import Api

_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " font-src 'self' data:; connect-src 'self'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'"
)

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
{style}
</head>
<body>
<div id="docs"></div>
<script src="docs/assets/{library}"></script>
<script src="docs/assets/{start}"></script>
</body>
</html>
"""

_SCRIPTS = {
    # "Try it out" calls the host and prefix under which the page itself was loaded: PUBLIC_URL,
    # which the document names first, may be another origin.
    "swagger.js": """const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#docs",
  deepLinking: true,
  displayOperationId: false,
  validatorUrl: null,
  plugins: [{statePlugins: {spec: {wrapActions: {
    updateJsonSpec: (update) => (spec) => update({
      ...spec,
      servers: [{url: location.origin + location.pathname.slice(0, -"/v1/docs".length)}],
    }),
  }}}}],
});
""",
    # Search is off because it would start a worker from a blob, which the CSP forbids.
    "redoc.js": """Redoc.init(
  "openapi.json",
  {disableSearch: true},
  document.getElementById("docs")
);
""",
}

_ASSETS = Path(__file__).with_name("assets")
_LIBRARIES = {
    "swagger-ui-bundle.js": "swagger-ui",
    "swagger-ui-bundle.js.LICENSE.txt": "swagger-ui",
    "swagger-ui.css": "swagger-ui",
    "redoc.standalone.js": "redoc",
    "redoc.standalone.js.LICENSE.txt": "redoc",
}

_TYPES = {"js": "text/javascript", "css": "text/css", "txt": "text/plain"}

# Redoc would fetch a picture from another host; replace it with an empty one.
_OUTSIDE = b"https://cdn.redoc.ly/redoc/logo-mini.svg"
_EMPTY = b"data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="


def init_app(app: Flask, api: Api) -> None:
    """Register the pages. Call this after registering all blueprints of the API."""
    blueprint = Blueprint("docs", __name__)
    document = functools.cache(openapi.document)  # it never changes once the app is built

    @blueprint.get("/v1/openapi.json")
    @public
    def openapi_json() -> ResponseReturnValue:
        here = request.script_root or "/"
        servers = [{"url": context.settings().public_url}, {"url": here}]
        return jsonify(document(api, app) | {"servers": servers})

    @blueprint.get("/v1/docs")
    @public
    def swagger_ui() -> Response:
        style = '<link rel="stylesheet" href="docs/assets/swagger-ui.css">'
        return _page("swagger-ui-bundle.js", "swagger.js", style)

    @blueprint.get("/v1/redoc")
    @public
    def redoc() -> Response:
        return _page("redoc.standalone.js", "redoc.js", "")

    @blueprint.get("/v1/docs/assets/<name>")
    @public
    def asset(name: str) -> Response:
        if name not in _SCRIPTS and name not in _LIBRARIES:
            abort(404)
        kind = _TYPES[name.rpartition(".")[2]]
        headers = {"Cache-Control": "public, max-age=86400"}
        return Response(_asset(name), content_type=f"{kind}; charset=utf-8", headers=headers)

    app.register_blueprint(blueprint)


def _asset(name: str) -> bytes:
    if name in _SCRIPTS:
        return _SCRIPTS[name].encode()
    return (_ASSETS / _LIBRARIES[name] / name).read_bytes().replace(_OUTSIDE, _EMPTY)


def _page(library: str, start: str, style: str) -> Response:
    title = escape(context.settings().service_name)
    html = _PAGE.format(title=title, style=style, library=library, start=start)
    return Response(html, headers={"Content-Security-Policy": _CSP})
