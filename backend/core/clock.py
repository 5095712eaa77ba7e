"""The service's only clock, so that tests can move time."""

import time
from datetime import UTC, datetime, timedelta

# Tests add this to the machine's time. Nothing else writes it.
shift = timedelta(0)


def now() -> datetime:
    """Return the current time: aware, in UTC, to the microsecond."""
    return datetime.now(UTC) + shift


def timestamp() -> float:
    """Return the current time in seconds since the epoch."""
    return now().timestamp()


def monotonic() -> float:
    """Return seconds that never go back, even if the machine's time does. Tests move them too."""
    return time.monotonic() + shift.total_seconds()
