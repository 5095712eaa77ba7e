"""gunicorn with the settings of the service: `gunicorn -c config/gunicorn.conf.py wsgi:app`."""

import logging
import sys

from backend.core import logs
from backend.core.settings import Settings, SettingsError

try:
    _settings = Settings.load().check()
except SettingsError as refusal:
    sys.exit(f"Not started, for these reasons:\n{refusal}")

sys.setswitchinterval(0.0005)  # as backend/server.py does, and for its reason
_host = f"[{_settings.host}]" if ":" in _settings.host else _settings.host
bind = f"{_host}:{_settings.port}"
workers = _settings.workers
threads = _settings.threads
worker_class = "gthread"
graceful_timeout = 25  # seconds for requests in flight after SIGTERM
keepalive = 15
control_socket_disable = True  # no control socket in the home directory
forwarded_allow_ips = ""  # the application reads X-Forwarded-*, from TRUSTED_PROXIES only


def on_starting(server):
    """Write gunicorn's own lines as all others are written."""
    logs.configure(_settings)
    own = logging.getLogger("gunicorn.error")
    own.handlers.clear()
    own.propagate = True
