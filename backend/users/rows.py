"""The user as each request reads it, without the ORM.

To read another column with each request, add it to the model, a migration and `UserRow`.
"""

from __future__ import annotations

import functools
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from ..db.database import from_db_time


class UserRow(NamedTuple):
    """The public columns of a user's row, under the model's names."""

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


SELECTED = ", ".join(f"u.{name}" for name in UserRow._fields)  # FROM users u
_WIDTH = len(UserRow._fields)


def user_row(row: Any) -> UserRow:
    """Return the user in the first columns of a row, which are those of SELECTED.

    Rows of hand-written SQL come as the driver returns them: SQLite has no UUID, bool or time.
    """
    user = UserRow._make(row[:_WIDTH])
    login = user.last_login_at
    return user._replace(
        id=uuid_of(user.id),
        is_active=bool(user.is_active),
        mfa_enabled=bool(user.mfa_enabled),
        created_at=from_db_time(user.created_at),
        updated_at=from_db_time(user.updated_at),
        last_login_at=None if login is None else from_db_time(login),
    )


@functools.lru_cache(4096)
def uuid_of(value: str | UUID) -> UUID:
    """Return the id as a UUID; SQLite keeps it as text."""
    return UUID(int=int(value, 16)) if isinstance(value, str) else value
