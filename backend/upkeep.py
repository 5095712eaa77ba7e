"""What is done of itself, little by little: deleting what means nothing, looking after keys."""

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

SOME = 500  # rows of a table at a time: nobody waits long for that
PAUSE = 20.0  # seconds from one such time to the next
HOUR = 3600.0  # the same, for looking after keys, which takes looking at all of them


def prune(limit: int = SOME) -> int:
    """Delete at most `limit` rows of each kind, and return how many they were.

    Sessions, throttles, hours of denials, audit events beyond retention, counts of the use of keys,
    unsent mail, usernames that were given up.
    """
    prunable = (auth, usernames, throttling, denials, audit, usage, outbox)
    return sum(each.prune(limit) for each in prunable)


def tend(limit: int = SOME // 5) -> int:
    """Disable at most `limit` keys that nobody uses, and tell of as many that soon expire.

    Returns how many they were.
    """
    return lifecycle.disable_unused(limit) + lifecycle.notify_of_expiry(limit)


def seldom(work: Callable[[], object], pause: float = PAUSE) -> Callable[[], None]:
    """The work, which is done at most once in `pause` seconds however often it is called."""
    last = -pause

    def wrapper() -> None:
        nonlocal last
        if time.monotonic() - last >= pause:
            last = time.monotonic()
            work()

    return wrapper
