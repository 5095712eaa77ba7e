"""Answers about a key, for its owner and for services to which it was presented."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from ..core.identity import Identity
from . import lookup, queries, verification
from .verification import VALID, Decision


def verify(
    actor: Identity,
    key: str,
    *,
    scopes: list[str] | None = None,
    ip: str | None = None,
    cost: int = 1,
    explain: bool = False,
) -> dict[str, Any]:
    """Verify the key with this text, and describe it. If it is valid, this counts as a use.

    With `explain`, the answer lists all checks and their outcomes. Then, and at a cost of 0, it
    does not count as a use.
    """
    if explain:
        return _explained(*verification.explain(lookup.key_of(key), scopes or [], ip, cost=cost))
    return _described(verification.verify(key, scopes or [], ip, cost=cost))


def explain(
    actor: Identity, key_id: UUID, *, scopes: list[str] | None = None, ip: str | None = None
) -> dict[str, Any]:
    """Like `verify` with all checks, for a key that the actor may see. Does not count as a use."""
    queries.get(actor, key_id)
    return _explained(*verification.explain(lookup.key_by_id(key_id), scopes or [], ip))


def _explained(decision: Decision, outcomes: list[tuple[str, bool]]) -> dict[str, Any]:
    checks = [{"code": code, "passed": passed} for code, passed in outcomes]
    return {**_described(decision), "checks": checks}


def _described(decision: Decision) -> dict[str, Any]:
    answer: dict[str, Any] = {"valid": decision.code == VALID, "code": decision.code}
    key, rate = decision.key, decision.rate
    if key is not None:
        answer |= {
            "key_id": key.id,
            "owner": key.owner,
            "name": key.name,
            "scopes": sorted(key.scopes),
            "metadata": json.loads(key.metadata),
            "expires_at": key.expires_at,
        }
    if rate is not None:
        answer["rate_limit"] = rate
    if decision.quota is not None:
        answer["quota"] = decision.quota
    return answer
