"""Change usernames and e-mail addresses, which are unique. A new address must be confirmed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import peewee as pw

from ..audit import service as audit
from ..core import clock
from ..core.email_addresses import fold_email
from ..core.errors import Conflict
from ..core.identity import Identity
from ..crypto.keyring import EMAIL_LINK
from ..db.database import atomic, is_unique_violation
from ..mail import mailer
from . import held_usernames, links, permissions
from .models import User

# Columns that events do not name.
_INTERNAL = {
    "username_folded",
    "email_folded",
    "session_epoch",
    "password_link_epoch",
    "email_link_epoch",
}


def rename(
    actor: Identity, proven: User, *, username: str | None = None, email: str | None = None
) -> User:
    """Rename the actor's own user, and return it; a new address waits until it is confirmed.

    Raises Conflict if the username is taken, or held for another user who gave it up, or if the
    password has changed since it was checked against `proven`. Does not reveal whether another
    account has the address, since the caller could try many.
    """
    with unique():
        return _rename(actor, proven, username, email)


@atomic
def _rename(actor: Identity, proven: User, username: str | None, email: str | None) -> User:
    user = permissions.for_update(actor, actor.user_id)
    if user.password_hash != proven.password_hash:
        raise Conflict("conflict", "The password was changed by another request. Try again.")
    if username:
        set_names(user, username=username)
    if email:
        user.pending_email = email
        user.email_link_epoch += 1
        if fold_email(email) == user.email_folded:  # only spelled differently
            user.email, user.pending_email = email, None
    save_changes(actor, user)
    if username:
        held_usernames.require_not_held(user)
    if email and user.pending_email:
        links.send_email_link(user)
    return user


def confirm_email(token: str) -> User:
    """Make the pending address of the link's user their address, and notify the old one.

    Returns the user. Raises InvalidToken for a bad link, and Conflict if another account has the
    address by now, in which case the link stays valid.
    """
    with unique():
        return _confirm_email(token)


@atomic
def _confirm_email(token: str) -> User:
    user = links.holder(EMAIL_LINK, token)
    set_email(user, user.pending_email)
    user.updated_at = clock.now()
    user.save()
    audit.record(None, "email.change", target=("user", user.id))
    return user


def save_changes(actor: Identity, user: User, **facts: Any) -> None:
    """Store the changes, and record which columns changed, with `facts`."""
    changed = sorted({field.name for field in user.dirty_fields} - _INTERNAL)
    if changed:
        user.updated_at = clock.now()
        user.save()
        audit.record(actor, "user.update", target=("user", user.id), changed=changed, **facts)


def set_email(user: User, email: str | None) -> None:
    """Change the user's address immediately, notify the old one, and void links sent to it."""
    if user.email and email and user.email != email:
        mailer.send_to(user, "email_changed", about=user.email, new_email=email)
    set_names(user, email=email)
    user.pending_email = None
    user.email_link_epoch += 1
    user.password_link_epoch += 1


def set_names(user: User, **names: Any) -> None:
    """Set the username or e-mail address without storing it; hold a username that is given up."""
    if names.get("username"):
        folded = names["username"].lower()
        if user.username_folded not in (None, folded):
            held_usernames.hold(user)
        user.username = names["username"]
        user.username_folded = folded
    if "email" in names:
        user.email = names["email"]
        user.email_folded = fold_email(names["email"]) if names["email"] else None


@contextmanager
def unique() -> Iterator[None]:
    """Turn the violation of a unique index into the Conflict that it means."""
    try:
        yield
    except pw.IntegrityError as error:
        if is_unique_violation(error, "users", "username_folded"):
            raise held_usernames.taken() from None
        if is_unique_violation(error, "users", "email_folded"):
            raise Conflict("email_taken", "That e-mail address is taken.") from None
        raise
