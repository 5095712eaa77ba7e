"""The limiter by itself: in memory, in Redis, and when Redis does not answer."""

from __future__ import annotations

import os
import socket
import time
import tracemalloc
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from redis import Redis

from backend.core import rate_limits
from backend.core.rate_limits import RateLimiter
from backend.core.settings_parsers import Limit

from .support.concurrency import until
from .support.databases import COUNTERS, REDIS_URL
from .support.processes import free_port
from .support.rate_limits import hits, limiter_on
from .support.relay import Relay

Travel = Callable[..., None]

SLOW = 3600  # seconds: while a test lasts, next to nothing of it passes


@pytest.fixture(params=COUNTERS)
def limiter(request: pytest.FixtureRequest) -> RateLimiter:
    """A limiter that counts in memory, and again in Redis."""
    if request.param == "memory":
        return limiter_on("")
    return limiter_on(request.getfixturevalue("redis_url"))


@pytest.fixture
def name() -> Iterator[str]:
    """A name that nothing has counted under, and of which nothing is left in Redis."""
    name = f"test-{uuid.uuid4().hex}"
    yield name
    if REDIS_URL:
        with Redis.from_url(REDIS_URL) as redis:
            redis.delete(*redis.scan_iter(f"rate:{name}:*", 1000), "none")


# --- the window ---


@pytest.mark.parametrize("most", [1, 2, 7, 100])
def test_from_nothing_exactly_as_many_pass_as_the_limit_says(
    limiter: RateLimiter, name: str, most: int
) -> None:
    limit = Limit(most, SLOW)
    rates = [limiter.hit([(name, limit)]) for _ in range(most + 3)]
    assert [rate.passed for rate in rates] == [True] * most + [False] * 3
    assert [rate.remaining for rate in rates] == [*range(most - 1, -1, -1), 0, 0, 0]
    assert {(rate.limit, rate.window_seconds) for rate in rates} == {(most, SLOW)}


def test_the_use_that_opens_a_window_may_come_at_any_time(
    limiter: RateLimiter, name: str, travel: Travel
) -> None:
    for _ in range(3):
        assert hits(limiter, name, Limit(5, 10), 8) == 5
        travel(seconds=20)  # two windows later nothing is left of it


def test_the_window_before_weighs_less_and_less(
    limiter: RateLimiter, name: str, travel: Travel
) -> None:
    limit = Limit(10, SLOW)
    assert hits(limiter, name, limit, 11) == 10
    travel(seconds=SLOW - 60)
    assert hits(limiter, name, limit, 1) == 0
    travel(seconds=60 + SLOW / 2)  # half of the window before still lies within the last hour
    assert limiter.peek([(name, limit)]).remaining == 5
    assert hits(limiter, name, limit, 10) == 5
    travel(seconds=SLOW / 4)
    assert hits(limiter, name, limit, 10) == 2
    travel(seconds=SLOW / 4)
    assert limiter.peek([(name, limit)]).remaining == 10 - 7


def test_a_use_passes_after_as_long_as_was_said_and_not_a_second_before(
    limiter: RateLimiter, name: str, travel: Travel
) -> None:
    limit = Limit(3, SLOW)
    assert hits(limiter, name, limit, 3) == 3
    for _ in range(6):
        wait = limiter.hit([(name, limit)]).reset_seconds
        travel(seconds=wait - 2)
        assert not limiter.hit([(name, limit)]).passed
        travel(seconds=2)
        assert limiter.hit([(name, limit)]).passed


def test_until_it_is_used_up_the_end_of_the_window_is_told(
    limiter: RateLimiter, name: str, travel: Travel
) -> None:
    limit = Limit(100, SLOW)
    assert limiter.hit([(name, limit)]).reset_seconds == SLOW
    travel(seconds=SLOW - 100)
    assert 99 <= limiter.hit([(name, limit)]).reset_seconds <= 100
    travel(seconds=99.5)
    assert limiter.peek([(name, limit)]).reset_seconds == 1


def test_a_look_is_no_use(limiter: RateLimiter, name: str) -> None:
    limit = Limit(2, SLOW)
    for _ in range(5):
        rate = limiter.peek([(name, limit)])
        assert (rate.passed, rate.remaining) == (True, 2)
    assert hits(limiter, name, limit, 2) == 2
    assert not limiter.peek([(name, limit)]).passed


def test_a_use_that_does_not_pass_costs_nothing(
    limiter: RateLimiter, name: str, travel: Travel
) -> None:
    limit = Limit(4, 10)
    assert hits(limiter, name, limit, 50) == 4
    travel(seconds=15)
    assert limiter.peek([(name, limit)]).remaining == 2


