"""Signing in and out: sessions, their refresh tokens, and a user's own name and password."""

from __future__ import annotations

import functools
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import peewee as pw

from .. import services
from ..api_keys import queries as keys
from ..audit import service as audit
from ..core import clock, context
from ..core.email_addresses import fold_email
from ..core.errors import (
    INVALID_TOKEN,
    Invalid,
    InvalidCredentials,
    InvalidToken,
    NotFound,
)
from ..core.identity import Identity
from ..core.settings import Limit
from ..crypto.keyring import PASSWORD_LINK
from ..db.database import atomic, count_by, current, delete_some, newest
from ..mail import mailer
from ..throttling import service as throttling
from ..users import links, names, passwords
from ..users import service as users
from ..users.models import User
from .models import Session

RENAMES = Limit(3, 86_400)  # that the user of an account may make
MAILS = Limit(3, 3600)  # that may be sent for one account


def login(username: str, password: str) -> dict[str, Any]:
    """Return tokens for a new session if `password` is that of the user called `username`.

    Unknown, disabled and wrong take equally long and look the same: InvalidCredentials.
    """
    user = users.find(username)
    with throttling.attempt(user or username, "login"):
        right = throttling.is_password(user or username, password)
        if user is None or not right or not user.is_active:
            raise InvalidCredentials
    if services.current().password_hasher.needs_rehash(user.password_hash):
        passwords.rehash(user, password)
    for ask in services.current().second_steps:
        ask(user)
    return open_session(user, "login")


@atomic
def open_session(user: User, action: str) -> dict[str, Any]:
    """Open a session for the user as they were when the password was checked; return tokens.

    InvalidCredentials if the password, which raises the epoch, or the second factor has changed.
    """
    now = user.last_login_at = clock.now()
    # Also locks the row, so that of concurrent sign-ins, each counts the sessions before it.
    unchanged = (
        (User.id == user.id)
        & (User.session_epoch == user.session_epoch)
        & (User.mfa_enabled == user.mfa_enabled)
    )
    if not User.update(last_login_at=now).where(unchanged).execute():
        raise InvalidCredentials
    throttling.remember_address(user)
    session = Session.create(
        user=user,
        epoch=user.session_epoch,
        created_at=now,
        last_used_at=now,
        expires_at=_expiry(now, now),
        **_circumstances(),
    )
    kept = (
        Session.select(Session.id)
        .where(Session.user == user)
        .order_by(Session.last_used_at.desc(), Session.id.desc())
        .limit(context.settings().max_sessions_per_user)
    )
    surplus = Session.delete().where((Session.user == user) & Session.id.not_in(kept))
    audit.record(_self(user), action, target=("session", session.id))
    for ended in list(surplus.returning(Session).execute()):
        if ended.epoch == user.session_epoch and ended.expires_at > now:
            target = ("session", ended.id)
            audit.record(_self(user), "session.end", target=target, reason="limit_reached")
    return _tokens(user, session.id, session.generation)


def _self(user: User, session_id: UUID | None = None) -> Identity:
    """The user as the actor of what they do before signing in, or after their session ended."""
    return Identity(user.id, user.username, user.role, "session", session_id)


def refresh(token: str) -> dict[str, Any]:
    """Return fresh tokens for a refresh token's session, rotating it by one guarded UPDATE.

    For a few seconds the previous token also returns the newest, so that parallel refreshes agree;
    if it comes from elsewhere, that is recorded. Any older token is a stolen copy: the session
    ends, and stays ended although the request is refused (RFC 9700 section 4.14.2).
    """
    session_id, presented = services.current().keyring.read_refresh(token)
    session = _living(session_id)
    if session.generation == presented:
        if _rotate(session):
            return _tokens(session.user, session_id, presented + 1)
        session = _living(session_id)  # another request was first
    if session.generation == presented + 1 and _in_grace(session):
        _note_grace(session)
        return _tokens(session.user, session_id, session.generation)
    if session.generation > presented:
        _end_copied(session)
    raise InvalidCredentials


