"""gunicorn with the service's settings: `gunicorn -c config/gunicorn.conf.py wsgi:app`."""

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
from backend.core.settings_checks import require_safe
from backend.server.listeners import addresses, announce, stop_listening, use_temporary_folder

try:
    _settings = require_safe(Settings.load())
except SettingsError as refusal:
    sys.exit(f"Not started, for these reasons:\n{refusal}")

sys.setswitchinterval(0.0005)  # for the reason given in backend/server/serving.py
try:
    _addresses = addresses(_settings.host)
except OSError as error:
    sys.exit(f"Cannot listen on {_settings.host} port {_settings.port}: {error.strerror}")
bind = [
    f"[{each}]:{_settings.port}" if ":" in each else f"{each}:{_settings.port}"
    for each in _addresses
]
use_temporary_folder()  # holds each worker's heartbeat file
workers = _settings.workers
threads = _settings.threads
graceful_timeout = 25  # seconds for running requests after SIGTERM
keepalive = 15
control_socket_disable = True  # no control socket in the home directory
# The application reads X-Forwarded-*, and only from TRUSTED_PROXIES. gunicorn ignores them, so it
# does not have to check the address of each peer, which took 2% of a request.
secure_scheme_headers, forwarder_headers, forwarded_allow_ips = {}, "", "*"


class DrainingWorker(ThreadWorker):
    """Accepts the pending connections before it stops listening, so that no client fails.

    gunicorn itself keeps listening until it exits, and resets clients that connected meanwhile.
    """

    def set_accept_enabled(self, enabled):
        """Start or stop accepting connections; gunicorn also calls this when a worker is to end."""
        super().set_accept_enabled(enabled)
        if not self.alive:
            self.wsgi.extensions["backend"].draining.set()
            for listener in self.sockets:
                stop_listening(listener.sock, functools.partial(self.accept, listener))


worker_class = DrainingWorker


def on_starting(server):
    """Log gunicorn's own messages in the service's format."""
    logs.configure(_settings)
    own = logging.getLogger("gunicorn.error")
    own.handlers.clear()
    own.propagate = True


def when_ready(server):
    """Log the service's address."""
    announce(_settings)


def _share_metrics():
    """Create the folder for the workers' metrics, before the metrics are imported.

    The folder belongs to this process. On a reload (SIGHUP), this runs again and keeps it. A new
    gunicorn (SIGUSR2) inherits the variable, but creates a folder of its own.
    """
    owner = f"-{os.getpid()}"
    if not os.environ.get("PROMETHEUS_MULTIPROC_DIR", "").endswith(owner):
        folder = tempfile.mkdtemp(prefix="backend-metrics-", suffix=owner)
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        atexit.register(_remove, folder, os.getpid())


def _remove(folder, owner):
    if os.getpid() == owner:  # workers run this at exit too
        shutil.rmtree(folder, ignore_errors=True)


if _settings.metrics_enabled:
    _share_metrics()


def post_worker_init(worker):
    """Start this worker's background work."""
    service = worker.wsgi.extensions["backend"]
    service.metrics.keep_sampling(service)
    service.sender.start()  # mail left over from before a crash
    gc.freeze()  # for the reason given in backend/server/serving.py


def child_exit(server, worker):
    """Remove a dead worker's gauges from the sums. Its counters stay."""
    if _settings.metrics_enabled:
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(worker.pid)
