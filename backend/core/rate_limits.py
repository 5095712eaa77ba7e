"""Rate limits: how often something may happen in a period, per process or, with Redis, in total.

Skip it on a first reading. This is a sliding window counter. It adds up the uses in the current
window and those in the previous one, weighted by how much of that one is within the last `seconds`.
The first use opens the window, so exactly `most` uses pass to begin with. We use no library: every
decision about a key goes through here: it must take microseconds, follow `clock`, and keep working
when Redis is down.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, NamedTuple

from . import clock, redis_url
from .metrics import Metrics
from .settings import Settings
from .settings_parsers import Limit

log = logging.getLogger(__name__)

REDIS_SECONDS = 0.2  # how long a request waits for Redis to answer
REST_SECONDS = 1.0  # pause after a failed attempt
SWEEP = 10_000  # expired windows are dropped once there are this many in memory

# KEYS: the windows. ARGV: 1 to use them or 0 to read them, the seconds that tests add to the time,
# then `seconds` and `most` of each window. Uses all windows, or none if one of them is used up.
# The time comes from Redis, so that the clocks of several hosts need not agree.
_SCRIPT = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000 + ARGV[2]
local all_pass, windows, answer = true, {}, {}
for i, key in ipairs(KEYS) do
    local seconds, most = tonumber(ARGV[2 * i + 1]), tonumber(ARGV[2 * i + 2])
    local kept = redis.call('HMGET', key, 'start', 'before', 'used')
    local start, before = tonumber(kept[1]) or now, tonumber(kept[2]) or 0
    local used = tonumber(kept[3]) or 0
    if now - start >= 2 * seconds or start - now > seconds then
        start, before, used = now, 0, 0
    elseif now - start >= seconds then
        start, before, used = start + seconds, used, 0
    end
    local elapsed = math.max(0, now - start)
    local passes = before * (1 - elapsed / seconds) + used + 1 <= most + 1e-9
    all_pass = all_pass and passes
    windows[i] = {key, seconds, start, before, used}
    answer[i] = {passes and 1 or 0, before, used, string.format('%.6f', elapsed)}
end
if all_pass and ARGV[1] == '1' then
    for i, window in ipairs(windows) do
        local key, seconds, start, before, used = unpack(window)
        local begun = string.format('%.6f', start)
        redis.call('HSET', key, 'start', begun, 'before', before, 'used', used + 1)
        redis.call('EXPIRE', key, 2 * seconds)
        answer[i][3] = used + 1
    end
end
return answer
"""

Window = tuple[str, Limit]  # the name of what is counted, and its limit


class Rate(NamedTuple):
    """The state of a limit. `passed`: this use is allowed, or would be.

    `reset_seconds` is the time until the window ends or, if not `passed`, until a use will pass.
    """

    passed: bool
    limit: int
    window_seconds: int
    remaining: int
    reset_seconds: int


class RateLimiter:
    """Counts uses by name: in this process or, if REDIS_URL is set, in Redis for all processes."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._metrics = metrics
        self._memory = _Memory()
        self._redis = _Redis(settings.redis_url) if settings.redis_url else None

    def hit(self, windows: Sequence[Window]) -> Rate:
        """Use each of these limits once, or none if one of them is used up.

        Returns the rate of the limit that refuses the longest, otherwise of the one with the least
        left.
        """
        return self._count(windows, 1)

    def peek(self, windows: Sequence[Window]) -> Rate:
        """Return the limits' state without using them."""
        return self._count(windows, 0)

    def _count(self, windows: Sequence[Window], uses: int) -> Rate:
        if self._redis:
            rates = self._redis.count(windows, uses)
            if rates:
                return _strictest(rates)
            self._metrics.limiter_fallbacks.inc()
        return _strictest(self._memory.count(windows, uses))


