"""Who a credential stands for: the two statements that each authenticated request runs.

They are written by hand because building a query costs more than running it. Everything that can
end a credential is in them and read at each request, so that an ended session, a revoked key and
a disabled user count at once, in every process.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from ..api_keys import scopes as rules
from ..api_keys.models import ApiKeySecret
from ..core import clock, context, tokens
from ..core.database import current, db_time, from_db_time, on_postgres
from ..core.errors import InvalidCredentials
from ..core.identity import Identity
from .decide import Key, decide

_USER = (
    "u.id, u.username, u.email, u.pending_email, u.role, u.kind, u.is_active, u.mfa_enabled,"
    " u.created_at, u.updated_at, u.last_login_at"
)
_BY_SESSION = (
    f"SELECT {_USER} FROM sessions s JOIN users u ON u.id = s.user_id"  # noqa: S608 (no input)
    " WHERE s.id = ? AND u.id = ? AND s.epoch = u.session_epoch AND s.expires_at > ?"
    " AND u.is_active"
)
_KEY = (
    f"SELECT {_USER}, k.id, k.name, k.scopes, k.metadata, k.allowed_ips, k.expires_at, k.disabled,"  # noqa: S608
    " k.revoked_at, s.id, s.secret_id FROM api_key_secrets s"
    " JOIN api_keys k ON k.id = s.key_id JOIN users u ON u.id = k.owner_id"
)
_BY_TEXT = f"{_KEY} WHERE s.digest IN ({{digests}})"
_BY_ID = f"{_KEY} WHERE k.id = ?"


class Caller(NamedTuple):
    """The public columns of the caller's row, under the names that the model has."""

    id: UUID
    username: str
    email: str | None
    pending_email: str | None
    role: str
    kind: str
    is_active: bool
    mfa_enabled: bool
    created_at: datetime
    updated_at: datetime
    last_login_at: datetime | None


def by_access_token(token: str) -> Identity:
    """The identity of a session that goes on, else InvalidCredentials."""
    user_id, session_id = context.service().access_tokens.read(token)
    row = _one(_BY_SESSION, session_id.hex, user_id.hex, db_time(clock.now()))
    if row is None:
        raise InvalidCredentials
    user = _caller(row)
    return Identity(user.id, user.username, user.role, "session", session_id, user=user)


def by_api_key(
    text: str, scopes: Sequence[str] = (), address: str | None = None
) -> tuple[str, Identity | None]:
    """What is decided of the key, and the identity behind it; None if there is no such key.

    That the key was used is for `note_use` to say: a request that is refused for another reason is
    no use.
    """
    key = key_of(text)
    code = decide(key, scopes, address, clock.now())
    if key is None:
        return code, None
    user = key.owner
    identity = Identity(
        user.id, user.username, user.role, "api_key", key_id=key.id, scopes=key.scopes, user=user
    )
    return code, identity


def key_of(text: str) -> Key | None:
    """The key whose text is given, in whatever state; None if there is none.

    Text of the wrong form or checksum is refused without a query.
    """
    if not tokens.is_api_key(text):
        return None
    digests = context.service().keyring.digests(text)
    # All in one statement: between two, another request may move the row to the present secret.
    statement = _BY_TEXT.format(digests=", ".join("?" * len(digests)))
    row = _one(statement, *(digest for _, digest in digests))
    if row is None:
        return None
    secret_row, secret_id = row[-2:]
    if secret_id != digests[0][0]:
        _move_on(secret_row, secret_id, *digests[0])
    return _key(row)


def key_by_id(key_id: UUID) -> Key | None:
    """The key with this id, as `key_of` gives it."""
    row = _one(_BY_ID, key_id.hex)
    return None if row is None else _key(row)


def note_use(identity: Identity, address: str) -> None:
    """Remember that the identity's key was used now, from `address`; it is written later."""
    if identity.key_id:
        note_key_use(identity.key_id, address)


def note_key_use(key_id: UUID, address: str | None) -> None:
    """Remember that the key was used now, from `address` if that is known."""
    service = context.service()
    service.last_used.note(key_id.hex, (clock.now(), address))
    service.chores.wake()


def _one(statement: str, *parameters: object) -> Any:
    if on_postgres():
        statement = statement.replace("?", "%s")
    return current.execute_sql(statement, parameters).fetchone()


def _move_on(secret_row: object, old: str, new: str, digest: str) -> None:
    """Digest the key under the present SECRET_KEY, so that the earlier one can be dropped."""
    ApiKeySecret.update(secret_id=new, digest=digest).where(
        (ApiKeySecret.id == secret_row) & (ApiKeySecret.secret_id == old)
    ).execute()


def _key(row: tuple) -> Key:
    owner = _caller(row)
    key_id, name, scopes, metadata, allowed_ips, expires_at, disabled, revoked_at = row[11:19]
    return Key(
        id=_uuid(key_id),
        name=name,
        scopes=rules.effective(json.loads(scopes), owner.role, owner.kind),
        metadata=json.loads(metadata or "{}"),
        allowed_ips=json.loads(allowed_ips or "[]"),
        expires_at=None if expires_at is None else from_db_time(expires_at),
        disabled=bool(disabled),
        revoked=revoked_at is not None,
        owner=owner,
    )


def _caller(row: tuple) -> Caller:
    """Rows of hand-written SQL come as the driver gives them: SQLite knows no UUID, bool, time."""
    return Caller(
        id=_uuid(row[0]),
        username=row[1],
        email=row[2],
        pending_email=row[3],
        role=row[4],
        kind=row[5],
        is_active=bool(row[6]),
        mfa_enabled=bool(row[7]),
        created_at=from_db_time(row[8]),
        updated_at=from_db_time(row[9]),
        last_login_at=None if row[10] is None else from_db_time(row[10]),
    )


def _uuid(value: str | UUID) -> UUID:
    return value if isinstance(value, UUID) else UUID(value)
