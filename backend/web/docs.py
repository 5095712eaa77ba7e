"""The documentation, from this process alone: the OpenAPI document, Swagger UI and Redoc.

All addresses in the pages are relative, so that they are right under any prefix. The pages' CSP
lets them load from here only; their libraries set styles from scripts, which takes unsafe-inline
for styles and nothing else.
"""

from __future__ import annotations

import functools
from importlib.resources import files

from flask import Blueprint, Flask, Response, abort, jsonify, request
from flask.typing import ResponseReturnValue

from . import openapi
from .api import Api
from .guard import public

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
    "swagger.js": """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#docs",
  deepLinking: true,
  displayOperationId: false,
  validatorUrl: null,
});
""",
    # Without its search, which would start a worker from a blob.
    "redoc.js": """Redoc.init(
  "openapi.json",
  {disableSearch: true},
  document.getElementById("docs")
);
""",
}

_LIBRARIES = {
    "swagger-ui-bundle.js": "swagger_ui",
    "swagger-ui.css": "swagger_ui",
    "redoc.standalone.js": "redoc",
    "logo-mini.svg": "redoc",
}

_TYPES = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}

# The one picture that Redoc would fetch from elsewhere.
_OUTSIDE = b"https://cdn.redoc.ly/redoc/logo-mini.svg"
_INSIDE = b"docs/assets/logo-mini.svg"


def init_app(app: Flask, api: Api) -> None:
    """Register the pages. To be called after all blueprints of the API."""
    blueprint = Blueprint("docs", __name__)
    document = functools.cache(openapi.document)  # it never changes once the app is built

    @blueprint.get("/v1/openapi.json")
    @public
    def openapi_json() -> ResponseReturnValue:
        return jsonify(document(api, app) | {"servers": [{"url": request.script_root or "/"}]})

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
    path = files("openapi_ui_bundles").joinpath(_LIBRARIES[name], "vendor", name)
    return path.read_bytes().replace(_OUTSIDE, _INSIDE)


def _page(library: str, start: str, style: str) -> Response:
    html = _PAGE.format(title=openapi.TITLE, style=style, library=library, start=start)
    return Response(html, headers={"Content-Security-Policy": _CSP})
