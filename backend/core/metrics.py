"""Metrics: the counters, histograms and gauges of one service, for Prometheus.

Skip it on a first reading. If PROMETHEUS_MULTIPROC_DIR is set before this module is imported, as in
`config/gunicorn.conf.py`, the figures are kept in files there, and each process reports the sums
over all processes. The gauges of the other processes are up to a second old. This requires one
service per process. Without the variable, each service has its own figures.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
import time
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector

log = logging.getLogger(__name__)

# Seconds. A verification takes less than 0.001, a password hash about 0.25.
BUCKETS = (
    *(0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025),
    *(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
SAMPLE_SECONDS = 1.0

# Clients can send any word as a method, and each word would stay in memory.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class _OfAllProcesses(MultiProcessCollector):
    """Adds up the figures in the files of all processes."""

    def collect(self) -> Any:
        # A new file is empty for a moment, and stays empty if its process is killed just then. The
        # library would fail to read it.
        return self.merge([each for each in Path(self._path).glob("*.db") if _has_content(each)])


def _has_content(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:  # its worker has ended
        return False


class Metrics:
    """The metrics of one service. Code that does something worth counting calls a method here.

    `service` is the running Services, which core does not know.
    """

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
        self._is_shared = values.ValueClass is not values.MutexValue
        self._sampling: int | None = None  # the id of the process that is sampling
        self._requests = counter("http_requests", "Requests answered", "method", "route", "status")
        self._durations = Histogram(
            "backend_http_request_duration_seconds",
            "Time from a request's arrival in the application to its answer",
            ("method", "route"),
            registry=registry,
            buckets=BUCKETS,
        )
        verifications = counter("verifications", "Decisions about API keys by their code", "code")
        self._verifications = functools.cache(verifications.labels)
        self._chore_failures = counter(
            "chore_failures", "Periodic tasks that failed, by name", "chore"
        )
        self.limiter_fallbacks = counter(
            "limiter_fallbacks", "Limits checked by one process alone because Redis was down"
        )
        self.hashes = gauge("password_hashes", "Passwords being hashed or waiting to be")
        self.hashes_refused = counter(
            "password_hashes_refused", "Passwords not hashed because too many were waiting"
        )
        self._pool_used = gauge("database_connections_in_use", "Connections in use")
        self._pool_size = gauge("database_connections_max", "Connections allowed at most")
        self._tasks = gauge("jobs_waiting", "Background tasks that have not started")
        self._lag = gauge(
            "write_behind_lag_seconds", "Age of the oldest unwritten entry", "livemax"
        )

    def request(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """Count a response. `route` is the rule of the route, None if no route matched."""
        kind = method if method in _METHODS else "other", route or "none"
        requests, durations = self._children(*kind, status)
        requests.inc()
        durations.observe(seconds)

    def _find_children(self, method: str, route: str, status: int) -> tuple[Counter, Histogram]:
        return self._requests.labels(method, route, status), self._durations.labels(method, route)

    def verification(self, code: str) -> None:
        """Count a decision about a key."""
        self._verifications(code).inc()

    def chore_failed(self, name: str) -> None:
        """Count a failure of a periodic task."""
        self._chore_failures.labels(name).inc()

    def text(self, service: Any) -> bytes:
        """Return the current metrics in Prometheus' text format."""
        self._sample(service)
        registry = self._registry
        if self._is_shared:
            registry = CollectorRegistry()
            _OfAllProcesses(registry)
        return generate_latest(registry)

    def keep_sampling(self, service: Any) -> None:
        """Keep this process's gauges up to date in the files that the others read."""
        with self._lock:
            if self._sampling == os.getpid() or not self._is_shared:
                return
            self._sampling = os.getpid()
        threading.Thread(target=self._go_on, args=(service,), name="metrics", daemon=True).start()

    def _go_on(self, service: Any) -> None:
        while True:
            try:
                self._sample(service)
            except Exception:
                log.exception("metrics cannot be sampled")
            time.sleep(SAMPLE_SECONDS)

    def _sample(self, service: Any) -> None:
        """Set the gauges that are not updated as things happen."""
        self._pool_used.set(service.database.in_use)
        self._pool_size.set(service.settings.database_connections)
        self._tasks.set(service.tasks.waiting + service.shuffled_tasks.waiting)
        self._lag.set(max(queue.lag for queue in service.write_behind.values()))
