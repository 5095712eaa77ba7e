"""Who a credential stands for: the two statements that each authenticated request runs.

They are written by hand because building a query costs more than running it. Everything that can
end a credential is in them and read at each request, so that an ended session, a revoked key and
a disabled user count at once, in every process.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from ..api_keys import scopes as rules
from ..api_keys.models import ApiKeySecret
from ..core import clock, context, tokens
from ..core.database import current, db_time, from_db_time, on_postgres
from ..core.errors import InvalidCredentials
from ..core.identity import Identity

_USER = (
    "u.id, u.username, u.email, u.pending_email, u.role, u.kind, u.is_active, u.mfa_enabled,"
    " u.created_at, u.updated_at, u.last_login_at"
)
_BY_SESSION = (
    f"SELECT {_USER} FROM sessions s JOIN users u ON u.id = s.user_id"  # noqa: S608 (no input)
    " WHERE s.id = ? AND u.id = ? AND s.epoch = u.session_epoch AND s.expires_at > ?"
    " AND u.is_active"
)
_BY_KEY = (
    f"SELECT {_USER}, k.id, k.scopes, s.id, s.secret_id FROM api_key_secrets s"  # noqa: S608
    " JOIN api_keys k ON k.id = s.key_id JOIN users u ON u.id = k.owner_id"
    " WHERE s.digest IN ({digests}) AND k.revoked_at IS NULL AND NOT k.disabled"
    " AND (k.expires_at IS NULL OR k.expires_at > ?) AND u.is_active"
)


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


def by_api_key(text: str) -> Identity:
    """The identity of a key that is active and whose owner is, else InvalidCredentials.

    Text of the wrong form or checksum is refused without a query. That the key was used is for
    `note_use` to say: a request that is refused for another reason is no use.
    """
    if not tokens.is_api_key(text):
        raise InvalidCredentials
    digests = context.service().keyring.digests(text)
    # All in one statement: between two, another request may move the row to the present secret.
    statement = _BY_KEY.format(digests=", ".join("?" * len(digests)))
    row = _one(statement, *(digest for _, digest in digests), db_time(clock.now()))
    if row is None:
        raise InvalidCredentials
    user = _caller(row)
    key_id, stored, secret_row, secret_id = row[11:]
    if secret_id != digests[0][0]:
        _move_on(secret_row, secret_id, *digests[0])
    return Identity(
        user.id,
        user.username,
        user.role,
        "api_key",
        key_id=_uuid(key_id),
        scopes=rules.effective(json.loads(stored), user.role, user.kind),
        user=user,
    )


def note_use(identity: Identity, address: str) -> None:
    """Remember that the identity's key was used now, from `address`; it is written later."""
    if identity.key_id:
        service = context.service()
        service.last_used.note(identity.key_id.hex, (clock.now(), address))
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
