"""Background maintenance in small batches: delete expired rows, look after API keys.

Skip it on a first reading.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from .api_keys import lifecycle, usage
from .audit import chain as audit
from .audit import denials
from .auth import service as auth
from .mail import outbox
from .throttling import service as throttling
from .users import usernames

SOME = 500  # rows of a table per batch, so that other writers do not wait long
PAUSE = 20.0  # seconds between batches
HOUR = 3600.0  # the same for `tend`, which has to scan all keys


def prune(limit: int = SOME) -> int:
    """Delete at most `limit` expired rows of each kind; return how many were deleted.

    The kinds: sessions, throttles, hourly counts of denials, audit events past retention, usage
    counts of keys, unsent mail, and usernames that were given up.
    """
    prunable = (auth, usernames, throttling, denials, audit, usage, outbox)
    return sum(each.prune(limit) for each in prunable)


def tend(limit: int = SOME // 5) -> int:
    """Disable at most `limit` unused keys, and send as many notices of keys that expire soon.

    Returns how many keys that were.
    """
    return lifecycle.disable_unused(limit) + lifecycle.notify_of_expiry(limit)


def seldom(work: Callable[[], object], pause: float = PAUSE) -> Callable[[], None]:
    """Wrap `work` so that it runs at most once in `pause` seconds, however often it is called."""
    last = -pause

    def wrapper() -> None:
        nonlocal last
        if time.monotonic() - last >= pause:
            last = time.monotonic()
            work()

    return wrapper
