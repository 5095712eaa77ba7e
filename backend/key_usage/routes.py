"""/v1/api-keys/{key_id}/usage: how often a key was used and refused."""

from typing import Any
from uuid import UUID

from ..web.access import actor, session_or_key
from ..web.api import Blueprint
from . import service
from .schemas import UsageQuery, UsageSchema

blp = Blueprint(
    "key_usage",
    __name__,
    url_prefix="/api-keys",
    description="How often API keys are used and refused",
)


@blp.route("/<id:key_id>/usage")
@session_or_key("keys:read")
@blp.doc(operationId="api_keys_get_usage")
@blp.arguments(UsageQuery, location="query")
@blp.response(200, UsageSchema)
def get_usage(query: dict[str, Any], key_id: UUID) -> dict[str, Any]:
    """Count the uses and refusals of an API key by hour or day

    Returns each hour or day in which the key was presented, oldest first. Counts are kept for 400
    days.
    """
    return {"items": service.list_usage(actor(), key_id, **query)}
