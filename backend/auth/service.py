"""Sign in, and change your own username, e-mail address and password."""

from __future__ import annotations

import functools
from typing import Any

from .. import services
from ..api_keys import queries as keys
from ..audit import service as audit
from ..core import context
from ..core.email_addresses import fold_email
from ..core.errors import INVALID_TOKEN, Invalid, InvalidCredentials, InvalidToken
from ..core.identity import Identity
from ..core.settings_parsers import Limit
from ..crypto.keyring import PASSWORD_LINK
from ..db.database import atomic, current
from ..mail import mailer
from ..throttling import limits
from ..throttling import service as throttling
from ..users import identifiers, links, passwords
from ..users import service as users
from ..users.models import User
from . import sessions
from .models import Session

RENAMES = Limit(3, 86_400)  # of one account
MAILS = Limit(3, 3600)  # with links, for one account


def login(username: str, password: str) -> dict[str, Any]:
    """Return the tokens of a new session if this is the password of the user called `username`.

    Raises InvalidCredentials, in the same time, for an unknown name, a disabled account and a wrong
    password.
    """
    user = users.find(username)
    with throttling.attempt(user or username, "login"):
        right = throttling.is_password(user or username, password)
        if user is None or not right or not user.is_active:
            raise InvalidCredentials
    if services.current().password_hasher.needs_rehash(user.password_hash):
        passwords.rehash(user, password)
    for require_second_step in services.current().second_steps:
        require_second_step(user)
    return sessions.open_session(user, "login")


def describe(actor: Identity) -> dict[str, Any]:
    """Return the actor's account, and as `auth` their credential: a session or an API key."""
    auth: dict[str, Any] = {"method": actor.method, "scopes": None}
    if actor.scopes is None:
        auth["session_id"] = actor.session_id
    else:
        auth |= {"key_id": actor.key_id, "scopes": sorted(actor.scopes)}
    return {**actor.user._asdict(), "auth": auth}


def change_me(actor: Identity, current_password: str, **changes: str) -> User:
    """Change the actor's username or e-mail address, the latter once confirmed; return the user.

    Raises Forbidden for a wrong password, Conflict if it is changed meanwhile. Only an address that
    is mailed a link counts towards the limit; giving the current address withdraws a pending
    change.
    """
    proven = throttling.require_password(actor, current_password, "user.update")
    email = changes.get("email")
    is_new = email is not None and fold_email(email) != proven.email_folded
    if is_new and not mailer.enabled():
        raise Invalid("email", "Cannot be changed, because mail is not configured.")
    with current.atomic():
        user = identifiers.rename(actor, proven, **changes)
        if user.username != proven.username:
            limits.spend(f"usernames for {user.id}", RENAMES)
        if is_new:  # last, since a refused request mails nothing
            limits.spend(f"addresses for {user.id}", MAILS)
    return user


def change_password(actor: Identity, current_password: str, new_password: str) -> None:
    """Replace the actor's password and end all sessions except the calling one.

    Raises Forbidden for a wrong password, InvalidCredentials if the session ends meanwhile.
    """
    user = actor.user
    passwords.require_strong(new_password, "new_password", user.username, user.email)
    user = throttling.require_password(actor, current_password, "password.change")
    _replace_password(actor, user, services.current().password_hasher.hash(new_password, user.id))


@atomic
def _replace_password(actor: Identity, user: User, new: str) -> None:
    active_keys = keys.count_active(user.id)
    if not passwords.replace_password(user, new, passwords.same_password(user), active_keys):
        raise throttling.wrong_password()
    epoch = User.select(User.session_epoch).where(User.id == user.id)
    mine = (Session.id == actor.session_id) & (Session.epoch + 1 == epoch)
    if not Session.update(epoch=epoch).where(mine).execute():
        # The session ended while the passwords were hashed, and must stay ended.
        raise InvalidCredentials(challenge=INVALID_TOKEN)
    others = (Session.user == user.id) & (Session.id != actor.session_id)
    Session.delete().where(others).execute()
    audit.record(actor, "password.change", target=("user", user.id))


def forgot_password(email: str) -> None:
    """Mail a link to the user with this address, if there is one, within a few seconds.

    The account is looked up later, together with others, so that neither the answer nor the order
    of the mails reveals whether it exists. Requests beyond one network's limit are ignored.
    """
    if limits.allow_from_here("forgotten", context.settings().login_attempts_per_address):
        services.current().shuffled_tasks.submit(functools.partial(_mail_password_link, email))


def _mail_password_link(email: str) -> None:
    user = users.find(email)
    if user is not None and links.reaches(user):
        _send_link(user)


@atomic
def _send_link(user: User) -> None:
    if limits.allow(f"links for {user.id}", MAILS):
        links.send_password_link(user)
        audit.record(None, "password.forgot", target=("user", user.id))


def reset_password(token: str, new_password: str) -> None:
    """Set the password of the user whose link is `token`, and end all their sessions.

    Raises InvalidToken for a bad link. After a password that is too weak, the link still works.
    """
    user = links.holder(PASSWORD_LINK, token)
    hashed = passwords.hash_password(
        new_password, "new_password", user.username, user.email, user.id
    )
    _reset_password(user, hashed)


@atomic
def _reset_password(user: User, new: str) -> None:
    unused = (User.password_link_epoch == user.password_link_epoch) & User.is_active
    if not passwords.replace_password(user, new, unused, keys.count_active(user.id)):
        raise InvalidToken
    throttling.trust_address(user)
    audit.record(None, "password.reset", target=("user", user.id))


@atomic
def confirm_email(token: str) -> None:
    """Make the pending address of the link's user their address.

    Refuses as identifiers.confirm_email does.
    """
    throttling.trust_address(identifiers.confirm_email(token))
