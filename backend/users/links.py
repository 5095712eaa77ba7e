"""Links in mail, which let a user set a password or confirm an address.

A link is signed and holds the user's epoch for its kind. Requesting a new link or using one raises
the epoch, so only the newest link works, and only once. The link itself is made, and its lifetime
starts, when the mail is sent; until then only the epoch is stored.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from .. import services
from ..core.errors import InvalidToken
from ..crypto.keyring import EMAIL_LINK, PASSWORD_LINK
from ..db.database import lock
from ..mail import mailer
from .models import User

_EPOCHS = {PASSWORD_LINK: User.password_link_epoch, EMAIL_LINK: User.email_link_epoch}

# For each template with a link: its kind, its lifetime, and that lifetime in words.
_LINKS = {
    "invitation": (PASSWORD_LINK, timedelta(days=7), "7 days"),
    "reset": (PASSWORD_LINK, timedelta(minutes=30), "30 minutes"),
    "email_confirm": (EMAIL_LINK, timedelta(hours=24), "24 hours"),
}


def reaches(user: User) -> bool:
    """Return whether a link to set a password can be mailed to the user and would work."""
    return mailer.enabled() and user.is_active and user.kind == "person"


def send_password_link(user: User) -> None:
    """Mail a link that sets a password: an invitation if the user has none yet."""
    template = "invitation" if user.password_hash is None else "reset"
    mailer.send_to(user, template, epoch=_next_epoch(PASSWORD_LINK, user.id))


def send_email_link(user: User) -> None:
    """Mail a link that confirms the user's pending address, to that address."""
    mailer.send(
        user.pending_email,
        "email_confirm",
        user_id=user.id,
        username=user.username,
        new_email=user.pending_email,
        epoch=_next_epoch(EMAIL_LINK, user.id),
    )


def complete(template: str, user_id: UUID | None, values: dict[str, Any]) -> dict[str, Any] | None:
    """Return the values of a mail being sent, with its link; None if the link would not work."""
    if user_id is None or "epoch" not in values:
        return values
    kind, lifetime, valid_for = _LINKS[template]
    epoch = values.pop("epoch")
    if not User.select().where(_current(kind, user_id, epoch)).exists():
        return None
    token = services.current().keyring.sign_for(kind, user_id, epoch, lifetime)
    return {**values, "link": mailer.link(token), "valid_for": valid_for}


def holder(kind: str, token: str) -> User:
    """Return the active user whose current link of this kind is `token`, locked.

    Raises InvalidToken if there is none.
    """
    user_id, epoch = services.current().keyring.read_for(kind, token)
    for user in lock(User.select().where(_current(kind, user_id, epoch))):
        return user
    raise InvalidToken


def _current(kind: str, user_id: UUID, epoch: int) -> Any:
    """Build the condition that this epoch is the user's newest of this kind, and unused."""
    return (User.id == user_id) & (_EPOCHS[kind] == epoch) & User.is_active


def _next_epoch(kind: str, user_id: UUID) -> int:
    """Void the user's links of this kind, and return the epoch of the next one."""
    column = _EPOCHS[kind]
    [row] = User.update({column: column + 1}).where(User.id == user_id).returning(column).execute()
    return int(getattr(row, column.name))
