"""Verification, for services that are shown a key."""

from typing import Any
from uuid import UUID

from ..web.api import Blueprint
from ..web.guard import actor, admin, session_or_key
from . import service
from .schemas import ExplainSchema, VerifiedSchema, VerifySchema

blp = Blueprint(
    "gateway",
    __name__,
    url_prefix="",
    description="Verification, for services that are shown a key",
)


@blp.route("/api-keys/verify", methods=["POST"])
@admin("keys:verify")
@blp.arguments(VerifySchema)
@blp.response(200, VerifiedSchema)
def verify_key(asked: dict[str, Any]) -> dict[str, Any]:
    """Verify an API key; the answer is 200 whatever is decided"""
    return service.verify(actor(), **asked)


@blp.route("/api-keys/<id:key_id>/explain", methods=["POST"])
@session_or_key("keys:read")
@blp.arguments(ExplainSchema, required=False)
@blp.response(200, VerifiedSchema)
def explain_key(asked: dict[str, Any], key_id: UUID) -> dict[str, Any]:
    """Tell what would be decided of an API key, check by check; it is no use of the key"""
    return service.explain(actor(), key_id, **asked)
