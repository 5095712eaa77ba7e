"""Who a credential stands for: the two statements that each authenticated request runs.

They are written by hand because building a query costs more than running it. Everything that can
end a credential is in them and read at each request, so that an ended session, a revoked key and
a disabled user count at once, in every process.
"""

from __future__ import annotations

import functools
import json
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from .. import services
from ..api_keys import quotas
from ..api_keys import scopes as rules
from ..core import clock, context, rate_limits
from ..core.errors import InvalidCredentials
from ..core.identity import Identity
from ..core.rate_limits import Window
from ..core.settings import Limit
from ..db.database import db_time, execute, from_db_time
from .decide import Key, Quota, Secret

_USER = (
    "u.id, u.username, u.email, u.pending_email, u.role, u.kind, u.is_active, u.mfa_enabled,"
    " u.created_at, u.updated_at, u.last_login_at"
)
_BY_SESSION = (
    f"SELECT {_USER} FROM sessions s JOIN users u ON u.id = s.user_id"  # noqa: S608 (no input)
    " WHERE s.id = ? AND u.id = ? AND s.epoch = u.session_epoch AND s.expires_at > ?"
    " AND u.is_active"
)
# What bounds the uses of a key, and, of those that made it, the uses of all that came of them.
_BOUNDS = (
    "k.parent_id, k.id, k.scopes, k.allowed_ips, k.expires_at, k.disabled, k.revoked_at,"
    " k.rate_limit_uses, k.rate_limit_seconds, k.quota_remaining, k.refill_amount,"
    " k.refill_interval, k.refilled_at"
)
_KEY = (
    f"SELECT {_USER}, {_BOUNDS}, k.name, k.metadata, s.id, s.secret_id, k.current_secret,"  # noqa: S608
    " k.pending_secret, k.grace_secret, k.grace_ends_at, k.grace_seconds FROM api_key_secrets s"
    " JOIN api_keys k ON k.id = s.key_id JOIN users u ON u.id = k.owner_id"
)
_ANCESTORS = (
    f"WITH RECURSIVE line AS (SELECT {_BOUNDS} FROM api_keys k WHERE k.id = ? UNION ALL"  # noqa: S608
    f" SELECT {_BOUNDS} FROM line JOIN api_keys k ON k.id = line.parent_id) SELECT * FROM line"
)
_BY_ID = f"{_KEY} WHERE k.id = ? AND s.id = k.current_secret"


@functools.cache
def _by_digest(number: int) -> str:
    """One of so many. Between two statements, another request may move the row to another.

    Several may be stored: nobody can tell that two digests of another system are of one text. Then
    a key that is revoked goes before others, so that the text is refused from then on.
    """
    order = " ORDER BY k.revoked_at IS NULL, s.id LIMIT 1" if number > 1 else ""
    return f"{_KEY} WHERE s.digest IN ({', '.join('?' * number)}){order}"


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
    user_id, session_id = services.current().access_tokens.read(token)
    row = execute(_BY_SESSION, session_id.hex, user_id.hex, db_time(clock.now())).fetchone()
    if row is None:
        raise InvalidCredentials
    user = _caller(row)
    return Identity(user.id, user.username, user.role, "session", session_id, user=user)


def key_of(text: str) -> Key | None:
    """The key whose text is given, in whatever state; None if there is none.

    Text of our form with a wrong checksum is refused without a query. A secret whose place another
    has taken, and whose grace is over, is that of no key.
    """
    digests = [digest for _, digest in services.current().keyring.digests(text)]
    if not digests:
        return None
    row = execute(_by_digest(len(digests)), *digests).fetchone()
    return None if row is None else _key(row)


def key_by_id(key_id: UUID) -> Key | None:
    """The key with this id, as `key_of` gives it."""
    row = execute(_BY_ID, key_id.hex).fetchone()
    return None if row is None else _key(row)


