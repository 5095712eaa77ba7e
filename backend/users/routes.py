"""/v1/users: accounts, for administrators."""

from typing import Any
from uuid import UUID

from ..web.access import actor, admin
from ..web.api import Blueprint, page, page_of
from . import service
from .models import User
from .schemas import ChangeUserSchema, UserQuery, UserSchema

blp = Blueprint("users", __name__, url_prefix="/users", description="Accounts, for administrators")


@blp.route("")
@admin("users:read")
@blp.arguments(UserQuery, location="query")
@blp.response(200, page_of(UserSchema))
def list_users(query: dict[str, Any]) -> dict[str, Any]:
    """List accounts, newest first"""
    return page(service.list_users(actor(), **query))


@blp.route("/<id:user_id>")
@admin("users:read")
@blp.response(200, UserSchema)
def get_user(user_id: UUID) -> User:
    """Get an account"""
    return service.get(actor(), user_id)


@blp.route("/<id:user_id>", methods=["PATCH"])
@admin("users:write")
@blp.arguments(ChangeUserSchema)
@blp.response(200, UserSchema)
@blp.fails("session_required", "username_taken", "email_taken", "last_admin")
def change_user(changes: dict[str, Any], user_id: UUID) -> User:
    """Change an account; disabling it ends its sessions for good

    You cannot change your own e-mail address here: use `PATCH /v1/auth/me`.
    """
    return service.change(actor(), user_id, **changes)


@blp.route("/<id:user_id>/sessions", methods=["DELETE"])
@admin("users:write")
@blp.response(204)
@blp.fails("session_required")
def end_sessions(user_id: UUID) -> None:
    """End all sessions of another account

    To end your own, use `POST /v1/auth/logout-all`.
    """
    service.end_sessions_of(actor(), user_id)


@blp.route("/<id:user_id>/password-reset", methods=["POST"])
@admin("users:write")
@blp.response(202)
@blp.fails("session_required", "conflict")
def send_password_link(user_id: UUID) -> None:
    """Mail another user a link to set a password"""
    service.send_password_link(actor(), user_id)


@blp.route("/<id:user_id>", methods=["DELETE"])
@admin("users:write")
@blp.response(204)
@blp.fails("session_required", "last_admin")
def delete_user(user_id: UUID) -> None:
    """Delete another account with its sessions and keys"""
    service.delete(actor(), user_id)
