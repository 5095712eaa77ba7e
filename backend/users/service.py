"""What may be done with accounts. The actor comes first: an administrator or their key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import peewee as pw

from .. import services
from ..audit import service as audit
from ..core import clock, context
from ..core.email_addresses import fold_email
from ..core.errors import Conflict, Forbidden, Invalid, NotFound, Unavailable
from ..core.identity import Identity
from ..crypto import passwords
from ..crypto.keyring import EMAIL_LINK
from ..db.database import (
    atomic,
    contains,
    current,
    is_unique_violation,
    lock,
    newest,
)
from ..mail import mailer
from . import links, usernames
from .models import User
from .rows import UserRow


def find(name: str) -> User | None:
    """Return the user who signs in as `name`, a username or an e-mail address, or None."""
    if "@" not in name:
        # Some non-ASCII letters have an ASCII lower case.
        return User.get_or_none(User.username_folded == name.lower()) if name.isascii() else None
    try:
        return User.get_or_none(User.email_folded == fold_email(name))
    except ValueError:
        return None


def called(name: str) -> User:
    """Return the user who signs in as `name`, or raise NotFound."""
    user = find(name)
    if user is None:
        raise NotFound("There is no such user.")
    return user


def id_of(name: str) -> UUID:
    """Return the id of the user who signs in as `name`, or raise NotFound."""
    return called(name).id


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
    """Create an account. Conflict if username or e-mail is taken, Invalid for unsuitable values.

    A person without a password is mailed an invitation to set one.
    """
    if role == "admin":
        _require_in_person(actor)
    if kind == "person" and not email:
        raise Invalid("email", "A person needs an e-mail address.")
    if kind == "person" and not password and not mailer.enabled():
        raise Invalid("password", "Required, because mail is not configured to send an invitation.")
    if kind == "service" and password:
        raise Invalid("password", "A service account has no password.")
    by = actor.user_id
    hashed = hash_password(password, "password", username, email, by) if password else None
    now = clock.now()
    user = User(password_hash=hashed, role=role, kind=kind, created_at=now, updated_at=now)
    _name(user, username=username, email=email)
    with _unique(), current.atomic():
        user.save(force_insert=True)
        audit.record(actor, "user.create", target=("user", user.id), role=role, kind=kind)
        if kind == "person" and not password:
            links.send_password_link(user)
    return user


def hash_password(password: str, field: str, username: str, email: str | None, by: UUID) -> str:
    """Return the hash to store; Invalid, naming `field`, if the password is too weak.

    Takes a quarter of a second in a hashing slot of the user `by`: never call it in a transaction.
    """
    require_strong(password, field, username, email)
    return services.current().password_hasher.hash(password, by)


def require_strong(password: str, field: str, username: str, email: str | None) -> None:
    """Raise Invalid, naming `field`, if the password is too weak for a user with these names."""
    names = [username, *([email.rpartition("@")[0]] if email else [])]
    passwords.require_strong(password, field, names, context.settings())


def change(actor: Identity, user_id: UUID, **changes: Any) -> User:
    """Change username, email, role or is_active, effective immediately, and return the user.

    Disabling ends all sessions for good. Conflict `last_admin` if no administrator would be left.
    """
    with _unique():
        return _change(actor, user_id, changes)


@atomic
def _change(actor: Identity, user_id: UUID, changes: dict[str, Any]) -> User:
    if changes.get("role") == "admin":
        _require_in_person(actor)
    loses_admin = changes.get("role") == "user" or changes.get("is_active") is False
    user = for_update(actor, user_id, loses_admin=loses_admin, not_own="email" in changes)
    if user.kind == "person" and "email" in changes and not changes["email"]:
        raise Invalid("email", "A person needs an e-mail address.")
    facts = {name: changes[name] for name in ("role", "is_active") if name in changes}
    if "email" in changes:
        _readdress(user, changes["email"])
    if "username" in changes:
        _name(user, username=changes["username"])
    if user.is_active and facts.get("is_active") is False:
        user.session_epoch += 1
        user.password_link_epoch += 1
        user.email_link_epoch += 1
        user.pending_email = None
    for name in changes.keys() - {"username", "email"}:
        setattr(user, name, changes[name])
    _save(actor, user, **facts)
    return user


@atomic
def delete(actor: Identity, user_id: UUID) -> None:
    """Delete another user with all sessions and keys. Conflict `last_admin` for the last admin."""
    user = for_update(actor, user_id, loses_admin=True, not_own=True)
    user.delete_instance()
    usernames.hold(user)
    audit.record(actor, "user.delete", target=("user", user_id))


def rename(
    actor: Identity, proven: User, *, username: str | None = None, email: str | None = None
) -> User:
    """Rename the actor's own user, and return it; a new address waits until it is confirmed.

    Conflict for a name that is taken, or held for another user who gave it up; also if the password
    has changed since it was checked against `proven`. Does not reveal whether another account has
    the address, since the caller could try them all.
    """
    with _unique():
        return _rename(actor, proven, username, email)


@atomic
def _rename(actor: Identity, proven: User, username: str | None, email: str | None) -> User:
    user = for_update(actor, actor.user_id)
    if user.password_hash != proven.password_hash:
        raise Conflict("conflict", "The password was changed by another request. Try again.")
    if username:
        _name(user, username=username)
    if email:
        user.pending_email = email
        user.email_link_epoch += 1
        if fold_email(email) == user.email_folded:  # only spelled differently
            user.email, user.pending_email = email, None
    _save(actor, user)
    if username:
        usernames.require_not_held(user)
    if email and user.pending_email:
        links.send_email_link(user)
    return user


def confirm_email(token: str) -> User:
    """Make the pending address of the link's user their address, and notify the old one.

    Returns the user. InvalidToken for a bad link; Conflict if another account has the address by
    now, in which case the link stays good.
    """
    with _unique():
        return _confirm_email(token)


@atomic
def _confirm_email(token: str) -> User:
    user = links.holder(EMAIL_LINK, token)
    _readdress(user, user.pending_email)
    user.updated_at = clock.now()
    user.save()
    audit.record(None, "email.change", target=("user", user.id))
    return user


@atomic
def send_password_link(actor: Identity, user_id: UUID) -> None:
    """Mail another user a link to set a password. Conflict if no mail can reach them."""
    user = for_update(actor, user_id, not_own=True)
    if not links.reaches(user):
        raise Conflict(
            "conflict",
            "A link can be mailed only to an active person, and only if mail is configured.",
        )
    links.send_password_link(user)
    audit.record(actor, "password.forgot", target=("user", user_id))


def set_password(actor: Identity, user: User, password: str) -> None:
    """Set a new password for the user and end all their sessions; for the console."""
    if user.kind == "service":
        raise Invalid("password", "A service account has no password.")
    hashed = hash_password(password, "password", user.username, user.email, actor.user_id)
    with current.atomic():
        if not replace_password(user, hashed, same_password(user)):
            raise Conflict("conflict", "The password was changed by another request. Try again.")
        audit.record(actor, "password.change", target=("user", user.id))


def same_password(user: User) -> Any:
    """The condition that the password has not changed since `user` was read."""
    old = user.password_hash
    return User.password_hash.is_null() if old is None else User.password_hash == old


def replace_password(user: User, new: str, unchanged: Any, api_keys: int | None = None) -> bool:
    """Store the hash `new`, void links and end all sessions; False if not `unchanged`.

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
        mailer.send(
            user.email,
            "password_changed",
            user_id=user.id,
            username=user.username,
            api_keys=api_keys,
        )
    return True


