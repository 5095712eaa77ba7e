"""Find, create, change and delete accounts, for administrators and their keys."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from ..audit import service as audit
from ..core import clock
from ..core.email_addresses import fold_email
from ..core.errors import Conflict, Invalid, NotFound
from ..core.identity import Identity
from ..db.database import atomic, contains, current, newest
from ..mail import mailer
from . import held_usernames, identifiers, links, passwords, permissions
from .models import User


def find(name: str) -> User | None:
    """Return the user who signs in as `name`, a username or an e-mail address, or None."""
    if "@" not in name:
        # Some non-ASCII letters have an ASCII lower case.
        return User.get_or_none(User.username_folded == name.lower()) if name.isascii() else None
    try:
        return User.get_or_none(User.email_folded == fold_email(name))
    except ValueError:
        return None


def get_by_name(name: str) -> User:
    """Return the user who signs in as `name`, or raise NotFound."""
    user = find(name)
    if user is None:
        raise NotFound("There is no such user.")
    return user


def id_of(name: str) -> UUID:
    """Return the id of the user who signs in as `name`, or raise NotFound."""
    return get_by_name(name).id


def name_of(user_id: UUID) -> str | None:
    """Return the user's username; None if there is no such user."""
    username: str | None = User.select(User.username).where(User.id == user_id).scalar()
    return username


def get(actor: Identity, user_id: UUID) -> User:
    """Return the user, or raise NotFound."""
    user = User.get_or_none(User.id == user_id)
    if user is None:
        raise NotFound
    return user


def list_users(
    actor: Identity,
    *,
    limit: int,
    cursor: UUID | None = None,
    search: str | None = None,
    **equal: Any,
) -> tuple[list[User], UUID | None]:
    """Return a page of users, newest first, and the next cursor.

    `equal` filters by role, kind, is_active. `search` is matched literally against username and
    e-mail, ignoring case.
    """
    query = User.select()
    if search:
        query = query.where(contains(User.username, search) | contains(User.email, search))
    for name, value in equal.items():
        query = query.where(getattr(User, name) == value)
    return newest(query, limit, cursor)


def create(
    actor: Identity,
    *,
    username: str,
    email: str | None = None,
    password: str | None = None,
    role: str = "user",
    kind: str = "person",
) -> User:
    """Create an account. A person without a password is mailed an invitation to set one.

    Raises Conflict if the username or e-mail address is taken, and Invalid for values that do not
    fit the kind of account.
    """
    if role == "admin":
        permissions.require_in_person(actor)
    if kind == "person" and not email:
        raise Invalid("email", "A person needs an e-mail address.")
    if kind == "person" and not password and not mailer.enabled():
        raise Invalid("password", "Required, because mail is not configured to send an invitation.")
    if kind == "service" and password:
        raise Invalid("password", "A service account has no password.")
    by = actor.user_id
    hashed = (
        passwords.hash_password(password, "password", username, email, by) if password else None
    )
    now = clock.now()
    user = User(password_hash=hashed, role=role, kind=kind, created_at=now, updated_at=now)
    identifiers.set_names(user, username=username, email=email)
    with identifiers.unique(), current.atomic():
        user.save(force_insert=True)
        audit.record(actor, "user.create", target=("user", user.id), role=role, kind=kind)
        if kind == "person" and not password:
            links.send_password_link(user)
    return user


def change(actor: Identity, user_id: UUID, **changes: Any) -> User:
    """Change username, email, role or is_active, effective immediately, and return the user.

    Disabling ends all sessions permanently. Raises Conflict if no administrator would be left.
    """
    with identifiers.unique():
        return _change(actor, user_id, changes)


@atomic
def _change(actor: Identity, user_id: UUID, changes: dict[str, Any]) -> User:
    if changes.get("role") == "admin":
        permissions.require_in_person(actor)
    loses_admin = changes.get("role") == "user" or changes.get("is_active") is False
    user = permissions.for_update(
        actor, user_id, loses_admin=loses_admin, not_own="email" in changes
    )
    if user.kind == "person" and "email" in changes and not changes["email"]:
        raise Invalid("email", "A person needs an e-mail address.")
    facts = {name: changes[name] for name in ("role", "is_active") if name in changes}
    if "email" in changes:
        identifiers.set_email(user, changes["email"])
    if "username" in changes:
        identifiers.set_names(user, username=changes["username"])
    if user.is_active and facts.get("is_active") is False:
        user.session_epoch += 1
        user.password_link_epoch += 1
        user.email_link_epoch += 1
        user.pending_email = None
    for name in changes.keys() - {"username", "email"}:
        setattr(user, name, changes[name])
    identifiers.save_changes(actor, user, **facts)
    return user


@atomic
def delete(actor: Identity, user_id: UUID) -> None:
    """Delete another user with all sessions and keys; raise Conflict for the last administrator."""
    user = permissions.for_update(actor, user_id, loses_admin=True, not_own=True)
    user.delete_instance()
    held_usernames.hold(user)
    audit.record(actor, "user.delete", target=("user", user_id))


@atomic
def send_password_link(actor: Identity, user_id: UUID) -> None:
    """Mail another user a link to set a password; raise Conflict if mail cannot reach them."""
    user = permissions.for_update(actor, user_id, not_own=True)
    if not links.reaches(user):
        raise Conflict(
            "conflict",
            "A link can be mailed only to an active person, and only if mail is configured.",
        )
    links.send_password_link(user)
    audit.record(actor, "password.forgot", target=("user", user_id))


@atomic
def end_sessions_of(actor: Identity, user_id: UUID) -> None:
    """End all sessions of another user. For administrators."""
    user = permissions.for_update(actor, user_id, not_own=True)
    end_sessions(user.id)
    audit.record(actor, "session.end", target=("user", user_id), sessions="all")


def end_sessions(user_id: UUID) -> None:
    """End all of the user's sessions in one write, including those just being made."""
    User.update(session_epoch=User.session_epoch + 1).where(User.id == user_id).execute()
