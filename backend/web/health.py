"""The front page, and the checks of whether the service is alive and ready."""

from __future__ import annotations

import contextvars
import logging
import threading
from typing import Any

from flask import url_for
from marshmallow import fields

from .. import __version__, services
from ..core import context
from ..core.errors import Unavailable
from ..db import migrations
from ..db.database import release
from ..db.errors import explain
from ..services import Services
from .access import public
from .api import Blueprint
from .fields import ResponseSchema, about

log = logging.getLogger(__name__)

blp = Blueprint("service", __name__, description="The service itself")

READY_SECONDS = 0.5


class RootSchema(ResponseSchema):
    """The service and its links."""

    name = fields.String(metadata=about("Always `backend`.", "backend"))
    version = fields.String(metadata=about("The version of the service.", "0.1.0"))
    links = fields.Dict(
        keys=fields.String(),
        values=fields.String(),
        metadata=about(
            "The paths of the enabled endpoints, by name.",
            {"healthz": "/healthz", "docs": "/v1/docs"},
        ),
    )


class HealthSchema(ResponseSchema):
    """The state of the service in one word."""

    status = fields.String(metadata=about("`ok` for `/healthz`, `ready` for `/readyz`.", "ok"))


@blp.route("/")
@public
@blp.response(200, RootSchema)
def root() -> dict[str, Any]:
    """Get the name, version and links of the service

    `links` contains only the endpoints that are enabled.
    """
    links = {"healthz": url_for("service.healthz"), "readyz": url_for("service.readyz")}
    if services.current().access_tokens.public_keys:
        links |= {"jwks": url_for("jwks.public_keys")}
    if context.settings().docs_enabled:
        links |= {
            "openapi": url_for("docs.openapi_json"),
            "docs": url_for("docs.swagger_ui"),
            "redoc": url_for("docs.redoc"),
        }
    return {"name": "backend", "version": __version__, "links": links}


@blp.route("/healthz")
@public
@blp.response(200, HealthSchema)
def healthz() -> dict[str, str]:
    """Check that the process is alive

    Always returns 200, without using the database.
    """
    return {"status": "ok"}


@blp.route("/readyz")
@public
@blp.response(200, HealthSchema)
def readyz() -> dict[str, str]:
    """Check that the process can serve requests

    Returns 200 if the database answers and all migrations are applied, and 503 otherwise or while
    the process is shutting down.
    """
    service = services.current()
    if service.draining.is_set():
        raise Unavailable("The service is shutting down.")
    if not _database_is_ready(service):
        raise Unavailable("The database does not answer, or migrations are pending.")
    return {"status": "ready"}


def _database_is_ready(service: Services) -> bool:
    """Return True if the database reports within READY_SECONDS that all migrations are applied.

    This asks in a separate thread, because no driver has such a short timeout. Only one such thread
    runs at a time, so that threads do not pile up while a database hangs.
    """
    verdict: list[bool] = []

    def ask() -> None:
        try:
            pending = migrations.pending(service.database)
            verdict.append(not pending)
            if pending:
                log.warning("not ready: migrations are pending: run `flask db upgrade`")
        except Exception as error:
            log.warning("not ready: %s", explain(error))
        finally:
            release(service.database)
            service.probing.release()

    if not service.probing.acquire(timeout=READY_SECONDS):
        return False
    thread = threading.Thread(target=contextvars.copy_context().run, args=(ask,), daemon=True)
    thread.start()
    thread.join(READY_SECONDS)
    return verdict == [True]
