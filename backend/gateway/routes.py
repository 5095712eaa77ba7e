"""Verification, for services that are shown a key or a token."""

from typing import Any
from uuid import UUID

from ..web.access import actor, admin, as_client, public, session_or_key
from ..web.api import Blueprint
from . import service, tokens
from .schemas import (
    ExplainSchema,
    IntrospectionSchema,
    PresentedTokenSchema,
    VerifiedSchema,
    VerifySchema,
)

blp = Blueprint(
    "gateway",
    __name__,
    url_prefix="",
    description="Verification, for services that are shown a key or a token",
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


@blp.route("/auth/introspect", methods=["POST"])
@as_client
@admin("tokens:introspect")
@blp.arguments(PresentedTokenSchema, location="form")
@blp.response(200, IntrospectionSchema)
def introspect_token(asked: dict[str, str]) -> dict[str, Any]:
    """Tell what a token or an API key is, and whether it is active (RFC 7662)"""
    return tokens.introspect(actor(), asked["token"])


@blp.route("/auth/revoke", methods=["POST"])
@public
@blp.arguments(PresentedTokenSchema, location="form")
@blp.response(200)
def revoke_token(held: dict[str, str]) -> None:
    """End the session of the token that one holds, or revoke the API key (RFC 7009)"""
    tokens.revoke(held["token"])
