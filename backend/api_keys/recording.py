"""Record in the audit trail what happens to keys."""

from __future__ import annotations

from typing import Any

import peewee as pw

from ..audit import service as audit
from ..core.identity import Identity
from .models import ApiKey


def record(actor: Identity | None, action: str, *keys: ApiKey, **detail: Any) -> None:
    """Record that the actor did this to each of the keys."""
    for some in pw.chunked(keys, 200):  # as many as fit into one statement
        acts = [(("api_key", key.id), {"owner_id": str(key.owner_id), **detail}) for key in some]
        audit.record_each(actor, action, acts)
