"""The exceptions with which a service refuses, each with a stable code.

They know nothing about HTTP: a table in `web/problems.py` maps the codes to statuses.
"""

from collections.abc import Mapping

# Parameters of WWW-Authenticate for bearer credentials (RFC 6750 section 3.1).
INVALID_TOKEN = 'error="invalid_token"'  # noqa: S105
INSUFFICIENT_SCOPE = 'error="insufficient_scope"'


class Failure(Exception):
    """A refusal that is shown to the caller: `code` for programs, `detail` for people.

    `errors` names invalid fields as {location: {field: [sentence]}}. `retry_after` is in seconds.
    `challenge` holds parameters of WWW-Authenticate (RFC 6750 section 3). `members` holds extension
    members of the problem document (RFC 9457 section 3.2).
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
    """The input is well-formed, but not valid."""

    def __init__(
        self, field: str, sentence: str, code: str = "validation_error", place: str = "json"
    ) -> None:
        super().__init__(code, sentence, errors={place: {field: [sentence]}})


class InvalidCredentials(Failure):
    """No valid credentials. Expired, revoked, unknown and disabled ones get the same answer."""

    def __init__(self, detail: str = "The credentials are not valid.", challenge: str = "") -> None:
        super().__init__("invalid_credentials", detail, challenge=challenge)


class InvalidToken(Failure):
    """The link from a mail has been altered, used or replaced by a newer one, or is too old."""

    def __init__(self) -> None:
        super().__init__(
            "invalid_token", "The link has been used or replaced by a newer one, or is too old."
        )


class Forbidden(Failure):
    """Authenticated, but not allowed."""


class NotFound(Failure):
    """The resource does not exist, or belongs to another user."""

    def __init__(self, detail: str = "There is no such resource.") -> None:
        super().__init__("not_found", detail)


class Conflict(Failure):
    """The request conflicts with the current state."""


class Unavailable(Failure):
    """Temporarily unavailable; the same call may succeed after `retry_after` seconds."""

    def __init__(self, detail: str = "Try again shortly.", retry_after: int = 1) -> None:
        super().__init__("unavailable", detail, retry_after=retry_after)
