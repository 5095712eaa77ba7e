"""Who is calling, and with which credential: the first argument of every service."""

from typing import Any, Literal, NamedTuple
from uuid import UUID

ROLES = ("user", "admin")


class Identity(NamedTuple):
    """An authenticated caller.

    `scopes` is None for a session, which may do everything that its role allows. For a key it is
    the scopes of the key that the owner's current role still allows. `user` is the row of the users
    table that authentication read, so that nothing has to read it again.
    """

    user_id: UUID
    username: str
    role: str
    method: Literal["session", "api_key", "console"]
    session_id: UUID | None = None
    key_id: UUID | None = None
    scopes: frozenset[str] | None = None
    user: Any = None

    @property
    def is_admin_in_person(self) -> bool:
        """Return True for an administrator's session and for the console, never for a key."""
        return self.role == "admin" and self.method != "api_key"


# Anyone who can run commands on the machine is an administrator by definition.
CONSOLE = Identity(user_id=UUID(int=0), username="console", role="admin", method="console")


def holds_role(role: str, wanted: str | None) -> bool:
    """Return whether `role` satisfies `wanted`, if that is set; an administrator is a user too."""
    return wanted is None or role in (wanted, "admin")


class Need(NamedTuple):
    """What one kind of credential must have: a role, and all of these scopes."""

    role: str | None = None
    scopes: tuple[str, ...] = ()


class Requirement(NamedTuple):
    """Who may pass. Without `key`, no API key is accepted.

    `before_enrolment`: also accept a session whose user must still set up a second factor.
    `as_client`: also accept the key as an OAuth client's secret.
    """

    session: Need = Need()
    key: Need | None = None
    before_enrolment: bool = False
    as_client: bool = False
