"""The links that mail holds: by them somebody sets a password, or confirms an address.

A link is signed and holds the user's epoch of its kind. Sending a newer one and using one raise
the epoch, so that each works once and the newest alone; nothing has to be kept.
"""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from ..core import context, mail
from ..core.database import lock
from ..core.errors import InvalidLink
from ..core.tokens import EMAIL_LINK, PASSWORD_LINK
from .models import User

_EPOCHS = {PASSWORD_LINK: User.password_link_epoch, EMAIL_LINK: User.email_link_epoch}

RESET_FOR = timedelta(minutes=30)
INVITATION_FOR = timedelta(days=7)
CONFIRMATION_FOR = timedelta(hours=24)


def reaches(user: User) -> bool:
    """True if a link to set a password can be mailed to the user, and would be good."""
    return mail.enabled() and user.is_active and user.kind == "person"


def send_password_link(user: User) -> None:
    """Mail a link that sets a password: an invitation to those who have none yet."""
    if user.password_hash is None:
        link = _new(PASSWORD_LINK, user.id, INVITATION_FOR)
        mail.send(user.email, "invitation", username=user.username, link=link, valid_for="7 days")
    else:
        link = _new(PASSWORD_LINK, user.id, RESET_FOR)
        mail.send(user.email, "reset", username=user.username, link=link, valid_for="30 minutes")


def send_email_link(user: User) -> None:
    """Mail a link that confirms the user's pending address, to that address."""
    mail.send(
        user.pending_email,
        "email_confirm",
        username=user.username,
        new_email=user.pending_email,
        link=_new(EMAIL_LINK, user.id, CONFIRMATION_FOR),
        valid_for="24 hours",
    )


def holder(kind: str, token: str) -> User:
    """The active user whose present link of this kind `token` is, locked; else InvalidLink."""
    user_id, epoch = context.service().keyring.read_for(kind, token)
    good = (User.id == user_id) & (_EPOCHS[kind] == epoch) & User.is_active
    for user in lock(User.select().where(good)):
        return user
    raise InvalidLink


def _new(kind: str, user_id: UUID, lifetime: timedelta) -> str:
    column = _EPOCHS[kind]
    [row] = User.update({column: column + 1}).where(User.id == user_id).returning(column).execute()
    token = context.service().keyring.sign_for(kind, user_id, getattr(row, column.name), lifetime)
    return mail.link(token)