def rehash(user: User, password: str) -> None:
    """Hash the same password again at the present cost, unless it has changed meanwhile."""
    try:
        new = services.current().password_hasher.hash(password, user.id)
    except Unavailable:
        return  # no free hashing slot; a later sign-in does it
    unchanged = (User.id == user.id) & (User.password_hash == user.password_hash)
    if User.update(password_hash=new).where(unchanged).execute():
        user.password_hash = new


@atomic
def end_sessions_of(actor: Identity, user_id: UUID) -> None:
    """End all sessions of another user, as an administrator."""
    user = for_update(actor, user_id, not_own=True)
    end_sessions(user.id)
    audit.record(actor, "session.end", target=("user", user_id), sessions="all")


def end_sessions(user_id: UUID) -> None:
    """End all of the user's sessions in one write, including those just being made."""
    User.update(session_epoch=User.session_epoch + 1).where(User.id == user_id).execute()


def admins() -> pw.ModelSelect:
    """Query the users who can administer, by id: active persons with the role who can sign in.

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

    Conflict if `loses_admin` would leave no administrator. Forbidden if `not_own` and the row is
    the actor's: a stolen session would be enough to take over the account, where /v1/auth asks for
    proof.

    All administrators are locked first and in one order, so that two who demote each other wait for
    each other instead of both seeing the other still in place.
    """
    remaining = lock(admins()) if loses_admin else []
    rows = lock(User.select().where(User.id == user_id))
    if not rows:
        raise NotFound
    if rows[0].role == "admin":
        _require_in_person(actor)
    if [admin.id for admin in remaining] == [user_id]:
        raise Conflict("last_admin", "The last administrator cannot be removed.")
    if not_own and actor.user_id == user_id:
        raise Forbidden("forbidden", "You cannot do this to your own account here.")
    return rows[0]


def _require_in_person(actor: Identity) -> None:
    if not actor.is_admin_in_person:
        raise Forbidden(
            "session_required", "Only an administrator's session can manage administrators."
        )


def _save(actor: Identity, user: User, **facts: Any) -> None:
    """Store the changes; the event names the columns, and `facts` holds some of their values."""
    changed = sorted({field.name for field in user.dirty_fields}.intersection(UserRow._fields))
    if changed:
        user.updated_at = clock.now()
        user.save()
        audit.record(actor, "user.update", target=("user", user.id), changed=changed, **facts)


def _readdress(user: User, email: str | None) -> None:
    """Change the user's address immediately, notify the old one, and void links sent to it."""
    if user.email and email and user.email != email:
        mailer.send(
            user.email,
            "email_changed",
            user_id=user.id,
            about=user.email,
            username=user.username,
            new_email=email,
        )
    _name(user, email=email)
    user.pending_email = None
    user.email_link_epoch += 1
    user.password_link_epoch += 1


def _name(user: User, **names: Any) -> None:
    if names.get("username"):
        folded = names["username"].lower()
        if user.username_folded not in (None, folded):
            usernames.hold(user)
        user.username = names["username"]
        user.username_folded = folded
    if "email" in names:
        user.email = names["email"]
        user.email_folded = fold_email(names["email"]) if names["email"] else None


@contextmanager
def _unique() -> Iterator[None]:
    """Turn a violation of a unique index into the conflict it means."""
    try:
        yield
    except pw.IntegrityError as error:
        if is_unique_violation(error, "users", "username_folded"):
            raise usernames.taken() from None
        if is_unique_violation(error, "users", "email_folded"):
            raise Conflict("email_taken", "That e-mail address is taken.") from None
        raise
