"""Background maintenance: deletes expired rows, among other things, in small batches.

Skip it on a first reading.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

BATCH = 500  # rows of a table at a time, so that other writers do not wait long
HOURLY_BATCH = 100  # rows that may each need an event and an e-mail
PAUSE = 20.0  # seconds between batches
HOUR = 3600.0

Task = Callable[[int], int]


def until_done(tasks: Iterable[Task], limit: int = BATCH) -> dict[str, int]:
    """Run each task until it has nothing left to do; return how much each has done, by name."""
    done: dict[str, int] = {}
    for task in tasks:
        while some := task(limit):
            done[task.__name__] = done.get(task.__name__, 0) + some
    return done


def at_most_every(seconds: float, task: Task, limit: int = BATCH) -> Callable[[], None]:
    """Wrap the task so that it runs at most once in `seconds`, however often it is called."""
    last = -seconds

    def wrapper() -> None:
        nonlocal last
        if time.monotonic() - last >= seconds:
            last = time.monotonic()
            task(limit)

    return wrapper
