"""gunicorn with the settings of the service: `gunicorn -c config/gunicorn.conf.py wsgi:app`."""

from backend.core.settings import Settings

_settings = Settings.load()

bind = f"{_settings.host}:{_settings.port}"
workers = _settings.workers
threads = _settings.threads
worker_class = "gthread"
graceful_timeout = 25  # seconds for requests in flight after SIGTERM
keepalive = 15
max_requests = 0
control_socket_disable = True  # no control socket in the home directory
forwarded_allow_ips = ""  # the application reads X-Forwarded-*, from TRUSTED_PROXIES only
limit_request_line = 8190
