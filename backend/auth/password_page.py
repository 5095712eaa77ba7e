"""The page that links in e-mails open, to set a password or confirm an e-mail address.

Skip it on a first reading. The token comes after the # in the link, so that only the page's script
sees it. The script sends it when the user presses a button. The text of the page is
`config/password.html`.
"""

from __future__ import annotations

import base64
import hashlib
import re
from html import escape

from flask import Blueprint, Flask, Response

from ..core.paths import DATA
from ..web.access import public


def init_app(app: Flask) -> None:
    """Register the page, with a CSP that allows only the code in it."""
    name = app.extensions["backend"].settings.service_name
    html = (DATA / "config" / "password.html").read_text("utf-8")
    html = html.replace("{{ service }}", escape(name))
    policy = (
        f"default-src 'none'; script-src {_digests(html, 'script')};"
        f" style-src {_digests(html, 'style')}; img-src data:; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
        " require-trusted-types-for 'script'; trusted-types 'none'"
    )
    blueprint = Blueprint("password_page", __name__)

    @blueprint.get("/password")
    @public
    def page() -> Response:
        return Response(html, headers={"Content-Security-Policy": policy})

    app.register_blueprint(blueprint)


def _digests(html: str, element: str) -> str:
    """Return the CSP sources that allow what these elements contain (CSP Level 3 section 2.3.1)."""
    texts = re.findall(f"<{element}>(.*?)</{element}>", html, re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()) for text in texts)
    return " ".join(f"'sha256-{digest.decode()}'" for digest in digests) or "'none'"