def _key(row: tuple) -> Key | None:
    secret = _secret(row[26:])
    if secret is None:
        return None
    owner = _caller(row)
    (
        parent_id,
        found,
        scopes,
        allowed_ips,
        expires_at,
        disabled,
        revoked_at,
        uses,
        seconds,
        *quota,
        name,
        metadata,
    ) = row[11:26]
    key_id = _uuid(found)
    key = Key(
        id=key_id,
        name=name,
        scopes=_effective(scopes, owner.role, owner.kind),
        metadata=metadata or "{}",
        allowed_ips=_blocks(allowed_ips),
        expires_at=None if expires_at is None else from_db_time(expires_at),
        disabled=bool(disabled),
        revoked=revoked_at is not None,
        limits=_limits(key_id, uses, seconds),
        quotas=() if quota[0] is None else _quotas(key_id, *quota),
        secret=secret,
        owner=owner,
    )
    return key if parent_id is None else _within_ancestors(key, parent_id)


def _within_ancestors(key: Key, parent_id: str | UUID) -> Key | None:
    """The key as far as those that made it allow; None if they have just been deleted with it."""
    rows = execute(_ANCESTORS, _uuid(parent_id).hex).fetchall()
    if not rows:
        return None
    who = key.owner
    for _, found, scopes, allowed_ips, expires_at, disabled, revoked_at, *rest in rows:
        key_id = _uuid(found)
        ends = [key.expires_at, None if expires_at is None else from_db_time(expires_at)]
        key = key._replace(
            scopes=rules.common(key.scopes, _effective(scopes, who.role, who.kind)),
            allowed_ips=(*key.allowed_ips, *_blocks(allowed_ips)),
            expires_at=min(filter(None, ends), default=None),
            disabled=key.disabled or bool(disabled),
            revoked=key.revoked or revoked_at is not None,
            limits=(*key.limits, *_limits(key_id, *rest[:2])),
            quotas=(*key.quotas, *_quotas(key_id, *rest[2:])),
        )
    return key._replace(quotas=tuple(sorted(key.quotas)))


def _blocks(allowed_ips: str | None) -> tuple[list[str], ...]:
    return (json.loads(allowed_ips),) if allowed_ips else ()


def _limits(key_id: UUID, uses: int | None, seconds: int | None) -> tuple[Window, ...]:
    own = Limit(uses, seconds) if uses and seconds else None
    limit = rate_limits.of_key(own, context.settings())
    return ((key_id.hex, limit),) if limit else ()


@functools.lru_cache(1024)
def _effective(stored: str, role: str, kind: str) -> frozenset[str]:
    """The scopes of a key's row. What they follow from is read at each request."""
    return rules.effective(json.loads(stored), role, kind)


def _secret(columns: tuple) -> Secret | None:
    secret_id, digested_by, current, pending, grace, ends_at, grace_seconds = columns
    if secret_id == current:
        return Secret(secret_id, digested_by, "current")
    if secret_id == pending:
        return Secret(secret_id, digested_by, "pending", grace_seconds)
    if secret_id == grace and from_db_time(ends_at) > clock.now():
        return Secret(secret_id, digested_by, "grace", ends_at=from_db_time(ends_at))
    return None


def _quotas(
    key_id: UUID,
    remaining: int | None,
    amount: int | None,
    interval: str | None,
    refilled_at: Any,
) -> tuple[Quota, ...]:
    if remaining is None:
        return ()
    now = clock.now()
    if amount is not None and quotas.is_due(interval, from_db_time(refilled_at), now):
        remaining = amount
    since, refill_at = quotas.period_start(interval, now), quotas.next_start(interval, now)
    return (Quota(key_id.hex, remaining, since, refill_at),)


def _caller(row: tuple) -> Caller:
    """Rows of hand-written SQL come as the driver gives them: SQLite knows no UUID, bool, time."""
    user_id, username, email, pending, role, kind, active, mfa, created, updated, login = row[:11]
    return Caller(
        _uuid(user_id),
        username,
        email,
        pending,
        role,
        kind,
        bool(active),
        bool(mfa),
        from_db_time(created),
        from_db_time(updated),
        None if login is None else from_db_time(login),
    )


@functools.lru_cache(4096)
def _uuid(value: str | UUID) -> UUID:
    return UUID(int=int(value, 16)) if isinstance(value, str) else value
