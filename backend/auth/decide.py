"""Whether a key is good for what is asked: one pure decision, for every door that asks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from ..api_keys import networks
from ..api_keys import scopes as rules

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
    VALID,
)


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it was read to decide, with its owner's row."""

    id: UUID
    name: str
    scopes: frozenset[str]  # the effective ones: what the owner's role allows now
    metadata: dict[str, Any]
    allowed_ips: list[str]
    expires_at: datetime | None
    disabled: bool
    revoked: bool
    owner: Any


def checks(
    key: Key | None, scopes: Iterable[str], address: str | None, now: datetime
) -> Iterator[tuple[str, bool]]:
    """(code, whether it passed) of each check, in order. Without a key there is only the first."""
    yield "not_found", key is not None
    if key is None:
        return
    yield "revoked", not key.revoked
    yield "disabled", not key.disabled
    yield "expired", key.expires_at is None or key.expires_at > now
    yield "owner_inactive", key.owner.is_active
    yield "ip_not_allowed", networks.allows(key.allowed_ips, address)
    yield "insufficient_scope", rules.within(scopes, key.scopes)


def decide(key: Key | None, scopes: Iterable[str], address: str | None, now: datetime) -> str:
    """The code of the first check that fails, else `valid`."""
    failed = (code for code, passed in checks(key, scopes, address, now) if not passed)
    return next(failed, VALID)