class _Memory:
    """The windows of this process: {(name, seconds): [start, uses before, uses]}."""

    def __init__(self) -> None:
        self._windows: dict[tuple[str, int], list[float]] = {}
        self._sweep_at = SWEEP
        self._lock = threading.Lock()

    def count(self, windows: Sequence[Window], uses: int) -> list[Rate]:
        now, all_pass, seen = clock.monotonic(), True, []
        opened: dict[tuple[str, int], list[float]] = {}
        with self._lock:
            for name, limit in windows:
                most, seconds = limit
                window = self._windows.get((name, seconds))
                if window is None or now - window[0] >= 2 * seconds:
                    window = [now, 0, 0]
                elif now - window[0] >= seconds:
                    window = [window[0] + seconds, window[2], 0]
                start, before, used = window
                elapsed = max(0.0, now - start)
                passes = before * (1 - elapsed / seconds) + used + 1 <= most + 1e-9
                all_pass = all_pass and passes
                seen.append((limit, passes, before, used, elapsed))
                opened[name, seconds] = window
            if not (all_pass and uses):
                return [_rate(*each) for each in seen]
            for window in opened.values():
                window[2] += 1
            self._windows |= opened
            if len(self._windows) >= self._sweep_at:
                self._sweep(now)
        return [
            _rate(limit, True, before, used + 1, elapsed)
            for limit, _, before, used, elapsed in seen
        ]

    def _sweep(self, now: float) -> None:
        self._windows = {
            key: window for key, window in self._windows.items() if now - window[0] < 2 * key[1]
        }
        self._sweep_at = max(SWEEP, 2 * len(self._windows))


class _Redis:
    """The windows in Redis, shared by all processes. While Redis is down, requests skip it."""

    def __init__(self, url: str) -> None:
        from redis.exceptions import RedisError  # not needed without REDIS_URL

        self._error = RedisError
        self._script = redis_url.connect(url, REDIS_SECONDS).register_script(_SCRIPT)
        self._down_until = 0.0
        self._is_down = False

    def count(self, windows: Sequence[Window], uses: int) -> list[Rate] | None:
        """Count in Redis; return None if it does not answer."""
        if time.monotonic() < self._down_until:
            return None
        if self._is_down:  # this thread tries again; the others do not wait for it
            self._down_until = time.monotonic() + 3 * REDIS_SECONDS
        arguments: list[Any] = [uses, clock.shift.total_seconds()]
        for _, limit in windows:
            arguments += [limit.seconds, limit.most]
        names = [f"rate:{name}:{limit.seconds}" for name, limit in windows]
        try:
            answer: Any = self._script(names, arguments)
        except self._error as error:
            self._down_until = time.monotonic() + REST_SECONDS
            # Set this before logging: meanwhile, other threads may get here too.
            was_down, self._is_down = self._is_down, True
            if not was_down:
                log.warning("limits: counted in this process alone: Redis is down: %s", error)
            return None
        was_down, self._is_down, self._down_until = self._is_down, False, 0.0
        if was_down:
            log.info("limits: Redis is back")
        return [
            _rate(limit, bool(passes), before, used, float(elapsed))
            for (_, limit), (passes, before, used, elapsed) in zip(windows, answer, strict=True)
        ]


def of_key(own: Limit | None, settings: Settings) -> Limit | None:
    """Return the limit that applies to a key whose own limit is `own`."""
    limit, highest = own or settings.rate_limit_default, settings.rate_limit_max
    return stricter(limit, highest) if limit and highest else limit or highest


def fault(rate_limit: Mapping[str, int]) -> tuple[str, str] | None:
    """Return (member, error) if a member of the rate limit is missing, otherwise None."""
    lacking = next((each for each in ("limit", "window_seconds") if each not in rate_limit), None)
    return (lacking, "Missing data for required field.") if lacking else None


def within(inner: Limit | None, outer: Limit | None) -> bool:
    """Return whether `inner` lets no more pass than `outer`, both at once and in the long run."""
    if outer is None or inner is None:
        return outer is None
    return inner.most <= outer.most and inner.most * outer.seconds <= outer.most * inner.seconds


def stricter(one: Limit, other: Limit) -> Limit:
    """Return a limit that lets no more pass than either, both at once and in the long run."""
    most = min(one.most, other.most)
    return Limit(most, max(ceil(most * each.seconds / each.most) for each in (one, other)))


def _strictest(rates: list[Rate]) -> Rate:
    if len(rates) == 1:
        return rates[0]
    refused = [rate for rate in rates if not rate.passed]
    if refused:
        return max(refused, key=lambda rate: rate.reset_seconds)
    return min(rates, key=lambda rate: rate.remaining)


def _rate(limit: Limit, passed: bool, before: float, used: float, elapsed: float) -> Rate:
    most, seconds = limit
    remaining = max(0, int(most - before * (1 - elapsed / seconds) - used + 1e-9))
    reset = seconds - elapsed
    if not passed and used + 1 <= most:  # once the previous window weighs little enough
        reset = seconds * (1 - (most - 1 - used) / before) - elapsed
    elif not passed:  # in the next window, where this one is the previous one
        reset += seconds * (1 - (most - 1) / used)
    return Rate(passed, most, seconds, remaining, max(1, ceil(reset)))
