"""The one place that knows the time, so that tests can move it."""

import time
from datetime import UTC, datetime, timedelta

# What tests add to the machine's time. Nothing else writes it.
shift = timedelta(0)


def now() -> datetime:
    """The present moment, aware, in UTC, to the microsecond."""
    return datetime.now(UTC) + shift


def timestamp() -> float:
    """The present moment in seconds since the epoch."""
    return now().timestamp()


def monotonic() -> float:
    """Seconds that never go back, whatever is done to the machine's time; tests move them too."""
    return time.monotonic() + shift.total_seconds()
