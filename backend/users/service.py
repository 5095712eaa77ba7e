"""What may be done with accounts. The actor comes first: an administrator, or a key of one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import idna
import peewee as pw

from .. import services
from ..audit import service as audit
from ..core import clock, context
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

_LOCAL_PART = re.compile(r"(?!\.)(?!.*\.\.)[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}(?<!\.)")
MAX_EMAIL = 254  # RFC 5321 section 4.5.3.1.3, less the angle brackets


def fold_email(email: str) -> str:
    """The form under which an address is unique: lower case, the domain in ASCII (IDNA 2008).

    ValueError for what is no address with an ASCII local part and a domain of two labels or more.
    """
    local, _, domain = email.rpartition("@")
    if not _LOCAL_PART.fullmatch(local) or len(domain) > MAX_EMAIL:
        raise ValueError("not an e-mail address")
    try:
        ascii_domain = idna.encode(domain, uts46=True, std3_rules=True).decode()
    except (idna.IDNAError, UnicodeError):
        raise ValueError("not an e-mail address") from None
    # Looked for after the mapping, which makes dots of other full stops.
    if "." not in ascii_domain or ascii_domain.endswith("."):
        raise ValueError("not an e-mail address")
    folded = f"{local}@{ascii_domain}".lower()
    if max(len(email), len(folded)) > MAX_EMAIL:
        raise ValueError("too long")
    return folded


def find(name: str) -> User | None:
    """The user who signs in as `name`, a username or an e-mail address; None if there is none."""
    if "@" not in name:
        # Some letters outside of ASCII have lower cases within it.
        return User.get_or_none(User.username_folded == name.lower()) if name.isascii() else None
    try:
        return User.get_or_none(User.email_folded == fold_email(name))
    except ValueError:
        return None


def get(actor: Identity, user_id: UUID) -> User:
    """The user, else NotFound."""
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
    """A page of users, newest first, and the next cursor. `equal` filters by role, kind, is_active.

    `search` is looked for literally in username and e-mail, in either case.
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
    """A new account. Conflict if username or e-mail is taken, Invalid for what does not fit.

    A person without a password is mailed an invitation to set one.
    """
    if role == "admin":
        _require_in_person(actor)
    if kind == "person" and not email:
        raise Invalid("email", "Required for a person.")
    if kind == "person" and not password and not mailer.enabled():
        raise Invalid("password", "Required: there is no mail to send an invitation with.")
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
    """The hash to store; Invalid, naming `field`, if the password is too weak.

    Takes a quarter of a second at a place of the user `by`: never call it inside a transaction.
    """
    require_strong(password, field, username, email)
    return services.current().password_hasher.hash(password, by)


def require_strong(password: str, field: str, username: str, email: str | None) -> None:
    """Raise Invalid, naming `field`, if the password is too weak for a user of these names."""
    names = [username, *([email.rpartition("@")[0]] if email else [])]
    passwords.require_strong(password, field, names, context.settings())


def change(actor: Identity, user_id: UUID, **changes: Any) -> User:
    """The user after `changes` to username, email, role or is_active, which count at once.

    Disabling ends all sessions for good. Conflict `last_admin` if nobody could administer after it.
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
        raise Invalid("email", "Required for a person.")
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
    for name, value in facts.items():
        setattr(user, name, value)
    _save(actor, user, **facts)
    return user


@atomic
def delete(actor: Identity, user_id: UUID) -> None:
    """Remove another user with all sessions and keys. Conflict `last_admin` for the last one."""
    user = for_update(actor, user_id, loses_admin=True, not_own=True)
    user.delete_instance()
    usernames.hold(user)
    audit.record(actor, "user.delete", target=("user", user_id))


def rename(
    actor: Identity, proven: User, *, username: str | None = None, email: str | None = None
) -> User:
    """The actor's own user under a new name; a new address waits until it is confirmed.

    Conflict for a name that is taken, or that is held for another user who gave it up; also if the
    password is another by now than that of `proven`, with which it was checked.
    Whether another account has that address is not told here: whoever asks could try them all.
    """
    with _unique():
        return _rename(actor, proven, username, email)


@atomic
def _rename(actor: Identity, proven: User, username: str | None, email: str | None) -> User:
    user = for_update(actor, actor.user_id)
    if user.password_hash != proven.password_hash:
        raise Conflict("conflict", "The password was changed at the same time.")
    if username:
        _name(user, username=username)
    if email:
        user.pending_email = email
        user.email_link_epoch += 1
        if fold_email(email) == user.email_folded:  # only another spelling of it
            user.email, user.pending_email = email, None
    _save(actor, user)
    if username:
        usernames.require_not_held(user)
    if email and user.pending_email:
        links.send_email_link(user)
    return user


def confirm_email(token: str) -> User:
    """The link's user, whose pending address becomes their address; the old one is notified.

    InvalidLink, or Conflict if another account has the address by now: the link stays good then.
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
        raise Conflict("conflict", "A link can be mailed to active persons, if there is mail.")
    links.send_password_link(user)
    audit.record(actor, "password.forgot", target=("user", user_id))


