"""/v1/audit-events: the audit trail, for administrators. Read only."""

from typing import Any

from ..web.access import actor, admin
from ..web.api import Blueprint, page, page_of
from . import service
from .schemas import AuditEventSchema, AuditQuery

blp = Blueprint("audit", __name__, url_prefix="/audit-events", description="The audit trail")


@blp.route("")
@admin("audit:read")
@blp.arguments(AuditQuery, location="query")
@blp.response(200, page_of(AuditEventSchema))
def list_events(query: dict[str, Any]) -> dict[str, Any]:
    """List audit events, newest first

    Returns a page of the events that match all filters. The API cannot change or delete events.
    """
    return page(service.list_events(actor(), **query))
