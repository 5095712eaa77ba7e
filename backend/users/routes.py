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
    """List accounts, newest first

    Returns a page of the accounts that match all filters.
    """
    return page(service.list_users(actor(), **query))


@blp.route("/<id:user_id>")
@admin("users:read")
@blp.response(200, UserSchema)
def get_user(user_id: UUID) -> User:
    """Get an account

    Returns the account, whether it is active or not.
    """
    return service.get(actor(), user_id)


@blp.route("/<id:user_id>", methods=["PATCH"])
@admin("users:write")
@blp.arguments(ChangeUserSchema)
@blp.response(200, UserSchema)
@blp.fails("session_required", "username_taken", "email_taken", "last_admin")
def change_user(changes: dict[str, Any], user_id: UUID) -> User:
    """Change an account

    Members that you do not send stay unchanged. Disabling an account ends its sessions
    permanently, and its API keys are refused until you enable it again. You cannot change your own
    e-mail address here: use `PATCH /v1/auth/me`.
    """
    return service.change(actor(), user_id, **changes)


@blp.route("/<id:user_id>/sessions", methods=["DELETE"])
@admin("users:write")
@blp.response(204)
@blp.fails("session_required")
def end_sessions(user_id: UUID) -> None:
    """End all sessions of another account

    The user must sign in again; their API keys keep working. To end your own sessions, use
    `POST /v1/auth/logout-all`.
    """
    service.end_sessions_of(actor(), user_id)


@blp.route("/<id:user_id>/password-reset", methods=["POST"])
@admin("users:write")
@blp.response(202)
@blp.fails("session_required", "conflict")
def send_password_link(user_id: UUID) -> None:
    """Mail another user a link to set a password

    The link replaces earlier ones; the current password works until it is used. The answer is
    `conflict` for a service account or a disabled one, or if mail is not configured.
    """
    service.send_password_link(actor(), user_id)


@blp.route("/<id:user_id>", methods=["DELETE"])
@admin("users:write")
@blp.response(204)
@blp.fails("session_required", "last_admin")
def delete_user(user_id: UUID) -> None:
    """Delete another account with its sessions and keys

    This cannot be undone. You cannot delete your own account, or the last administrator.
    """
    service.delete(actor(), user_id)
