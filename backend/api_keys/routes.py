"""/v1/api-keys: a user's keys."""

from typing import Any
from uuid import UUID

from flask import url_for

from ..web.access import actor, admin, public, session_or_key
from ..web.api import Blueprint, page, page_of
from . import answers, service, usage
from .models import ApiKey
from .schemas import (
    ApiKeySchema,
    CascadeSchema,
    ChangeKeySchema,
    CreateKeySchema,
    DeleteQuery,
    KeyQuery,
    NewApiKeySchema,
    RevokeKeySchema,
    RotateKeySchema,
    UsageQuery,
    UsageSchema,
)
from .verification_schemas import ExplainSchema, VerifiedSchema, VerifySchema

blp = Blueprint("api_keys", __name__, url_prefix="/api-keys", description="API keys")


@blp.route("", methods=["POST"])
@session_or_key("keys:write")
@blp.arguments(CreateKeySchema)
@blp.response(201, NewApiKeySchema)
@blp.fails("limit_reached", "forbidden", "insufficient_scope", "not_found")
def create_key(wanted: dict[str, Any]) -> tuple[ApiKey, int, dict[str, str]]:
    """Create an API key; its text is in this answer only"""
    key = service.issue(actor(), **wanted)
    return key, 201, {"Location": url_for("api_keys.get_key", key_id=key.id)}


@blp.route("")
@session_or_key("keys:read")
@blp.arguments(KeyQuery, location="query")
@blp.response(200, page_of(ApiKeySchema))
@blp.fails("forbidden")
def list_keys(query: dict[str, Any]) -> dict[str, Any]:
    """List API keys, newest first"""
    return page(service.list_keys(actor(), **query))


@blp.route("/<id:key_id>")
@session_or_key("keys:read")
@blp.response(200, ApiKeySchema)
def get_key(key_id: UUID) -> ApiKey:
    """Get an API key"""
    return service.get(actor(), key_id)


@blp.route("/<id:key_id>", methods=["PATCH"])
@session_or_key("keys:write")
@blp.arguments(ChangeKeySchema)
@blp.response(200, ApiKeySchema)
@blp.fails("forbidden", "insufficient_scope", "session_required", "conflict")
def change_key(changes: dict[str, Any], key_id: UUID) -> ApiKey:
    """Change an API key"""
    return service.change(actor(), key_id, **changes)


@blp.route("/<id:key_id>", methods=["DELETE"])
@session_or_key("keys:write")
@blp.arguments(DeleteQuery, location="query")
@blp.response(204)
@blp.fails("session_required", "conflict")
def delete_key(query: dict[str, bool], key_id: UUID) -> None:
    """Delete an API key; 409 if it has made others that are not revoked, unless they go with it"""
    service.delete(actor(), key_id, **query)


@blp.route("/<id:key_id>/revoke", methods=["POST"])
@session_or_key("keys:write")
@blp.arguments(CascadeSchema, required=False)
@blp.response(200, ApiKeySchema)
def revoke_key(wanted: dict[str, bool], key_id: UUID) -> ApiKey:
    """Revoke an API key, for good"""
    return service.revoke(actor(), key_id, **wanted)


@blp.route("/<id:key_id>/rotate", methods=["POST"])
@session_or_key("keys:write")
@blp.arguments(RotateKeySchema, required=False)
@blp.response(200, NewApiKeySchema)
@blp.fails("forbidden", "insufficient_scope", "session_required", "conflict")
def rotate_key(wanted: dict[str, int], key_id: UUID) -> ApiKey:
    """Give an API key a new secret, which is in this answer only; the old one ends later"""
    return service.rotate(actor(), key_id, **wanted)


@blp.route("/<id:key_id>/usage")
@session_or_key("keys:read")
@blp.arguments(UsageQuery, location="query")
@blp.response(200, UsageSchema)
def get_usage(query: dict[str, Any], key_id: UUID) -> dict[str, Any]:
    """Tell how often an API key was used and refused, by the hour or day"""
    return {"items": usage.list_usage(actor(), key_id, **query)}


@blp.route("/revoke", methods=["POST"])
@public
@blp.arguments(RevokeKeySchema)
@blp.response(204)
def revoke_held_key(body: dict[str, str]) -> None:
    """Revoke an API key that you hold, and all that came of it: for whoever finds a leaked one"""
    service.revoke_by_possession(body["key"])


@blp.route("/verify", methods=["POST"])
@admin("keys:verify")
@blp.arguments(VerifySchema)
@blp.response(200, VerifiedSchema)
def verify_key(asked: dict[str, Any]) -> dict[str, Any]:
    """Verify an API key; the answer is 200 whatever is decided"""
    return answers.verify(actor(), **asked)


@blp.route("/<id:key_id>/explain", methods=["POST"])
@session_or_key("keys:read")
@blp.arguments(ExplainSchema, required=False)
@blp.response(200, VerifiedSchema)
def explain_key(asked: dict[str, Any], key_id: UUID) -> dict[str, Any]:
    """Tell what would be decided of an API key, check by check; it is no use of the key"""
    return answers.explain(actor(), key_id, **asked)