def test_what_was_used_counts_when_the_limit_changes(limiter: RateLimiter, name: str) -> None:
    assert hits(limiter, name, Limit(10, SLOW), 6) == 6
    lower = limiter.hit([(name, Limit(5, SLOW))])
    assert (lower.passed, lower.remaining) == (False, 0)
    assert SLOW < lower.reset_seconds < 2 * SLOW
    assert hits(limiter, name, Limit(8, SLOW), 5) == 2


def test_a_window_of_another_length_is_another(limiter: RateLimiter, name: str) -> None:
    assert hits(limiter, name, Limit(2, 60), 3) == 2
    assert hits(limiter, name, Limit(2, 61), 3) == 2
    assert hits(limiter, name, Limit(2, 60), 3) == 0


def test_names_do_not_count_for_each_other(limiter: RateLimiter, name: str) -> None:
    assert hits(limiter, name, Limit(2, 10), 3) == 2
    other = limiter.peek([(name + "0", Limit(2, 10))])
    assert (other.passed, other.remaining) == (True, 2)


def test_a_clock_that_is_set_back_locks_nobody_out_for_long(
    limiter: RateLimiter, name: str, travel: Travel
) -> None:
    limit = Limit(3, 60)
    assert hits(limiter, name, limit, 1) == 1
    travel(seconds=-20)
    assert hits(limiter, name, limit, 5) == 2
    assert limiter.peek([(name, limit)]).reset_seconds <= 120
    travel(seconds=20 + 120)
    assert hits(limiter, name, limit, 5) == 3


def test_the_largest_limit_counts_to_the_unit(
    limiter: RateLimiter, name: str, travel: Travel
) -> None:
    limit = Limit(1_000_000, 86_400)
    assert [limiter.hit([(name, limit)]).remaining for _ in range(2)] == [999_999, 999_998]
    travel(days=1)
    assert limiter.hit([(name, limit)]).remaining in {999_997, 999_998}


def test_of_parallel_uses_exactly_as_many_pass(limiter: RateLimiter, name: str) -> None:
    limit = Limit(100, SLOW)
    with ThreadPoolExecutor(16) as pool:
        rates = list(pool.map(lambda _: limiter.hit([(name, limit)]), range(400)))
    assert Counter(rate.passed for rate in rates) == {True: 100, False: 300}
    assert sorted(rate.remaining for rate in rates if rate.passed) == list(range(100))


# --- memory ---


def test_windows_that_are_over_leave_memory(
    travel: Travel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limits, "SWEEP", 500)
    limiter = limiter_on("")
    tracemalloc.start()
    try:
        sizes = []
        for day in range(8):
            for number in range(250):
                limiter.hit([(f"{day}-{number}", Limit(5, 10))])
            sizes.append(tracemalloc.get_traced_memory()[0])
            travel(days=1)
    finally:
        tracemalloc.stop()
    assert max(sizes[4:]) < 1.2 * max(sizes[:4])


def test_windows_that_go_on_stay_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "SWEEP", 10)
    limiter = limiter_on("")
    limit = Limit(2, SLOW)
    for number in range(200):
        assert hits(limiter, str(number), limit, 3) == 2
    assert not any(limiter.hit([(str(number), limit)]).passed for number in range(200))


def test_looks_leave_nothing_in_memory() -> None:
    limiter = limiter_on("")
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(2000):
            limiter.peek([(f"n{number}", Limit(5, 10))])
        assert tracemalloc.get_traced_memory()[0] - before < 50_000
    finally:
        tracemalloc.stop()


# --- Redis ---


def test_what_redis_counts_holds_in_all_processes(redis_url: str, name: str) -> None:
    limit = Limit(100, SLOW)
    others = [limiter_on(redis_url) for _ in range(3)]
    with ThreadPoolExecutor(12) as pool:
        passed = list(pool.map(lambda n: others[n % 3].hit([(name, limit)]).passed, range(300)))
    assert sum(passed) == 100


def test_what_redis_keeps_ends_by_itself(redis_url: str, name: str) -> None:
    limiter_on(redis_url).hit([(name, Limit(5, 60))])
    limiter_on(redis_url).peek([(name + "0", Limit(5, 60))])
    with Redis.from_url(redis_url) as redis:
        assert 60 < redis.ttl(f"rate:{name}:60") <= 120
        assert redis.exists(f"rate:{name}0:60") == 0


