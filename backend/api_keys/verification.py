"""Verify a key, and count its use. Every way to present a key comes through here.

A decision of `valid` is one use: one of its rate limit, `cost` of its quota. It writes to the
database only the quota, the switch to a new secret at its first use, and a digest that moves to the
current SECRET_KEY; everything else is written later, in batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from math import ceil, inf
from typing import NamedTuple

import peewee as pw

from .. import services
from ..core import clock
from ..core.identity import holds_role
from ..core.rate_limits import Rate
from ..db.database import current, db_time, execute
from . import lookup, networks
from .lookup import Key, Quota
from .models import ApiKeySecret
from .scopes import within
from .service import write_last_used

VALID = "valid"

# In the order of the checks: the first that fails is the answer.
CODES = (
    "not_found",
    "revoked",
    "disabled",
    "expired",
    "owner_inactive",
    "ip_not_allowed",
    "insufficient_scope",
    "rate_limited",
    "usage_exceeded",
    VALID,
)

_SPEND = (
    "UPDATE api_keys SET"
    " quota_remaining = CASE WHEN refilled_at < ? THEN refill_amount ELSE quota_remaining END - ?,"
    " refilled_at = CASE WHEN refilled_at < ? THEN ? ELSE refilled_at END"
    " WHERE id = ? AND (quota_remaining IS NULL OR"  # the quota was lifted meanwhile
    " CASE WHEN refilled_at < ? THEN refill_amount ELSE quota_remaining END >= ?)"
    " RETURNING quota_remaining"
)
_ACTIVATE = (
    "UPDATE api_keys SET grace_secret = current_secret, grace_ends_at = ?,"
    " current_secret = pending_secret, pending_secret = NULL WHERE id = ? AND pending_secret = ?"
)


class Decision(NamedTuple):
    """The decision about a key: `valid`, or the code of the first check that failed.

    `key` is None if there is none. `rate` is the state of its limit, and `quota` the quota with the
    least left, or None. For a key made by another, its ancestors' limits and quotas are
    included.
    """

    code: str
    key: Key | None = None
    rate: Rate | None = None
    quota: Quota | None = None

    @property
    def retry_after(self) -> int:
        """Seconds until the limit allows another use, or the quota is refilled.

        A day if it never is, since the owner may raise it.
        """
        if self.code == "rate_limited" and self.rate:
            return self.rate.reset_seconds
        if self.quota is None or self.quota.refill_at is None:
            return 86_400
        return max(1, ceil((self.quota.refill_at - clock.now()).total_seconds()))


def verify(
    text: str,
    scopes: Sequence[str] = (),
    address: str | None = None,
    *,
    role: str | None = None,
    cost: int = 1,
) -> Decision:
    """Decide whether the key with this text may be used for all of `scopes` from `address`.

    With a `role`, its owner must have it. If valid, this counts as a use, unless `cost` is 0.
    """
    key = lookup.key_of(text)
    if key is None or not cost:
        decision, _ = explain(key, scopes, address, role=role, cost=cost)
    else:
        code = first_failure(checks(key, scopes, address, role))
        decision = _use(key, text, cost) if code == VALID else _refusal(code, key)
        if decision.key is not None:
            _count(key, decision.code, address)
    services.current().metrics.verification(decision.code)
    return decision


def explain(
    key: Key | None,
    scopes: Sequence[str],
    address: str | None,
    *,
    role: str | None = None,
    cost: int = 1,
) -> tuple[Decision, list[tuple[str, bool]]]:
    """Return the decision, and (code, whether it passed) of every check, without using the key."""
    outcomes = list(checks(key, scopes, address, role, cost))
    code = first_failure(outcomes)
    return Decision(code) if key is None else _refusal(code, key), outcomes


def checks(
    key: Key | None,
    scopes: Iterable[str],
    address: str | None,
    role: str | None = None,
    cost: int | None = None,
) -> Iterator[tuple[str, bool]]:
    """Yield (code, whether it passed) for each check, in order.

    Without a key, yields only the first; without a `role`, leaves out `forbidden`. With a `cost`,
    includes limits and quotas, which a real use checks by counting.
    """
    yield "not_found", key is not None
    if key is None:
        return
    yield "revoked", not key.revoked
    yield "disabled", not key.disabled
    yield "expired", key.expires_at is None or key.expires_at > clock.now()
    yield "owner_inactive", key.owner.is_active
    lists = key.allowed_ips
    yield "ip_not_allowed", not lists or all(networks.allows(each, address) for each in lists)
    if role is not None:
        yield "forbidden", holds_role(key.owner.role, role)
    yield "insufficient_scope", within(scopes, key.scopes)
    if cost is not None:
        rate = _peek(key)
        yield "rate_limited", rate is None or rate.passed
        yield "usage_exceeded", all(each.remaining >= cost for each in key.quotas)


def first_failure(outcomes: Iterable[tuple[str, bool]]) -> str:
    """Return the code of the first check that fails, or `valid`."""
    return next((code for code, passed in outcomes if not passed), VALID)


def _refusal(code: str, key: Key) -> Decision:
    return Decision(code, key, _peek(key), _least(key.quotas))


def _peek(key: Key) -> Rate | None:
    return services.current().rate_limiter.peek(key.limits) if key.limits else None


def _least(quotas: Sequence[Quota]) -> Quota | None:
    return min(quotas, key=lambda quota: quota.remaining) if quotas else None


def _use(key: Key, text: str, cost: int) -> Decision:
    rate = None
    if key.limits:
        rate = services.current().rate_limiter.hit(key.limits)
        if not rate.passed:
            return Decision("rate_limited", key, rate, _least(key.quotas))
    if key.secret.state == "pending" or len(key.quotas) > 1:
        # All or nothing: spend every quota and activate the secret, or neither.
        with current.obj.atomic() as transaction:
            code, quota = _settle(key, text, cost)
            if code != VALID:
                transaction.rollback()
    else:
        code, quota = _settle(key, text, cost)
    if code == VALID:
        _renew_digest(key, text)
    return Decision(code, None if code == "not_found" else key, rate, quota)


def _settle(key: Key, text: str, cost: int) -> tuple[str, Quota | None]:
    """Spend `cost` and activate a new secret: return the code, and the quota to report."""
    left = []
    for quota in key.quotas:
        since = db_time(quota.since)
        spent = execute(_SPEND, since, cost, since, since, quota.key_id, since, cost).fetchall()
        if not spent:  # too little is left, or the key is gone
            if lookup.key_of(text) is None:
                return "not_found", None
            return "usage_exceeded", _lacking(key.quotas, quota, cost)
        if spent[0][0] is not None:  # the quota was lifted meanwhile
            left.append(quota._replace(remaining=spent[0][0]))
    return (VALID, _least(left)) if _is_activated(key, text) else ("not_found", None)


def _lacking(quotas: Sequence[Quota], refused: Quota, cost: int) -> Quota:
    """Return the quota that is refilled last, of those with too little left."""
    short = [each for each in quotas if each.remaining < cost]
    short = short or [refused._replace(remaining=cost - 1)]  # another use was faster
    return max(short, key=lambda each: each.refill_at.timestamp() if each.refill_at else inf)


def _is_activated(key: Key, text: str) -> bool:
    """Activate a pending secret; return False if it was replaced before this first use."""
    secret = key.secret
    if secret.state != "pending":
        return True
    ends = clock.now() + timedelta(seconds=secret.grace_seconds)
    if execute(_ACTIVATE, db_time(ends), key.id.hex, secret.id).rowcount:
        return True
    return lookup.key_of(text) is not None  # another request was first, or it was replaced


def _renew_digest(key: Key, text: str) -> None:
    """Move the digest to the current SECRET_KEY, so that the earlier one can be dropped."""
    keyring, secret = services.current().keyring, key.secret
    if secret.digested_by == keyring.secret_ids[0]:
        return
    # Keep its form: an import recognizes the key by it, and the text does not reveal it.
    digest = pw.Case(ApiKeySecret.digest, list(keyring.renewed(text).items()))
    moving = ApiKeySecret.update(secret_id=keyring.secret_ids[0], digest=digest).where(
        (ApiKeySecret.id == secret.id) & (ApiKeySecret.secret_id == secret.digested_by)
    )
    with suppress(pw.IntegrityError):  # imported again without the earlier SECRET_KEY
        moving.execute()


def _count(key: Key, code: str, address: str | None) -> None:
    """Count the decision, and remember a use and its address, to be written later."""
    service, key_id = services.current(), key.id.hex
    for count in service.on_verification:
        count(key_id, code)
    if code == VALID:
        service.write_behind[write_last_used].add(key_id, (clock.now(), address))
    service.periodic_tasks.wake()
