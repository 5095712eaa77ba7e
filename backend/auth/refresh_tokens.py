"""Exchange refresh tokens, and detect stolen copies."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from .. import services
from ..audit import service as audit
from ..core import clock, context
from ..core.errors import InvalidCredentials
from ..db.database import atomic
from . import sessions
from .models import Session


def refresh(token: str) -> dict[str, Any]:
    """Return fresh tokens for a refresh token's session, rotating it in one guarded UPDATE.

    For a few seconds the previous token also returns the newest, so that parallel refreshes agree;
    if it comes from elsewhere, that is recorded. Any older token is a stolen copy: the session
    ends, and stays ended although the request is refused (RFC 9700 section 4.14.2).
    """
    session_id, presented = services.current().keyring.read_refresh(token)
    session = sessions.living(session_id)
    if session.generation == presented:
        if _rotate(session):
            return sessions.tokens(session.user, session_id, presented + 1)
        session = sessions.living(session_id)  # another request was first
    if session.generation == presented + 1 and _in_grace(session):
        _record_grace(session)
        return sessions.tokens(session.user, session_id, session.generation)
    if session.generation > presented:
        _end_copied(session)
    raise InvalidCredentials


def session_of_refresh_token(token: str) -> Session:
    """Return the session, with its user, for which this refresh token could be exchanged now.

    Raises InvalidCredentials if there is none. Changes nothing.
    """
    session_id, presented = services.current().keyring.read_refresh(token)
    session = sessions.living(session_id)
    behind = session.generation - presented
    if behind and (behind != 1 or not _in_grace(session)):
        raise InvalidCredentials
    return session


@atomic
def _record_grace(session: Session) -> None:
    """Record, once per rotation, that the previous refresh token came from elsewhere.

    Elsewhere is another address or agent than the rotation: a browser's tabs share both, a thief
    who polls with a copied token rarely does.
    """
    here = sessions.circumstances()
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


def _rotate(session: Session) -> bool:
    """Move the session to its next generation; False if another request did so first."""
    now = clock.now()
    changed = (
        Session.update(
            generation=session.generation + 1,
            rotated_at=now,
            last_used_at=max(now, session.created_at),  # the clock may have been set back
            expires_at=sessions.expiry(session.created_at, now),
            **sessions.circumstances(),
        )
        .where((Session.id == session.id) & (Session.generation == session.generation))
        .execute()
    )
    return bool(changed)


def _in_grace(session: Session) -> bool:
    grace = timedelta(seconds=context.settings().refresh_grace_seconds)
    return clock.now() - session.rotated_at <= grace
