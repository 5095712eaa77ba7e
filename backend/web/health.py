"""What the service says of itself: its name, that it lives, that it is ready."""

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
from .api import Blueprint, ResponseSchema

log = logging.getLogger(__name__)

blp = Blueprint("service", __name__, description="The service itself")

READY_SECONDS = 0.5


class RootSchema(ResponseSchema):
    """Where to go from here."""

    name = fields.String(metadata={"example": "backend"})
    version = fields.String(metadata={"example": "0.1.0"})
    links = fields.Dict(
        keys=fields.String(),
        values=fields.String(),
        metadata={"example": {"healthz": "/healthz", "docs": "/v1/docs"}},
    )


class HealthSchema(ResponseSchema):
    """A state in one word."""

    status = fields.String(metadata={"example": "ok"})


@blp.route("/")
@public
@blp.response(200, RootSchema)
def root() -> dict[str, Any]:
    """Name, version and links of the service"""
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
    """The process lives"""
    return {"status": "ok"}


@blp.route("/readyz")
@public
@blp.response(200, HealthSchema)
def readyz() -> dict[str, str]:
    """The process can serve: its database answers and all migrations are applied"""
    service = services.current()
    if service.draining.is_set():
        raise Unavailable("Shutting down.")
    if not _database_is_ready(service):
        raise Unavailable("The database does not answer, or migrations are pending.")
    return {"status": "ready"}


def _database_is_ready(service: Services) -> bool:
    """True if the database says within READY_SECONDS that all migrations are applied.

    Asked in a thread of its own, since no timeout of a driver is that short; one at a time, so
    that a frozen database does not gather threads.
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
