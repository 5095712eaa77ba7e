"""Several things at once, and waiting for one of them."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from flask import Flask
from werkzeug.test import TestResponse

from .apps import service_of

T = TypeVar("T")


def until(condition: Callable[[], Any], seconds: float = 30) -> Any:
    """Return the first true value of the condition; fail the test if none comes in time."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
    return value


def at_once(*calls: Callable[[], T]) -> list[T]:
    """What the calls answer, all of them begun at the same moment, in their order."""
    gate = threading.Barrier(len(calls))

    def wait_and(call: Callable[[], T]) -> T:
        gate.wait(30)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(wait_and, calls))


def statuses(responses: Iterable[TestResponse]) -> Counter[int]:
    """How often each status was answered."""
    return Counter(response.status_code for response in responses)


@contextmanager
def behind_the_guard(app: Flask, act: Callable[[], TestResponse]) -> Iterator[None]:
    """Let another thread act right behind this thread's first query, which lets it in."""
    database, caller = service_of(app).database, threading.get_ident()

    def hook(event: Any) -> None:
        if threading.get_ident() == caller:
            database.query_hooks.remove(hook)
            with ThreadPoolExecutor(1) as pool:
                assert pool.submit(act).result(10).status_code < 300

    database.query_hooks.append(hook)
    yield
    assert hook not in database.query_hooks, "no query was made"