def session_of_refresh_token(token: str) -> Session:
    """Return the session, with its user, for which this refresh token could be exchanged now.

    InvalidCredentials if there is none. Rotates and ends nothing.
    """
    session_id, presented = services.current().keyring.read_refresh(token)
    session = _living(session_id)
    behind = session.generation - presented
    if behind and (behind != 1 or not _in_grace(session)):
        raise InvalidCredentials
    return session


def revoke_token(token: str) -> None:
    """End the session of an access or refresh token: having the token is enough to do so.

    Any refresh token that we signed will do, even one that was rotated away: it would end the
    session in `refresh` too. An expired access token can do nothing, so not this either.
    InvalidCredentials for other text.
    """
    try:
        _, session_id = services.current().access_tokens.read(token)
    except InvalidCredentials:
        session_id, _ = services.current().keyring.read_refresh(token)
    _end_held(session_id)


@atomic
def _end_held(session_id: UUID) -> None:
    session = _alive().where(Session.id == session_id).first()
    if session and Session.delete().where(Session.id == session_id).execute():
        target, user_id = ("session", session_id), str(session.user_id)
        audit.record(None, "session.end", target=target, user_id=user_id)


@atomic
def _note_grace(session: Session) -> None:
    """Record, once per rotation, that the previous refresh token came from elsewhere.

    Elsewhere is another address or agent than the rotation: a browser's tabs share both, a thief
    who polls with a copied token rarely does.
    """
    here = _circumstances()
    differing = [name for name in ("ip", "user_agent") if here.get(name) != getattr(session, name)]
    if not differing:
        return
    first = (
        (Session.id == session.id)
        & (Session.generation == session.generation)
        & (Session.grace_used_at.is_null() | (Session.grace_used_at < Session.rotated_at))
    )
    if Session.update(grace_used_at=clock.now()).where(first).execute():
        audit.record(
            None,
            "session.grace",
            target=("session", session.id),
            user_id=str(session.user_id),
            differing=differing,
            rotated_ip=session.ip,
        )


@atomic
def _end_copied(session: Session) -> None:
    if Session.delete().where(Session.id == session.id).execute():
        target = ("session", session.id)
        detail = {"user_id": str(session.user_id)}
        audit.record(None, "session.reuse", outcome="failure", target=target, **detail)


def _alive() -> pw.ModelSelect:
    """Query the living sessions, with their users; auth/identify.py has the same condition."""
    return (
        Session.select(Session, User)
        .join(User)
        .where(
            (Session.epoch == User.session_epoch)
            & (Session.expires_at > clock.now())
            & User.is_active
        )
    )


def _living(session_id: UUID) -> Session:
    session: Session | None = _alive().where(Session.id == session_id).first()
    if session is None:
        raise InvalidCredentials
    return session


def _rotate(session: Session) -> bool:
    """Move the session to its next generation; False if another request did so first."""
    now = clock.now()
    changed = (
        Session.update(
            generation=session.generation + 1,
            rotated_at=now,
            last_used_at=max(now, session.created_at),  # the clock may have been set back
            expires_at=_expiry(session.created_at, now),
            **_circumstances(),
        )
        .where((Session.id == session.id) & (Session.generation == session.generation))
        .execute()
    )
    return bool(changed)


def _circumstances() -> dict[str, str | None]:
    """Return columns for where the present call comes from, and which secret signs for it."""
    call, secret_id = context.call.get(), services.current().keyring.secret_ids[0]
    if call is None:
        return {"secret_id": secret_id}
    user_agent = "".join(filter(str.isprintable, call.user_agent))[: Session.user_agent.max_length]
    return {"ip": call.address or None, "user_agent": user_agent or None, "secret_id": secret_id}


def _in_grace(session: Session) -> bool:
    grace = timedelta(seconds=context.settings().refresh_grace_seconds)
    return clock.now() - session.rotated_at <= grace


def _expiry(created_at: datetime, used_at: datetime) -> datetime:
    settings = context.settings()
    idle = used_at + timedelta(days=settings.jwt_refresh_token_expire_days)
    return min(idle, created_at + timedelta(days=settings.session_absolute_days))


def _tokens(user: User, session_id: UUID, generation: int) -> dict[str, Any]:
    service = services.current()
    return {
        "access_token": service.access_tokens.sign(
            user.id, session_id, username=user.username, role=user.role
        ),
        "refresh_token": service.keyring.sign_refresh(session_id, generation),
        "token_type": "Bearer",
        "expires_in": context.settings().jwt_access_token_expire_minutes * 60,
        "user": user,
    }


