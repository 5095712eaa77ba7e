"""Usernames that users gave up, held so that a stranger is not mistaken for the former holder.

Skip it on a first reading.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from ..core import clock, context
from ..core.errors import Conflict
from ..db.database import delete_some
from .models import HeldUsername, User


def hold(user: User) -> None:
    """Hold the current name of the user, who is giving it up."""
    given_up = {HeldUsername.user_id: user.id, HeldUsername.created_at: clock.now()}
    HeldUsername.insert(
        {HeldUsername.username_folded: user.username_folded, **given_up}
    ).on_conflict(conflict_target=[HeldUsername.username_folded], update=given_up).execute()


def require_not_held(user: User) -> None:
    """Raise Conflict if the name that the user has just stored is held for another.

    It is stored first, so that the unique index waits for a transaction that gives the name up.
    """
    held = (
        (HeldUsername.username_folded == user.username_folded)
        & (HeldUsername.user_id != user.id)
        & (HeldUsername.created_at > _since())
    )
    if HeldUsername.select().where(held).exists():
        raise taken()


def taken() -> Conflict:
    """Return the error for a name that another account has, or had."""
    return Conflict("username_taken", "That username is taken.")


def prune(limit: int) -> int:
    """Delete at most `limit` names that are no longer held; return how many."""
    return delete_some(HeldUsername.select().where(HeldUsername.created_at <= _since()), limit)


def _since() -> datetime:
    return clock.now() - timedelta(days=context.settings().username_hold_days)
