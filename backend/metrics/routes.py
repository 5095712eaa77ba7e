"""The metrics endpoint for Prometheus."""

from __future__ import annotations

import hmac

from flask import Flask, Response, request
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from .. import services
from ..core.errors import INVALID_TOKEN, Failure, InvalidCredentials
from ..web.access import public
from ..web.api import Api, Blueprint
from ..web.headers import bearer_of

blp = Blueprint("metrics", __name__, description="Metrics for Prometheus")

_EXAMPLE = """# HELP backend_verifications_total Decisions about API keys by their code
# TYPE backend_verifications_total counter
backend_verifications_total{code="valid"} 1027.0
"""


def init_app(app: Flask, api: Api) -> None:
    """Register the endpoint if METRICS_ENABLED."""
    if app.extensions["backend"].settings.metrics_enabled:
        api.register_blueprint(blp)


@blp.route("/metrics")
@public
@blp.fails("unauthenticated", "invalid_credentials")
@blp.alt_response(
    200,
    schema={"type": "string"},
    content_type="text/plain",
    description="The text format of Prometheus, version 0.0.4.",
    example=_EXAMPLE,
    success=True,
)
def metrics() -> Response:
    """Get metrics for Prometheus

    If METRICS_TOKEN is set, send it as a bearer token.
    """
    service = services.current()
    if service.settings.metrics_token:
        _require(service.settings.metrics_token)
    return Response(service.metrics.text(service), content_type=CONTENT_TYPE_PLAIN_0_0_4)


def _require(token: str) -> None:
    """Raise Failure unless the request carries `token`."""
    sent = bearer_of(request.environ)
    if not sent:
        raise Failure("unauthenticated", "No credential was sent.")
    # Compare the bytes as sent: WSGI decodes headers as Latin-1.
    if not hmac.compare_digest(sent.encode("latin-1"), token.encode()):
        raise InvalidCredentials(challenge=INVALID_TOKEN)
