"""Find the descendants and ancestors of a key: those made with it, and those that made it.

Skip it on a first reading. All keys of a line have the same owner.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from uuid import UUID

import peewee as pw

from .models import ApiKey


def living(keys: Collection[UUID], beside: Collection[UUID] = ()) -> pw.ModelSelect:
    """Query these keys and all their descendants, in the order of their ids.

    Leaves out revoked keys, except for `keys` themselves. `beside` holds further keys to include.
    """
    line = ApiKey.select(ApiKey.id).where(ApiKey.id.in_(keys)).cte("line", recursive=True)
    child = ApiKey.alias()
    line = line.union_all(child.select(child.id).join(line, on=child.parent == line.c.id))
    others = ApiKey.select(ApiKey.id).where(ApiKey.id.in_(beside))
    wanted = line.select_from(line.c.id).union(others) if beside else line.select_from(line.c.id)
    living = ApiKey.revoked_at.is_null() | ApiKey.id.in_(keys)
    return ApiKey.select().where(ApiKey.id.in_(wanted), living).order_by(ApiKey.id)


def ancestors(key_id: UUID) -> list[UUID]:
    """Return the ids of all ancestors of this key."""
    first = ApiKey.select(ApiKey.parent).where(ApiKey.id == key_id)
    return [found for (found,) in _upwards(first).tuples()]


def in_use(last_use: Any, since: Any) -> pw.Select:
    """Query the ids of all ancestors of keys that were used since then."""
    return _upwards(ApiKey.select(ApiKey.parent).where(last_use >= since))


def _upwards(first: pw.ModelSelect) -> pw.Select:
    """Query the parents that `first` selects, and all their ancestors."""
    line = first.cte("line", recursive=True, columns=("id",))
    above = ApiKey.alias()
    line = line.union(above.select(above.parent).join(line, on=above.id == line.c.id))
    return line.select_from(line.c.id).where(line.c.id.is_null(False))
