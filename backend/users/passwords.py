"""Hash, set and replace passwords."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from .. import services
from ..audit import service as audit
from ..core import clock, context
from ..core.errors import Conflict, Invalid, Unavailable
from ..core.identity import Identity
from ..crypto import passwords
from ..db.database import current
from ..mail import mailer
from .models import User


def hash_password(password: str, field: str, username: str, email: str | None, by: UUID) -> str:
    """Return the hash to store; raise Invalid, naming `field`, if the password is too weak.

    Takes a quarter of a second in a hashing slot of the user `by`. Never call it in a transaction.
    """
    require_strong(password, field, username, email)
    return services.current().password_hasher.hash(password, by)


def require_strong(password: str, field: str, username: str, email: str | None) -> None:
    """Raise Invalid, naming `field`, if the password is too weak for a user with these names."""
    names = [username, *([email.rpartition("@")[0]] if email else [])]
    passwords.require_strong(password, field, names, context.settings())


def set_password(actor: Identity, user: User, password: str) -> None:
    """Set a new password for the user and end all their sessions. For the console."""
    if user.kind == "service":
        raise Invalid("password", "A service account has no password.")
    hashed = hash_password(password, "password", user.username, user.email, actor.user_id)
    with current.atomic():
        if not replace_password(user, hashed, same_password(user)):
            raise Conflict("conflict", "The password was changed by another request. Try again.")
        audit.record(actor, "password.change", target=("user", user.id))


def same_password(user: User) -> Any:
    """Build the condition that the password has not changed since `user` was read."""
    old = user.password_hash
    return User.password_hash.is_null() if old is None else User.password_hash == old


def replace_password(user: User, new: str, unchanged: Any, api_keys: int | None = None) -> bool:
    """Store the hash `new`, void links and end all sessions; return False unless `unchanged`.

    The user is notified by mail, with the number of `api_keys` that stay valid. Call it in a
    transaction.
    """
    changed = User.update(
        password_hash=new,
        session_epoch=User.session_epoch + 1,
        password_link_epoch=User.password_link_epoch + 1,
        # Someone who knew the old password may have requested that address.
        email_link_epoch=User.email_link_epoch + 1,
        pending_email=None,
        updated_at=clock.now(),
    ).where((User.id == user.id) & unchanged)
    if not changed.execute():
        return False
    if user.email:
        mailer.send_to(user, "password_changed", api_keys=api_keys)
    return True


def rehash(user: User, password: str) -> None:
    """Hash the same password again at the current cost, unless it has changed meanwhile."""
    try:
        new = services.current().password_hasher.hash(password, user.id)
    except Unavailable:
        return  # no free hashing slot; a later sign-in does it
    unchanged = (User.id == user.id) & (User.password_hash == user.password_hash)
    if User.update(password_hash=new).where(unchanged).execute():
        user.password_hash = new
