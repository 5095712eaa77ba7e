"""Signing in and out: sessions, their refresh tokens, and a user's own name and password."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import peewee as pw

from ..core import clock, context
from ..core.database import atomic, newest
from ..core.errors import InvalidCredentials, NotFound
from ..core.identity import Identity
from ..guessing import service as guessing
from ..users import service as users
from ..users.models import User
from .models import Session

log = logging.getLogger(__name__)


def login(username: str, password: str) -> dict[str, Any]:
    """Tokens for a new session, if `password` is that of the user called `username`.

    Unknown, disabled and wrong take as long as each other and are told alike: InvalidCredentials.
    """
    user = users.find(username)
    with guessing.attempt(user or username):
        right = context.service().hasher.check(password, user.password_hash if user else None)
        if user is None or not right or not user.is_active:
            log.warning("login", extra={"outcome": "failure"})
            raise InvalidCredentials
    if context.service().hasher.is_outdated(user.password_hash):
        users.rehash(user, password)
    session = _open(user)
    log.info("login", extra={"outcome": "success", "user_id": str(user.id)})
    return _tokens(user, session.id, session.generation)


@atomic
def _open(user: User) -> Session:
    """A session of the user as it was when the password was checked, else InvalidCredentials."""
    now = user.last_login_at = clock.now()
    # Also holds the row: of sign-ins at once, each counts the sessions of the one before.
    unchanged = (
        (User.id == user.id)
        & (User.session_epoch == user.session_epoch)
        & (User.password_hash == user.password_hash)
    )
    if not User.update(last_login_at=now).where(unchanged).execute():
        raise InvalidCredentials
    guessing.remember_address(user)
    session = Session.create(
        user=user, epoch=user.session_epoch, expires_at=_expiry(now, now), **_origin()
    )
    kept = (
        Session.select(Session.id)
        .where(Session.user == user)
        .order_by(Session.last_used_at.desc(), Session.id.desc())
        .limit(context.settings().max_sessions_per_user)
    )
    Session.delete().where((Session.user == user) & Session.id.not_in(kept)).execute()
    return session


def refresh(token: str) -> dict[str, Any]:
    """Fresh tokens for the session of a refresh token, which is rotated by one guarded UPDATE.

    For a few seconds the token before the newest gets the newest again, so that parallel refreshes
    agree. Any older one is a copy in wrong hands: the session ends, and that outlives the refusal
    (RFC 9700 section 4.14.2).
    """
    session_id, presented = context.service().keyring.read_refresh(token)
    session = _living(session_id)
    if session.generation == presented:
        if _rotate(session):
            return _tokens(session.user, session_id, presented + 1)
        session = _living(session_id)  # somebody else was first
    if session.generation == presented + 1 and _in_grace(session):
        return _tokens(session.user, session_id, session.generation)
    if session.generation > presented:
        Session.delete().where(Session.id == session_id).execute()
        log.warning("session.reuse", extra={"session_id": str(session_id)})
    raise InvalidCredentials


def _alive() -> pw.ModelSelect:
    """The sessions that go on, with their users; auth/identify.py says the same in a statement."""
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
            last_used_at=now,
            expires_at=_expiry(session.created_at, now),
            **_origin(),
        )
        .where((Session.id == session.id) & (Session.generation == session.generation))
        .execute()
    )
    return bool(changed)


def _origin() -> dict[str, str | None]:
    """The columns that tell where the present call comes from."""
    call = context.call.get()
    if call is None:
        return {}
    user_agent = "".join(filter(str.isprintable, call.user_agent))[: Session.user_agent.max_length]
    return {"ip": call.address or None, "user_agent": user_agent or None}


def _in_grace(session: Session) -> bool:
    grace = timedelta(seconds=context.settings().refresh_grace_seconds)
    return clock.now() - session.rotated_at <= grace


def _expiry(created_at: datetime, used_at: datetime) -> datetime:
    settings = context.settings()
    idle = used_at + timedelta(days=settings.jwt_refresh_token_expire_days)
    return min(idle, created_at + timedelta(days=settings.session_absolute_days))


def _tokens(user: User, session_id: UUID, generation: int) -> dict[str, Any]:
    service = context.service()
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
    """A page of the actor's sessions that go on, newest first, and the next cursor.

    `session.current` is True for the one that the actor calls with.
    """
    page = newest(_alive().where(Session.user == actor.user_id), limit, cursor)
    for session in page[0]:
        session.current = session.id == actor.session_id
    return page


def end_session(actor: Identity, session_id: UUID) -> None:
    """End one of the actor's sessions; NotFound if it is not the actor's."""
    mine = (Session.id == session_id) & (Session.user == actor.user_id)
    if not Session.delete().where(mine).execute():
        raise NotFound
    log.info("session.end", extra={"user_id": str(actor.user_id), "session_id": str(session_id)})


def logout(actor: Identity) -> None:
    """End the actor's session."""
    Session.delete().where(Session.id == actor.session_id).execute()
    log.info("logout", extra={"user_id": str(actor.user_id)})


@atomic
def logout_all(actor: Identity) -> None:
    """End all sessions of the actor, those included that are just being made."""
    users.end_sessions(actor.user_id)
    Session.delete().where(Session.user == actor.user_id).execute()
    log.info("logout", extra={"user_id": str(actor.user_id), "sessions": "all"})


def change_me(actor: Identity, current_password: str, **changes: Any) -> User:
    """The actor's user after `changes` to the username. Forbidden for a wrong password."""
    guessing.require_password(actor, current_password)
    return users.rename(actor, **changes)


def change_password(actor: Identity, current_password: str, new_password: str) -> None:
    """Replace the actor's password and end all sessions but the calling one."""
    user = actor.user
    users.require_strong(new_password, "new_password", user.username, user.email)
    old = guessing.require_password(actor, current_password).password_hash
    new = context.service().hasher.hash(new_password)
    _replace_password(actor, old, new)
    log.info("password.change", extra={"user_id": str(actor.user_id)})


@atomic
def _replace_password(actor: Identity, old: str, new: str) -> None:
    if not users.replace_password(actor.user_id, old, new):
        raise guessing.wrong_password()
    epoch = User.select(User.session_epoch).where(User.id == actor.user_id)
    Session.update(epoch=epoch).where(Session.id == actor.session_id).execute()
    others = (Session.user == actor.user_id) & (Session.id != actor.session_id)
    Session.delete().where(others).execute()
