"""Whether a key is good for what is asked: one pure decision, for every door that asks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID

from ..api_keys import networks
from ..api_keys import scopes as rules
from ..core.identity import Identity
from ..core.rate_limits import Window

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


class Quota(NamedTuple):
    """What may still be spent of a key, since `since`, and when it is refilled, if it is."""

    key_id: str
    remaining: int
    since: datetime
    refill_at: datetime | None


class Secret(NamedTuple):
    """The secret by which a key was found. `digested_by`: the id of what made its digest.

    `ends_at` is the end of its grace; None unless another has taken its place.
    """

    id: Any
    digested_by: str
    state: Literal["current", "pending", "grace"]
    grace_seconds: int = 0  # of the one before, once this one has taken its place
    ends_at: datetime | None = None


class Key(NamedTuple):
    """A key as it was read to decide, with its owner's row.

    A key that was made with another one is here as far as that one, and those before it, allow now:
    revoked if one of them is, and with their limits and quotas beside its own.
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
        """Who calls with this key."""
        who = self.owner
        return Identity(
            who.id, who.username, who.role, "api_key", key_id=self.id, scopes=self.scopes, user=who
        )


def holds_role(role: str, wanted: str | None) -> bool:
    """True if the role is the one that is wanted, or none is; an administrator is a user too."""
    return wanted is None or role in (wanted, "admin")


def checks(
    key: Key | None,
    scopes: Iterable[str],
    address: str | None,
    now: datetime,
    role: str | None = None,
) -> Iterator[tuple[str, bool]]:
    """(code, whether it passed) of each check that needs nobody else, in order.

    Without a key there is only the first; only where a `role` is asked for is there `forbidden`.
    What remains is to count the use: verification.py.
    """
    yield "not_found", key is not None
    if key is None:
        return
    yield "revoked", not key.revoked
    yield "disabled", not key.disabled
    yield "expired", key.expires_at is None or key.expires_at > now
    yield "owner_inactive", key.owner.is_active
    lists = key.allowed_ips
    yield "ip_not_allowed", not lists or all(networks.allows(each, address) for each in lists)
    if role is not None:
        yield "forbidden", holds_role(key.owner.role, role)
    yield "insufficient_scope", rules.within(scopes, key.scopes)


def decide(
    key: Key | None,
    scopes: Iterable[str],
    address: str | None,
    now: datetime,
    role: str | None = None,
) -> str:
    """The code of the first check that fails, else `valid`."""
    failed = (code for code, passed in checks(key, scopes, address, now, role) if not passed)
    return next(failed, VALID)
