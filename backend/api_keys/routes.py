"""/v1/api-keys: creating, changing, revoking and verifying API keys."""

from typing import Any
from uuid import UUID

from flask import url_for

from ..web.access import actor, admin, public, session_or_key
from ..web.api import Blueprint, page, page_of
from . import answers, queries, revocation, rotation, service
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
)
from .verification_schemas import ExplainSchema, VerifiedSchema, VerifySchema

blp = Blueprint("api_keys", __name__, url_prefix="/api-keys", description="API keys")


@blp.route("", methods=["POST"])
@session_or_key("keys:write")
@blp.arguments(CreateKeySchema)
@blp.response(201, NewApiKeySchema)
@blp.fails("limit_reached", "forbidden", "insufficient_scope", "not_found")
def create_key(wanted: dict[str, Any]) -> tuple[ApiKey, int, dict[str, str]]:
    """Create an API key

    The answer contains the key's text, which is never shown again. A key made with another key
    cannot exceed it in scopes, addresses, lifetime, rate limit or quota.
    """
    key = service.issue(actor(), **wanted)
    return key, 201, {"Location": url_for("api_keys.get_key", key_id=key.id)}


@blp.route("")
@session_or_key("keys:read")
@blp.arguments(KeyQuery, location="query")
@blp.response(200, page_of(ApiKeySchema))
@blp.fails("forbidden")
def list_keys(query: dict[str, Any]) -> dict[str, Any]:
    """List API keys, newest first

    Returns a page of your own keys. An administrator's session can list those of another user, or
    of all, with `owner_id`. A key sees itself and the keys whose scopes are within its own.
    """
    return page(queries.list_keys(actor(), **query))


@blp.route("/<id:key_id>")
@session_or_key("keys:read")
@blp.response(200, ApiKeySchema)
def get_key(key_id: UUID) -> ApiKey:
    """Get an API key

    The answer does not contain the key's text, which was shown once, when the key was created.
    """
    return queries.get(actor(), key_id)


@blp.route("/<id:key_id>", methods=["PATCH"])
@session_or_key("keys:write")
@blp.arguments(ChangeKeySchema)
@blp.response(200, ApiKeySchema)
@blp.fails("forbidden", "insufficient_scope", "session_required", "conflict")
def change_key(changes: dict[str, Any], key_id: UUID) -> ApiKey:
    """Change an API key

    Members that you do not send stay unchanged, including those of `rate_limit` and `quota`. A
    revoked key cannot be changed. Members that `locked_by_admin` names can only be narrowed, except
    by an administrator.
    """
    return service.change(actor(), key_id, **changes)


@blp.route("/<id:key_id>", methods=["DELETE"])
@session_or_key("keys:write")
@blp.arguments(DeleteQuery, location="query")
@blp.response(204)
@blp.fails("session_required", "conflict")
def delete_key(query: dict[str, bool], key_id: UUID) -> None:
    """Delete an API key

    Removes the key and its secrets. If the key has made others that are not revoked, the answer is
    `conflict`, unless you delete those too with `cascade=true`.
    """
    revocation.delete(actor(), key_id, **query)


@blp.route("/<id:key_id>/revoke", methods=["POST"])
@session_or_key("keys:write")
@blp.arguments(CascadeSchema, required=False)
@blp.response(200, ApiKeySchema)
def revoke_key(wanted: dict[str, bool], key_id: UUID) -> ApiKey:
    """Revoke an API key permanently

    The key is never accepted again; revoking it twice changes nothing. Keys that were made with it
    are refused too, but keep their own status unless you revoke them with `cascade`.
    """
    return revocation.revoke(actor(), key_id, **wanted)


@blp.route("/<id:key_id>/rotate", methods=["POST"])
@session_or_key("keys:write")
@blp.arguments(RotateKeySchema, required=False)
@blp.response(200, NewApiKeySchema)
@blp.fails("forbidden", "insufficient_scope", "session_required", "conflict")
def rotate_key(wanted: dict[str, int], key_id: UUID) -> ApiKey:
    """Give an API key a new secret

    The answer contains the key's new text, which is never shown again. The old text works until the
    new one is first used, and for `grace_seconds` after that. Rotating again replaces a new secret
    that has not been used yet.
    """
    return rotation.rotate(actor(), key_id, **wanted)


@blp.route("/revoke", methods=["POST"])
@public
@blp.arguments(RevokeKeySchema)
@blp.response(204)
def revoke_held_key(body: dict[str, str]) -> None:
    """Revoke an API key whose text you have

    Use this if you find a leaked key; you do not have to sign in. It revokes the key and all keys
    made with it, and notifies the owner by e-mail. The answer is the same if there is no such key.
    """
    revocation.revoke_by_possession(body["key"])


@blp.route("/verify", methods=["POST"])
@admin("keys:verify")
@blp.arguments(VerifySchema)
@blp.response(200, VerifiedSchema)
def verify_key(question: dict[str, Any]) -> dict[str, Any]:
    """Verify an API key

    The status is always 200: read the decision from `valid` and `code`. If the key is valid, this
    counts as a use, unless `cost` is 0 or `explain` is true.
    """
    return answers.verify(actor(), **question)


@blp.route("/<id:key_id>/explain", methods=["POST"])
@session_or_key("keys:read")
@blp.arguments(ExplainSchema, required=False)
@blp.response(200, VerifiedSchema)
def explain_key(question: dict[str, Any], key_id: UUID) -> dict[str, Any]:
    """Explain how an API key would be verified

    Runs every check and returns the outcome of each in `checks`. This does not count as a use.
    """
    return answers.explain(actor(), key_id, **question)
