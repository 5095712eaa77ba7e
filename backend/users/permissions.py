"""Decide who may change an account, and protect the last administrator."""

from __future__ import annotations

from uuid import UUID

import peewee as pw

from ..core.errors import Conflict, Forbidden, NotFound
from ..core.identity import Identity
from ..db.database import lock
from .models import User


def admins() -> pw.ModelSelect:
    """Query the working administrators, by id: active persons with the role who can sign in.

    A password is the only way to sign in; add each new way to this condition.
    """
    return (
        User.select()
        .where(
            (User.role == "admin")
            & (User.kind == "person")
            & User.is_active
            & User.password_hash.is_null(False)
        )
        .order_by(User.id)
    )


def for_update(
    actor: Identity, user_id: UUID, *, loses_admin: bool = False, not_own: bool = False
) -> User:
    """Return the user's row, locked, if the actor may change it.

    Raises Conflict if `loses_admin` would leave no administrator, and Forbidden if `not_own` is set
    and the row is the actor's: otherwise, a stolen session would be enough to take over the
    account, for which /v1/auth requires the password.

    All administrators are locked first, always in the same order: of two who demote each other, the
    second waits, and then sees that the first is the last one.
    """
    remaining = lock(admins()) if loses_admin else []
    rows = lock(User.select().where(User.id == user_id))
    if not rows:
        raise NotFound
    if rows[0].role == "admin":
        require_in_person(actor)
    if [admin.id for admin in remaining] == [user_id]:
        raise Conflict("last_admin", "The last administrator cannot be removed.")
    if not_own and actor.user_id == user_id:
        raise Forbidden("forbidden", "You cannot do this to your own account here.")
    return rows[0]


def require_in_person(actor: Identity) -> None:
    """Raise Forbidden unless the actor is an administrator in person, not one of their keys."""
    if not actor.is_admin_in_person:
        raise Forbidden(
            "session_required", "Only an administrator's session can manage administrators."
        )
