"""Metrics: what one service counts and measures, for Prometheus.

With PROMETHEUS_MULTIPROC_DIR in the environment before this is imported, as
`config/gunicorn.conf.py` has it, the figures are in files there, and any process that is asked adds
up those of all; the gauges of the others are a second old. That takes one service per process;
without it each service has its own.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
import time
from pathlib import Path
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector

from .settings import Settings

log = logging.getLogger(__name__)

# Seconds. A verification takes less than one thousandth, a password's hash a quarter.
BUCKETS = (
    *(0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025),
    *(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
SAMPLE_SECONDS = 1.0

# Whatever word a client sends is a method, and each would stay here for ever.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


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


class Measured(Protocol):
    """What is measured when somebody asks, and not counted as it happens."""

    @property
    def settings(self) -> Settings: ...

    @property
    def database(self) -> Any: ...

    @property
    def tasks(self) -> Any: ...

    @property
    def lookups(self) -> Any: ...

    @property
    def last_used(self) -> Any: ...

    @property
    def usage(self) -> Any: ...

    @property
    def denials(self) -> Any: ...


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

        self._lock = threading.Lock()
        self._children = functools.cache(self._find_children)
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
        self._jobs = gauge("jobs_waiting", "Jobs, such as look-ups, that have not begun")
        self._lag = gauge(
            "write_behind_lag_seconds", "Age of the oldest note that is not written", "livemax"
        )

    def request(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """Count an answer. `route` is the rule of the route, None if there is none."""
        kind = method if method in _METHODS else "other", route or "none"
        requests, durations = self._children(*kind, status)
        requests.inc()
        durations.observe(seconds)

    def _find_children(self, method: str, route: str, status: int) -> tuple[Counter, Histogram]:
        return self._requests.labels(method, route, status), self._durations.labels(method, route)

    def verification(self, code: str) -> None:
        """Count a decision about a key."""
        self._verifications.labels(code).inc()

    def chore_failed(self, name: str) -> None:
        """Count a chore's failure."""
        self._chore_failures.labels(name).inc()

    def text(self, service: Measured) -> bytes:
        """All of it in Prometheus' text format, as of now."""
        self._sample(service)
        registry = self._registry
        if self._is_shared:
            registry = CollectorRegistry()
            _OfAllProcesses(registry)
        return generate_latest(registry)

    def keep_sampling(self, service: Measured) -> None:
        """Keep this process's gauges up to date in the files that the others read."""
        with self._lock:
            if self._sampling == os.getpid() or not self._is_shared:
                return
            self._sampling = os.getpid()
        threading.Thread(target=self._go_on, args=(service,), name="metrics", daemon=True).start()

    def _go_on(self, service: Measured) -> None:
        while True:
            try:
                self._sample(service)
            except Exception:
                log.exception("metrics are not told")
            time.sleep(SAMPLE_SECONDS)

    def _sample(self, service: Measured) -> None:
        """Take down what is not told as it happens."""
        self._pool_used.set(len(service.database._in_use))
        self._pool_size.set(service.settings.database_connections)
        self._jobs.set(service.tasks.waiting + service.lookups.waiting)
        self._lag.set(max(each.lag for each in (service.last_used, service.usage, service.denials)))
