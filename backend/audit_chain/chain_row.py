"""The row that holds the ends of the chain, and its key. Skip it on a first reading."""

from __future__ import annotations

import hashlib
import hmac
import json
from uuid import UUID

from .. import services
from ..audit.models import AuditEvent
from ..core.errors import Conflict
from .models import AuditChain

GONE = "Audit events are sealed, but the row of their chain is missing."
FORGED = "The row of the audit chain has been altered."
_KEY_LOST = (
    "The key of the audit chain was altered, or is encrypted under a SECRET_KEY that is no longer"
    " set: add that SECRET_KEY to SECRET_KEY_FALLBACKS. Until then, events are not sealed."
)
CHAIN = UUID(int=0)  # the id of the one row
_KEY_KIND = b"audit:"  # precedes the key, so no other value that we encrypt can replace it

# The label under which the chain's row is authenticated. A chain left by a version that did not
# sign events keeps the first one until its unsigned events have been sealed.
_OF_UNSIGNED, _OF_SIGNED = "chain", "chain of signed events"


def stored() -> AuditChain | None:
    """Return the row, or None. Raises Conflict if its values are of the wrong types."""
    try:
        chain: AuditChain | None = AuditChain.get_or_none(AuditChain.id == CHAIN)
    except (ValueError, TypeError, OverflowError):  # SQLite accepts values of any type
        raise Conflict("conflict", FORGED) from None
    numbers = (chain.start_sequence, chain.last_sequence) if chain else ()
    if not all(isinstance(number, int) for number in numbers):
        raise Conflict("conflict", FORGED)
    return chain


def is_anything_sealed() -> bool:
    """Return whether any event is sealed."""
    return bool(AuditEvent.select().where(AuditEvent.sequence.is_null(False)).exists())


def is_authentic(chain: AuditChain, key: bytes) -> bool:
    """Return whether the row is as it was last saved."""
    return chain.mac == _mac(chain, key) or takes_unsigned(chain, key)


def takes_unsigned(chain: AuditChain, key: bytes) -> bool:
    """Return whether the chain was left by a version that did not sign events."""
    return bool(chain.mac == _mac(chain, key, _OF_UNSIGNED))


def _mac(chain: AuditChain, key: bytes, kind: str = _OF_SIGNED) -> str:
    ends = [chain.start_sequence, chain.start_seal, chain.last_sequence, chain.last_seal]
    return hmac.digest(
        key, f"{kind}{json.dumps(ends, default=repr)}".encode(), hashlib.sha256
    ).hex()


def save(chain: AuditChain, key: bytes) -> None:
    """Authenticate the row and store it."""
    chain.mac = _mac(chain, key)
    chain.save()


def wrap(key: bytes) -> str:
    """Return the key of the seals, encrypted under the current SECRET_KEY."""
    return services.current().keyring.encrypt(_KEY_KIND + key)


def unwrap(chain: AuditChain) -> tuple[bytes, bool]:
    """Return (the key of the seals, whether an earlier SECRET_KEY wraps it), or raise Conflict."""
    try:
        data, outdated = services.current().keyring.decrypt(chain.wrapped_key)
    except LookupError:
        data, outdated = b"", False
    if not data.startswith(_KEY_KIND):
        raise Conflict("conflict", _KEY_LOST)
    return data.removeprefix(_KEY_KIND), outdated
