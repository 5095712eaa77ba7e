"""Rate limits: how often something may be done in a time, in this process or, by Redis, in all.

A sliding window counter of two windows: the uses of the present one, and those of the one before,
weighed by how much of it the last `seconds` still hold. The first use opens the window, so that
from nothing exactly `most` pass. It is ours, and no library, because it is a part of each decision
about a key: it must cost microseconds, follow `clock`, and go on when Redis does not.
"""

from __future__ import annotations

import logging
import threading
import time
from math import ceil
from typing import Any, NamedTuple

from . import clock, redis_url
from .metrics import Metrics
from .settings import Limit, Settings

log = logging.getLogger(__name__)

REDIS_SECONDS = 0.2  # for Redis to answer; a request waits for it
REST_SECONDS = 1.0  # without a further attempt after one has failed
SWEEP = 10_000  # windows in memory, at which those that are over are thrown away

# KEYS: the window. ARGV: seconds, most, 1 for a use or 0 for a look, what tests add to the time.
# The time is that of Redis, so that the clocks of several hosts need not agree.
_SCRIPT = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000 + ARGV[4]
local seconds, most = tonumber(ARGV[1]), tonumber(ARGV[2])
local kept = redis.call('HMGET', KEYS[1], 'start', 'before', 'used')
local start, before, used = tonumber(kept[1]) or now, tonumber(kept[2]) or 0, tonumber(kept[3]) or 0
if now - start >= 2 * seconds or start - now > seconds then
    start, before, used = now, 0, 0
elseif now - start >= seconds then
    start, before, used = start + seconds, used, 0
end
local elapsed = math.max(0, now - start)
local passed = before * (1 - elapsed / seconds) + used + 1 <= most + 1e-9
if passed and ARGV[3] == '1' then
    used = used + 1
    local begun = string.format('%.6f', start)
    redis.call('HSET', KEYS[1], 'start', begun, 'before', before, 'used', used)
    redis.call('EXPIRE', KEYS[1], 2 * seconds)
end
return {passed and 1 or 0, before, used, string.format('%.6f', elapsed)}
"""


class Rate(NamedTuple):
    """How a limit stands. `passed`: this use may be, or might.

    `reset_seconds`: until the window ends; if `passed` is False, until a further use will pass.
    """

    passed: bool
    limit: int
    window_seconds: int
    remaining: int
    reset_seconds: int


class Limiter:
    """Counts uses by name. Where REDIS_URL is set they are counted there, for all processes."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._metrics = metrics
        self._memory = _Memory()
        self._redis = _Redis(settings.redis_url) if settings.redis_url else None

    def hit(self, name: str, limit: Limit) -> Rate:
        """Use the limit once, if it is not used up."""
        return self._count(name, limit, 1)

    def peek(self, name: str, limit: Limit) -> Rate:
        """How the limit stands, and whether a use would pass. It is none."""
        return self._count(name, limit, 0)

    def _count(self, name: str, limit: Limit, uses: int) -> Rate:
        if self._redis:
            rate = self._redis.count(name, limit, uses)
            if rate:
                return rate
            self._metrics.limiter_fallbacks.inc()
        return self._memory.count(name, limit, uses)


class _Memory:
    """Windows of this process: {(name, seconds): [start, uses before, uses]}."""

    def __init__(self) -> None:
        self._windows: dict[tuple[str, int], list[float]] = {}
        self._sweep_at = SWEEP
        self._lock = threading.Lock()

    def count(self, name: str, limit: Limit, uses: int) -> Rate:
        now, seconds = clock.monotonic(), limit.seconds
        with self._lock:
            window = self._windows.get((name, seconds))
            if window is None or now - window[0] >= 2 * seconds:
                window = [now, 0, 0]
            elif now - window[0] >= seconds:
                window = [window[0] + seconds, window[2], 0]
            start, before, used = window
            elapsed = max(0.0, now - start)
            passed = before * (1 - elapsed / seconds) + used + 1 <= limit.most + 1e-9
            if passed and uses:
                used = window[2] = used + 1
                self._windows[name, seconds] = window
                if len(self._windows) >= self._sweep_at:
                    self._sweep(now)
        return _rate(limit, passed, before, used, elapsed)

    def _sweep(self, now: float) -> None:
        self._windows = {
            key: window for key, window in self._windows.items() if now - window[0] < 2 * key[1]
        }
        self._sweep_at = max(SWEEP, 2 * len(self._windows))


class _Redis:
    """Windows in Redis, which all processes share. While it does not answer, it is not asked."""

    def __init__(self, url: str) -> None:
        from redis.exceptions import RedisError  # not needed without REDIS_URL

        self._error = RedisError
        self._script = redis_url.connect(url, REDIS_SECONDS).register_script(_SCRIPT)
        self._down_until = 0.0
        self._is_down = False

    def count(self, name: str, limit: Limit, uses: int) -> Rate | None:
        """As Redis has it; None if it does not answer."""
        if time.monotonic() < self._down_until:
            return None
        if self._is_down:  # this one asks again, and others need not wait for it
            self._down_until = time.monotonic() + 3 * REDIS_SECONDS
        shift = clock.shift.total_seconds()
        try:
            answer: Any = self._script(
                [f"rate:{name}:{limit.seconds}"], [limit.seconds, limit.most, uses, shift]
            )
        except self._error as error:
            self._down_until = time.monotonic() + REST_SECONDS
            if not self._is_down:
                log.warning("limits: counted in this process alone, Redis is down: %s", error)
            self._is_down = True
            return None
        if self._is_down:
            log.info("limits: Redis is back")
        self._is_down, self._down_until = False, 0.0
        passed, before, used, elapsed = answer
        return _rate(limit, bool(passed), before, used, float(elapsed))


def _rate(limit: Limit, passed: bool, before: float, used: float, elapsed: float) -> Rate:
    most, seconds = limit
    remaining = max(0, int(most - before * (1 - elapsed / seconds) - used + 1e-9))
    reset = seconds - elapsed
    if not passed and used + 1 <= most:  # as soon as the window before weighs little enough
        reset = seconds * (1 - (most - 1 - used) / before) - elapsed
    elif not passed:  # in the next window, of which this one is the one before
        reset += seconds * (1 - (most - 1) / used)
    return Rate(passed, most, seconds, remaining, max(1, ceil(reset)))
