"""Find the session of an access token, with the statement that each request with one runs.

It is written by hand because building a query costs more than running it. It checks everything that
can end a session, so that ending one or disabling a user takes effect immediately, in every
process.
"""

from __future__ import annotations

from .. import services
from ..core import clock
from ..core.errors import InvalidCredentials
from ..core.identity import Identity
from ..db.database import db_time, execute
from ..users.rows import SELECTED, user_row

_BY_SESSION = (
    f"SELECT {SELECTED} FROM sessions s JOIN users u ON u.id = s.user_id"  # noqa: S608 (no input)
    " WHERE s.id = ? AND u.id = ? AND s.epoch = u.session_epoch AND s.expires_at > ?"
    " AND u.is_active"
)


def by_access_token(token: str) -> Identity:
    """Return the identity of the token's session, or raise InvalidCredentials if it has ended."""
    user_id, session_id = services.current().access_tokens.read(token)
    row = execute(_BY_SESSION, session_id.hex, user_id.hex, db_time(clock.now())).fetchone()
    if row is None:
        raise InvalidCredentials
    user = user_row(row)
    return Identity(user.id, user.username, user.role, "session", session_id, user=user)