def test_a_redis_that_forgot_everything_is_counted_in_anew(redis_url: str, name: str) -> None:
    limiter, limit = limiter_on(redis_url), Limit(2, SLOW)
    assert hits(limiter, name, limit, 3) == 2
    with Redis.from_url(redis_url) as redis:
        redis.delete(f"rate:{name}:{SLOW}")
    assert hits(limiter, name, limit, 3) == 2


def test_a_forked_process_counts_on_a_connection_of_its_own(redis_url: str, name: str) -> None:
    """Sharing one, each would read the other's answers."""
    limiter, limit = limiter_on(redis_url), Limit(1000, SLOW)
    limiter.hit([(name, limit)])
    children = []
    for _ in range(4):
        if (child := os.fork()) == 0:
            good = False
            try:
                good = all(limiter.hit([(name, limit)]).limit == 1000 for _ in range(50))
            finally:
                os._exit(0 if good else 1)
        children.append(child)
    assert all(limiter.hit([(name, limit)]).limit == 1000 for _ in range(50))
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert limiter.peek([(name, limit)]).remaining == 1000 - 1 - 5 * 50


# --- Redis that does not answer ---


def behind(redis_url: str, port: int) -> str:
    """The URL that leads to Redis by another port of this host."""
    parts = urlsplit(redis_url)
    credentials = parts.netloc.rpartition("@")[0]
    host = f"{credentials}@127.0.0.1:{port}" if credentials else f"127.0.0.1:{port}"
    return urlunsplit(parts._replace(netloc=host))


def relay_to(redis_url: str, own_port: int = 0) -> Relay:
    """A relay on the way to Redis."""
    parts = urlsplit(redis_url)
    return Relay(parts.hostname or "127.0.0.1", parts.port or 6379, own_port)


def seconds_of(act: Callable[[], Any]) -> float:
    """How long the call takes."""
    started = time.monotonic()
    act()
    return time.monotonic() - started


def test_while_redis_is_down_uses_are_counted_here(
    redis_url: str, name: str, logged: Callable[[], list[str]]
) -> None:
    port = free_port()
    limiter, limit = limiter_on(behind(redis_url, port)), Limit(3, SLOW)
    assert seconds_of(lambda: hits(limiter, name, limit, 100)) < 1
    assert hits(limiter, name, limit, 10) == 0
    [line] = [line for line in logged() if "limits:" in line]
    assert "counted in this process alone" in line

    relay = relay_to(redis_url, port)
    try:
        assert until(lambda: limiter.hit([(name, limit)]).passed, 10), "Redis is asked again"
        assert limiter_on(redis_url).peek([(name, limit)]).remaining == 2
        assert sum("Redis is back" in line for line in logged()) == 1
    finally:
        relay.close()


def test_a_frozen_redis_delays_few_uses_and_not_for_long(redis_url: str, name: str) -> None:
    relay = relay_to(redis_url)
    limiter, limit = limiter_on(behind(redis_url, relay.port)), Limit(1000, SLOW)
    try:
        assert limiter.hit([(name, limit)]).passed
        relay.freeze()
        with ThreadPoolExecutor(8) as pool:
            slowest = max(
                pool.map(lambda _: seconds_of(lambda: limiter.hit([(name, limit)])), range(400))
            )
        assert slowest < 1
        assert seconds_of(lambda: hits(limiter, name, limit, 1000)) < 1
        assert not limiter.hit([(name, limit)]).passed

        relay.thaw()
        assert until(lambda: limiter.hit([(name, limit)]).passed, 10)
        assert limiter_on(redis_url).peek([(name, limit)]).remaining < 1000 - 1
    finally:
        relay.thaw()
        relay.close()


def test_a_socket_that_takes_connections_and_never_answers_is_no_redis(
    redis_url: str, name: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        limiter = limiter_on(behind(redis_url, silent.getsockname()[1]))
        assert seconds_of(lambda: hits(limiter, name, Limit(5, SLOW), 1)) < 1
        assert seconds_of(lambda: hits(limiter, name, Limit(5, SLOW), 500)) < 1
        assert hits(limiter, name, Limit(5, SLOW), 5) == 0


def test_a_redis_that_refuses_is_counted_as_down(redis_url: str, name: str) -> None:
    with Redis.from_url(redis_url) as redis:
        redis.set(f"rate:{name}:60", "not ours", ex=60)
    limiter = limiter_on(redis_url)
    assert hits(limiter, name, Limit(5, 60), 10) == 5
