"""gunicorn with the settings of the service: `gunicorn -c config/gunicorn.conf.py wsgi:app`."""

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

sys.setswitchinterval(0.0005)  # as backend/server/serving.py does, and for its reason
try:
    _addresses = addresses(_settings.host)
except OSError as error:
    sys.exit(f"Cannot listen on {_settings.host} port {_settings.port}: {error.strerror}")
bind = [
    f"[{each}]:{_settings.port}" if ":" in each else f"{each}:{_settings.port}"
    for each in _addresses
]
use_temporary_folder()  # each worker has a file there, by which it is seen to live
workers = _settings.workers
threads = _settings.threads
graceful_timeout = 25  # seconds for requests in flight after SIGTERM
keepalive = 15
control_socket_disable = True  # no control socket in the home directory
# The application reads X-Forwarded-*, from TRUSTED_PROXIES only. gunicorn believes no header, and
# so need not look at the address of each peer: that took a fiftieth of a request.
secure_scheme_headers, forwarder_headers, forwarded_allow_ips = {}, "", "*"


class DrainingWorker(ThreadWorker):
    """Takes what has connected, then stops listening at once, and so fails nobody.

    By itself gunicorn listens on to its end, and resets whoever has connected meanwhile.
    """

    def set_accept_enabled(self, enabled):
        """Begin or cease to take connections; gunicorn does so once more when it is to end."""
        super().set_accept_enabled(enabled)
        if not self.alive:
            self.wsgi.extensions["backend"].draining.set()
            for listener in self.sockets:
                stop_listening(listener.sock, functools.partial(self.accept, listener))


worker_class = DrainingWorker


def on_starting(server):
    """Write gunicorn's own lines as all others are written."""
    logs.configure(_settings)
    own = logging.getLogger("gunicorn.error")
    own.handlers.clear()
    own.propagate = True


def when_ready(server):
    """Log where the service answers."""
    announce(_settings)


def _share_metrics():
    """Make the folder in which the workers' metrics are added up, before they are imported.

    It is this process's: a reload (SIGHUP) comes here again and keeps it, the next gunicorn
    (SIGUSR2) inherits the variable and makes its own.
    """
    owner = f"-{os.getpid()}"
    if not os.environ.get("PROMETHEUS_MULTIPROC_DIR", "").endswith(owner):
        folder = tempfile.mkdtemp(prefix="backend-metrics-", suffix=owner)
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        atexit.register(_remove, folder, os.getpid())


def _remove(folder, owner):
    if os.getpid() == owner:  # a worker ends like this too
        shutil.rmtree(folder, ignore_errors=True)


if _settings.metrics_enabled:
    _share_metrics()


def post_worker_init(worker):
    """Begin what a worker does beside requests, in this worker alone."""
    service = worker.wsgi.extensions["backend"]
    service.metrics.keep_sampling(service)
    service.sender.start()  # mail that waits from before a crash
    gc.freeze()  # as backend/server/serving.py does, and for its reason


def child_exit(server, worker):
    """Take what a worker held at its end out of the sums; what it counted stays."""
    if _settings.metrics_enabled:
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(worker.pid)
