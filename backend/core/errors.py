"""How a service refuses: one exception, a few kinds, a stable code each.

The HTTP status of a code stands in `web/problems.py`, in one table; nothing here knows it.
"""

from collections.abc import Mapping

# What WWW-Authenticate says of a bearer credential (RFC 6750 section 3.1).
INVALID_TOKEN = 'error="invalid_token"'  # noqa: S105
INSUFFICIENT_SCOPE = 'error="insufficient_scope"'


class Failure(Exception):
    """A refusal that the caller is told about: `code` for programs, `detail` for people.

    `errors` names faulty fields as {location: {field: [sentence]}}; `retry_after` is in seconds;
    `challenge` holds the parameters of WWW-Authenticate (RFC 6750 section 3) where they matter,
    `members` what the problem document says beyond the usual (RFC 9457 section 3.2).
    """

    scheme = "Bearer"  # of WWW-Authenticate

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        errors: Mapping[str, object] | None = None,
        retry_after: int | None = None,
        challenge: str | None = None,
        members: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.errors = errors
        self.retry_after = retry_after
        self.members = members
        self.challenge = challenge or (INSUFFICIENT_SCOPE if code == "insufficient_scope" else None)


class Invalid(Failure):
    """The input is well formed and still not acceptable."""

    def __init__(
        self, field: str, sentence: str, code: str = "validation_error", place: str = "json"
    ) -> None:
        super().__init__(code, sentence, errors={place: {field: [sentence]}})


class InvalidCredentials(Failure):
    """Nobody, or nobody we know. One text for expired, revoked, unknown and disabled."""

    def __init__(self, detail: str = "The credentials are not valid.", challenge: str = "") -> None:
        super().__init__("invalid_credentials", detail, challenge=challenge)


class InvalidToken(Failure):
    """A link from a mail that is altered, used, replaced by a newer one, or too old."""

    def __init__(self) -> None:
        super().__init__("invalid_token", "The link is not valid: used, replaced, or too old.")


class Forbidden(Failure):
    """Somebody we know, who may not."""


class NotFound(Failure):
    """No such thing, or somebody else's."""

    def __init__(self, detail: str = "There is no such resource.") -> None:
        super().__init__("not_found", detail)


class Conflict(Failure):
    """The act and the present state exclude each other."""


class Unavailable(Failure):
    """Not now; the same call may succeed after `retry_after` seconds."""

    def __init__(self, detail: str = "Try again shortly.", retry_after: int = 1) -> None:
        super().__init__("unavailable", detail, retry_after=retry_after)
