"""What keeps the database small: rows that mean nothing any more are deleted, little by little."""

from __future__ import annotations

import time
from collections.abc import Callable

from .audit import chain as audit
from .auth import service as auth
from .guessing import service as guessing

SOME = 500  # rows of a table at a time: nobody waits long for that
PAUSE = 20.0  # seconds from one such time to the next


def prune(limit: int = SOME) -> int:
    """Delete at most `limit` rows of each kind: sessions, throttles, audit events beyond retention.

    Returns how many they were.
    """
    return auth.prune(limit) + guessing.prune(limit) + audit.prune(limit)


def seldom(work: Callable[[], object], pause: float = PAUSE) -> Callable[[], None]:
    """The work, which is done at most once in `pause` seconds however often it is called."""
    last = -pause

    def wrapper() -> None:
        nonlocal last
        if time.monotonic() - last >= pause:
            last = time.monotonic()
            work()

    return wrapper
