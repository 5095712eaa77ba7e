"""What is told of a key to a service that was shown it, or to its owner."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from ..api_keys import service as keys
from ..auth import identify
from ..auth.decide import VALID, Key, checks
from ..core import clock
from ..core.identity import Identity


def verify(
    actor: Identity,
    key: str,
    *,
    scopes: list[str] | None = None,
    ip: str | None = None,
    cost: int = 1,
    explain: bool = False,
) -> dict[str, Any]:
    """What is decided of the key with this text, and what it is. A valid one has been used then.

    With `explain`, all checks and their outcomes; then, and at a cost of 0, it is no use.
    """
    found = identify.key_of(key)
    answer = _answer(found, scopes or [], ip, explain=explain)
    if found is not None and answer["valid"] and cost and not explain:
        identify.note_key_use(found.id, ip)
    return answer


def explain(
    actor: Identity, key_id: UUID, *, scopes: list[str] | None = None, ip: str | None = None
) -> dict[str, Any]:
    """As `verify`, of a key that the actor may see, with all checks. It is no use of the key."""
    keys.get(actor, key_id)
    return _answer(identify.key_by_id(key_id), scopes or [], ip, explain=True)


def _answer(key: Key | None, scopes: list[str], ip: str | None, *, explain: bool) -> dict[str, Any]:
    outcomes = list(checks(key, scopes, ip, clock.now()))
    code = next((code for code, passed in outcomes if not passed), VALID)
    answer: dict[str, Any] = {"valid": code == VALID, "code": code}
    if explain:
        answer["checks"] = [{"code": name, "passed": passed} for name, passed in outcomes]
    if key is not None:
        answer |= {
            "key_id": key.id,
            "owner": key.owner,
            "name": key.name,
            "scopes": sorted(key.scopes),
            "metadata": key.metadata,
            "expires_at": key.expires_at,
        }
    return answer
