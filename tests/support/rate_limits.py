"""Rate limiters, as processes have them."""

from __future__ import annotations

from backend.core.metrics import Metrics
from backend.core.rate_limits import RateLimiter
from backend.core.settings_parsers import Limit

from .settings import make_settings


def limiter_on(redis_url: str) -> RateLimiter:
    """A limiter as another process would have it."""
    return RateLimiter(make_settings(redis_url=redis_url), Metrics())


def hits(limiter: RateLimiter, name: str, limit: Limit, times: int) -> int:
    """How many of so many uses pass."""
    return sum(limiter.hit([(name, limit)]).passed for _ in range(times))