def set_password(actor: Identity, user: User, password: str) -> None:
    """Give the user a new password and end all sessions; for the console."""
    if user.kind == "service":
        raise Invalid("password", "A service account has no password.")
    hashed = hash_password(password, "password", user.username, user.email, actor.user_id)
    with current.atomic():
        if not replace_password(user, hashed, same_password(user)):
            raise Conflict("conflict", "The password was changed at the same time.")
        audit.record(actor, "password.change", target=("user", user.id))


def same_password(user: User) -> Any:
    """The condition that the password is still the one that `user` was read with."""
    old = user.password_hash
    return User.password_hash.is_null() if old is None else User.password_hash == old


def replace_password(user: User, new: str, unchanged: Any, api_keys: int | None = None) -> bool:
    """Store the hash `new`, void links and end all sessions; False if not `unchanged` any more.

    The user is told by mail, with how many `api_keys` go on. To be called in a transaction.
    """
    changed = User.update(
        password_hash=new,
        session_epoch=User.session_epoch + 1,
        password_link_epoch=User.password_link_epoch + 1,
        # Whoever knew the old password may have asked for that address.
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
    """Keep the same password under the present cost, if nobody has changed it meanwhile."""
    try:
        new = services.current().password_hasher.hash(password, user.id)
    except Unavailable:
        return  # no place to hash at; at another sign-in, then
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
    """End all sessions of the user in one write, those included that are just being made."""
    User.update(session_epoch=User.session_epoch + 1).where(User.id == user_id).execute()


def admins() -> pw.ModelSelect:
    """Those who can administer, in order of id: active persons with the role who can sign in.

    A password is the only way to sign in; each new way belongs into this condition.
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
    """The user's row, locked, if the actor may touch it.

    Conflict if `loses_admin` would leave nobody to administer. Forbidden if `not_own` and it is the
    actor's: a stolen session would be enough to take the account over, where /v1/auth asks for
    proof.

    All administrators are locked first and in one order, so that two who demote each other wait
    for each other instead of both seeing the other still there.
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
        raise Forbidden("session_required", "Administrators are managed by an admin's session.")


def _save(actor: Identity, user: User, **facts: Any) -> None:
    """Store what has changed; the event names the columns, and `facts` some of their values."""
    public = {"username", "email", "pending_email", "role", "is_active"}
    changed = sorted(public & {field.name for field in user.dirty_fields})
    if changed:
        user.updated_at = clock.now()
        user.save()
        audit.record(actor, "user.update", target=("user", user.id), changed=changed, **facts)


def _readdress(user: User, email: str | None) -> None:
    """Give the user another address at once; the old one is told, and links sent to it are void."""
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
    """Turn what the unique indexes say into the conflict it means."""
    try:
        yield
    except pw.IntegrityError as error:
        if is_unique_violation(error, "users", "username_folded"):
            raise usernames.taken() from None
        if is_unique_violation(error, "users", "email_folded"):
            raise Conflict("email_taken", "That e-mail address is taken.") from None
        raise
