"""Metrics: what one service counts and measures, for Prometheus.

With PROMETHEUS_MULTIPROC_DIR in the environment before this is imported, as
`config/gunicorn.conf.py` has it, the figures lie in files there, and whichever process is asked
adds up those of all: its own of this moment, those of the others of a second ago. That takes one
service per process; without it each service has its own.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from bisect import bisect_left
from collections import Counter as Counted
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector

from . import context

if TYPE_CHECKING:
    from .context import Service

log = logging.getLogger(__name__)

# Seconds. A verification takes less than one thousandth, a password's hash a quarter.
BUCKETS = (
    *(0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025),
    *(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
SAMPLE_SECONDS = 1.0

# Whatever word a client sends is a method, and each would stay here for ever.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class _Late:
    """What has been counted and not been told yet."""

    def __init__(self) -> None:
        # {((method, route), status, number of the bucket): answers}, {(method, route): in all}
        self.answers: Counted[tuple[tuple[str, str], int, int]] = Counted()
        self.seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
        self.decisions: Counted[str] = Counted()


class _OfAllProcesses(MultiProcessCollector):
    """The sums of what lies in the files."""

    def collect(self) -> Any:
        # Between being made and being given its length a file is empty, for ever if its process
        # was killed just then; the library would fail.
        return self.merge([each for each in Path(self._path).glob("*.db") if _has_content(each)])


def _has_content(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:  # a worker's that has ended
        return False


class Metrics:
    """The metrics of one service. Code that does something worth counting says so here."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()

        def counter(name: str, meaning: str, *labels: str) -> Counter:
            return Counter(f"backend_{name}", meaning, labels, registry=registry)

        def gauge(name: str, meaning: str, over_processes: Any = "livesum") -> Gauge:
            return Gauge(
                f"backend_{name}", meaning, registry=registry, multiprocess_mode=over_processes
            )

        # What each request changes is counted here and told later: in a file that the processes
        # share it would take ten times as long.
        self._lock = threading.Lock()
        self._late = _Late()
        self._is_shared = bool(values.ValueClass._multiprocess)
        self._sampling: int | None = None  # the process in which it goes on
        self._requests = counter("http_requests", "Requests answered", "method", "route", "status")
        self._durations = Histogram(
            "backend_http_request_duration_seconds",
            "Time from a request's arrival in the application to its answer",
            ("method", "route"),
            registry=registry,
            buckets=BUCKETS,
        )
        self._verifications = counter(
            "verifications", "Decisions about API keys by their code", "code"
        )
        self._chore_failures = counter(
            "chore_failures", "Chores that failed, by their name", "chore"
        )
        self.limiter_fallbacks = counter(
            "limiter_fallbacks", "Looks at a limit in the process alone, Redis being down"
        )
        self.hashes = gauge("password_hashes", "Passwords that are being hashed or wait for it")
        self.hashes_refused = counter(
            "password_hashes_refused", "Passwords not hashed, there being too many"
        )
        self._pool_used = gauge("database_connections_in_use", "Connections that serve somebody")
        self._pool_size = gauge("database_connections_max", "Connections that there may be")
        self._jobs = gauge("jobs_waiting", "Jobs, such as mail, that have not begun")
        self._lag = gauge(
            "write_behind_lag_seconds", "Age of the oldest note that is not written", "livemax"
        )

    def request(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """Count an answer. `route` is the rule of the route, None if there is none."""
        kind = method if method in _METHODS else "other", route or "none"
        with self._lock:
            self._late.answers[kind, status, bisect_left(BUCKETS, seconds)] += 1
            self._late.seconds[kind] += seconds
        if self._is_shared and self._sampling != os.getpid():
            self.keep_sampling(context.service())

    def verification(self, code: str) -> None:
        """Count a decision about a key."""
        with self._lock:
            self._late.decisions[code] += 1

    def chore_failed(self, name: str) -> None:
        """Count a chore's failure."""
        self._chore_failures.labels(name).inc()

    def text(self, service: Service) -> bytes:
        """All of it in Prometheus' text format, as of now."""
        self._sample(service)
        registry = self._registry
        if self._is_shared:
            registry = CollectorRegistry()
            _OfAllProcesses(registry)
        return generate_latest(registry)

    def keep_sampling(self, service: Service) -> None:
        """See to it that the other processes know what only this one can tell.

        The first request of a process does so too.
        """
        with self._lock:
            if self._sampling == os.getpid() or not self._is_shared:
                return
            self._sampling = os.getpid()
        atexit.register(self._tell_late)
        threading.Thread(target=self._go_on, args=(service,), name="metrics", daemon=True).start()

    def _go_on(self, service: Service) -> None:
        while True:
            try:
                self._sample(service)
            except Exception:
                log.exception("metrics are not told")
            time.sleep(SAMPLE_SECONDS)

    def _sample(self, service: Service) -> None:
        """Take down what is not told as it happens."""
        self._tell_late()
        self._pool_used.set(len(service.database._in_use))
        self._pool_size.set(service.settings.database_connections)
        self._jobs.set(service.jobs.waiting)
        self._lag.set(max(service.last_used.lag, service.usage.lag))

    def _tell_late(self) -> None:
        with self._lock:
            late, self._late = self._late, _Late()
        for (kind, status, bucket), times in late.answers.items():
            self._requests.labels(*kind, status).inc(times)
            self._durations.labels(*kind)._buckets[bucket].inc(times)
        for kind, seconds in late.seconds.items():
            self._durations.labels(*kind)._sum.inc(seconds)
        for code, times in late.decisions.items():
            self._verifications.labels(code).inc(times)
