"""Find a key, with the statement that each request with one runs.

It is written by hand because building a query costs more than running it. Everything that can end a
key is read each time, so that revoking a key or disabling its owner takes effect immediately, in
every process.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID

from .. import services
from ..core import clock, context, rate_limits
from ..core.identity import Identity
from ..core.rate_limits import Window
from ..core.settings_parsers import Limit
from ..db.database import execute, from_db_time
from ..users.rows import SELECTED, UserRow, user_row, uuid_of
from . import quotas
from .scopes import common, effective

_OF_USER = len(UserRow._fields)  # the first columns of a key's row

# The columns that limit a key and all its descendants.
_BOUNDS = (
    "k.parent_id, k.id, k.scopes, k.allowed_ips, k.expires_at, k.disabled, k.revoked_at,"
    " k.rate_limit_uses, k.rate_limit_seconds, k.quota_remaining, k.refill_amount,"
    " k.refill_interval, k.refilled_at"
)
_KEY = (
    f"SELECT {SELECTED}, {_BOUNDS}, k.name, k.metadata, s.id, s.secret_id, k.current_secret,"  # noqa: S608
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
    """Return the statement for one of `number` digests.

    One statement, because between two, another request could move the row to another digest.
    Several rows match if two imported digests are of the same text. A revoked key then comes first,
    so that the text is refused from then on.
    """
    order = " ORDER BY k.revoked_at IS NULL, s.id LIMIT 1" if number > 1 else ""
    return f"{_KEY} WHERE s.digest IN ({', '.join('?' * number)}){order}"


class Quota(NamedTuple):
    """What is left of a key's quota since `since`, and when it is refilled, if ever."""

    key_id: str
    remaining: int
    since: datetime
    refill_at: datetime | None


class Secret(NamedTuple):
    """The secret by which a key was found. `digested_by` is the id of the SECRET_KEY used.

    `ends_at` is the end of its grace period; None unless another secret has replaced it.
    """

    id: Any
    digested_by: str
    state: Literal["current", "pending", "grace"]
    grace_seconds: int = 0  # for the previous secret, once this one replaces it
    ends_at: datetime | None = None


class Key(NamedTuple):
    """A key as read for a decision, with its owner's row.

    A key that was made with another key is limited to what that key and its ancestors allow now: it
    is revoked if one of them is, and their limits and quotas apply in addition to its own.
    """

    id: UUID
    name: str
    scopes: frozenset[str]  # the effective ones: what the owner's role allows now
    metadata: str  # a JSON object
    allowed_ips: Sequence[Sequence[str]]  # an address must be in each of these lists
    expires_at: datetime | None
    disabled: bool
    revoked: bool
    limits: Sequence[Window]
    quotas: Sequence[Quota]  # in the order of the ids, in which their rows are locked
    secret: Secret
    owner: Any

    @property
    def identity(self) -> Identity:
        """The identity of a caller with this key."""
        who = self.owner
        return Identity(
            who.id, who.username, who.role, "api_key", key_id=self.id, scopes=self.scopes, user=who
        )


def key_of(text: str) -> Key | None:
    """Return the key with this text, whatever its state, or None.

    Text in our format with a wrong checksum is refused without a query. A replaced secret no longer
    finds the key once its grace period is over.
    """
    digests = [digest for _, digest in services.current().keyring.digests(text)]
    if not digests:
        return None
    row = execute(_by_digest(len(digests)), *digests).fetchone()
    return None if row is None else _key(row)


def key_by_id(key_id: UUID) -> Key | None:
    """Return the key with this id, as `key_of` does."""
    row = execute(_BY_ID, key_id.hex).fetchone()
    return None if row is None else _key(row)


def _key(row: tuple) -> Key | None:
    secret = _secret(row[_OF_USER + 15 :])
    if secret is None:
        return None
    owner = user_row(row)
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
    ) = row[_OF_USER : _OF_USER + 15]
    key_id = uuid_of(found)
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
    """Limit the key to what its ancestors allow; None if they were just deleted with it."""
    rows = execute(_ANCESTORS, uuid_of(parent_id).hex).fetchall()
    if not rows:
        return None
    who = key.owner
    for _, found, scopes, allowed_ips, expires_at, disabled, revoked_at, *rest in rows:
        key_id = uuid_of(found)
        ends = [key.expires_at, None if expires_at is None else from_db_time(expires_at)]
        key = key._replace(
            scopes=common(key.scopes, _effective(scopes, who.role, who.kind)),
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
    """Return the effective scopes of a key. Cached, but the arguments are read at each request."""
    return effective(json.loads(stored), role, kind)


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