def sessions(
    actor: Identity, *, limit: int, cursor: UUID | None = None
) -> tuple[list[Session], UUID | None]:
    """Return a page of the actor's living sessions, newest first, and the next cursor.

    `session.current` is True for the one that the actor is using.
    """
    page = newest(_alive().where(Session.user == actor.user_id), limit, cursor)
    for session in page[0]:
        session.current = session.id == actor.session_id
    return page


@atomic
def end_session(actor: Identity, session_id: UUID) -> None:
    """End one of the actor's sessions; NotFound if it is not the actor's."""
    mine = (Session.id == session_id) & (Session.user == actor.user_id)
    if not Session.delete().where(mine).execute():
        raise NotFound
    audit.record(actor, "session.end", target=("session", session_id))


@atomic
def logout(actor: Identity) -> None:
    """End the actor's session."""
    Session.delete().where(Session.id == actor.session_id).execute()
    audit.record(actor, "logout", target=("session", actor.session_id))


@atomic
def logout_all(actor: Identity) -> None:
    """End all of the actor's sessions, including those just being made."""
    users.end_sessions(actor.user_id)
    Session.delete().where(Session.user == actor.user_id).execute()
    audit.record(actor, "logout", target=("user", actor.user_id), sessions="all")


def change_me(actor: Identity, current_password: str, **changes: str) -> User:
    """Change the actor's username or e-mail address, the latter once confirmed; return the user.

    Forbidden for a wrong password, Conflict if it is changed meanwhile. Only an address that is
    mailed a link counts towards the limit; giving the present address withdraws a pending change.
    """
    proven = throttling.require_password(actor, current_password, "user.update")
    email = changes.get("email")
    is_new = email is not None and fold_email(email) != proven.email_folded
    if is_new and not mailer.enabled():
        raise Invalid("email", "Cannot be changed, because mail is not configured.")
    with current.atomic():
        user = names.rename(actor, proven, **changes)
        if user.username != proven.username:
            throttling.spend(f"usernames for {user.id}", RENAMES)
        if is_new:  # last: a request refused for another reason mails nothing
            throttling.spend(f"addresses for {user.id}", MAILS)
    return user


def change_password(actor: Identity, current_password: str, new_password: str) -> None:
    """Replace the actor's password and end all sessions except the calling one.

    Forbidden for a wrong password, InvalidCredentials if the calling session ends meanwhile.
    """
    user = actor.user
    passwords.require_strong(new_password, "new_password", user.username, user.email)
    user = throttling.require_password(actor, current_password, "password.change")
    _replace_password(actor, user, services.current().password_hasher.hash(new_password, user.id))


@atomic
def _replace_password(actor: Identity, user: User, new: str) -> None:
    going_on = keys.count_active(user.id)
    if not passwords.replace_password(user, new, passwords.same_password(user), going_on):
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
    if throttling.allow_from_here("forgotten", context.settings().login_attempts_per_address):
        services.current().lookups.submit(functools.partial(_mail_password_link, email))


def _mail_password_link(email: str) -> None:
    user = users.find(email)
    if user is not None and links.reaches(user):
        _send_link(user)


@atomic
def _send_link(user: User) -> None:
    if throttling.allow(f"links for {user.id}", MAILS):
        links.send_password_link(user)
        audit.record(None, "password.forgot", target=("user", user.id))


def reset_password(token: str, new_password: str) -> None:
    """Set the password of the user whose link is `token`, and end all their sessions.

    InvalidToken for a bad link; after a password that is too weak, the link can be used again.
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

    Refuses as names.confirm_email does.
    """
    throttling.trust_address(names.confirm_email(token))


def prune(limit: int) -> int:
    """Delete at most `limit` expired sessions; return how many."""
    return delete_some(Session.select().where(Session.expires_at <= clock.now()), limit)


def secrets_in_use() -> dict[str, int]:
    """Count the living sessions that depend on each SECRET_KEY, by its id."""
    return count_by(Session.secret_id, _alive())
