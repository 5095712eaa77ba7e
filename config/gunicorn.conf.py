"""Run gunicorn with the service's settings: `gunicorn -c config/gunicorn.conf.py wsgi:app`."""

import atexit
import functools
import gc
import logging
import os
import shutil
import sys
import tempfile

from gunicorn.workers.gthread import ThreadWorker

from backend.core import logs
from backend.core.settings import Settings, SettingsError
from backend.server.listeners import addresses, announce, stop_listening, use_temporary_folder

try:
    _settings = Settings.load().check()
except SettingsError as refusal:
    sys.exit(f"Not started, for these reasons:\n{refusal}")

sys.setswitchinterval(0.0005)  # for the reason in backend/server/serving.py
try:
    _addresses = addresses(_settings.host)
except OSError as error:
    sys.exit(f"Cannot listen on {_settings.host} port {_settings.port}: {error.strerror}")
bind = [
    f"[{each}]:{_settings.port}" if ":" in each else f"{each}:{_settings.port}"
    for each in _addresses
]
use_temporary_folder()  # for the file by which gunicorn checks each worker
workers = _settings.workers
threads = _settings.threads
graceful_timeout = 25  # seconds for requests in flight after SIGTERM
keepalive = 15
control_socket_disable = True  # no control socket in the home directory
# The application reads X-Forwarded-*, from TRUSTED_PROXIES only. gunicorn trusts no header, so it
# need not check the address of each peer, which took 2 % of a request's time.
secure_scheme_headers, forwarder_headers, forwarded_allow_ips = {}, "", "*"


class DrainingWorker(ThreadWorker):
    """On shutdown, accepts the pending connections and then stops listening immediately.

    gunicorn listens until its end, and resets the connections that arrived in the meantime.
    """

    def set_accept_enabled(self, enabled):
        """Start or stop accepting connections; gunicorn also calls this on shutdown."""
        super().set_accept_enabled(enabled)
        if not self.alive:
            self.wsgi.extensions["backend"].draining.set()
            for listener in self.sockets:
                stop_listening(listener.sock, functools.partial(self.accept, listener))


worker_class = DrainingWorker


def on_starting(server):
    """Format gunicorn's log lines like all others."""
    logs.configure(_settings)
    own = logging.getLogger("gunicorn.error")
    own.handlers.clear()
    own.propagate = True


def when_ready(server):
    """Log the address that the service listens on."""
    announce(_settings)


def _share_metrics():
    """Create the folder in which the workers' metrics are added up, before metrics are imported.

    It belongs to this process: a reload (SIGHUP) keeps it, and the next gunicorn (SIGUSR2), which
    inherits the variable, creates another.
    """
    owner = f"-{os.getpid()}"
    if not os.environ.get("PROMETHEUS_MULTIPROC_DIR", "").endswith(owner):
        folder = tempfile.mkdtemp(prefix="backend-metrics-", suffix=owner)
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        atexit.register(_remove, folder, os.getpid())


def _remove(folder, owner):
    if os.getpid() == owner:  # workers run this on exit too
        shutil.rmtree(folder, ignore_errors=True)


if _settings.metrics_enabled:
    _share_metrics()


def post_worker_init(worker):
    """Start the background work of this worker."""
    service = worker.wsgi.extensions["backend"]
    service.metrics.keep_sampling(service)
    service.sender.start()  # mail that was waiting before a crash
    gc.freeze()  # for the reason in backend/server/serving.py


def child_exit(server, worker):
    """Remove an ended worker's gauges from the totals, and keep its counters."""
    if _settings.metrics_enabled:
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(worker.pid)
