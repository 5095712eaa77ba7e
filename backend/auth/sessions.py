"""Open, list and end sessions."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import peewee as pw

from .. import services
from ..audit import service as audit
from ..core import clock, context
from ..core.errors import InvalidCredentials, NotFound
from ..core.identity import Identity
from ..db.database import atomic, count_by, delete_some, newest
from ..throttling import service as throttling
from ..users import service as users
from ..users.models import User
from .models import Session


@atomic
def open_session(user: User, action: str) -> dict[str, Any]:
    """Open a session for the user as they were when the password was checked; return tokens.

    Raises InvalidCredentials if the password, and so the epoch, or the second factor has changed.
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
        expires_at=expiry(now, now),
        **circumstances(),
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
    return tokens(user, session.id, session.generation)


def _self(user: User) -> Identity:
    """Return the user as the actor of a sign-in, before there is a session."""
    return Identity(user.id, user.username, user.role, "session")


def revoke_token(token: str) -> None:
    """End the session of an access or refresh token: having the token is enough to do so.

    Any refresh token that we signed will do, even one that has been replaced: it would also end the
    session in `refresh`. An expired access token will not. Raises InvalidCredentials for any other
    text.
    """
    try:
        _, session_id = services.current().access_tokens.read(token)
    except InvalidCredentials:
        session_id, _ = services.current().keyring.read_refresh(token)
    _end(session_id)


@atomic
def _end(session_id: UUID) -> None:
    session = _alive().where(Session.id == session_id).first()
    if session and Session.delete().where(Session.id == session_id).execute():
        target, user_id = ("session", session_id), str(session.user_id)
        audit.record(None, "session.end", target=target, user_id=user_id)


def _alive() -> pw.ModelSelect:
    """Query the living sessions, with their users; auth/lookup.py has the same condition."""
    return (
        Session.select(Session, User)
        .join(User)
        .where(
            (Session.epoch == User.session_epoch)
            & (Session.expires_at > clock.now())
            & User.is_active
        )
    )


def living(session_id: UUID) -> Session:
    """Return the living session with its user, or raise InvalidCredentials."""
    session: Session | None = _alive().where(Session.id == session_id).first()
    if session is None:
        raise InvalidCredentials
    return session


def circumstances() -> dict[str, str | None]:
    """Return the columns that say where the call comes from, and which secret signs for it."""
    call, secret_id = context.call.get(), services.current().keyring.secret_ids[0]
    if call is None:
        return {"secret_id": secret_id}
    user_agent = "".join(filter(str.isprintable, call.user_agent))[: Session.user_agent.max_length]
    return {"ip": call.address or None, "user_agent": user_agent or None, "secret_id": secret_id}


def expiry(created_at: datetime, used_at: datetime) -> datetime:
    """Return when a session expires that was created and last used at these times."""
    settings = context.settings()
    idle = used_at + timedelta(days=settings.jwt_refresh_token_expire_days)
    return min(idle, created_at + timedelta(days=settings.session_absolute_days))


def tokens(user: User, session_id: UUID, generation: int) -> dict[str, Any]:
    """Return the tokens of this generation of the session, as clients get them."""
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


def list_sessions(
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
    """End one of the actor's sessions, or raise NotFound."""
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


def prune(limit: int) -> int:
    """Delete at most `limit` expired sessions; return how many."""
    return delete_some(Session.select().where(Session.expires_at <= clock.now()), limit)


def secrets_in_use() -> dict[str, int]:
    """Count the living sessions that depend on each SECRET_KEY, by its id."""
    return count_by(Session.secret_id, _alive())
