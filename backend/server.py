"""The servers of `python wsgi.py`: one that reloads in development, waitress otherwise."""

from __future__ import annotations

import _thread
import logging
import select
import signal
import threading
import time
from typing import Any

from flask import Flask
from werkzeug.serving import WSGIRequestHandler, is_running_from_reloader, run_simple

from .core.context import Service
from .core.settings import Settings
from .web.admission import MAX_BODY

log = logging.getLogger(__name__)

DRAIN_SECONDS = 25  # less than the 30 s that Docker's and Kubernetes' users usually grant


def serve(app: Flask, settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    if not is_running_from_reloader():
        log.info("serving on %s", settings.public_url)
        if settings.docs_enabled:
            log.info("documentation at %s/v1/docs", settings.public_url)
    if settings.environment == "development":
        _serve_and_reload(app, settings)
    else:
        _serve(app, settings)
    service: Service = app.extensions["backend"]
    service.last_used.close()


class _Quiet(WSGIRequestHandler):
    """Names no version, and leaves the line per request to the application."""

    def version_string(self) -> str:
        """What the Server header says."""
        return "development"

    def log_request(self, *args: Any) -> None:
        """Nothing."""


def _serve_and_reload(app: Flask, settings: Settings) -> None:
    run_simple(
        settings.host,
        settings.port,
        app,
        use_reloader=True,
        threaded=True,
        request_handler=_Quiet,
    )


def _serve(app: Flask, settings: Settings) -> None:
    from waitress.server import create_server

    server = create_server(
        app,
        host=settings.host,
        port=settings.port,
        threads=settings.threads,
        ident=None,  # no Server header
        # Idle connections cost a descriptor each, not a thread; 100, the default, is an outage.
        connection_limit=_most_connections(),
        asyncore_use_poll=hasattr(select, "poll"),  # select() ends at 1,024 descriptors
        channel_timeout=60,
        max_request_body_size=2 * MAX_BODY,  # bodies above MAX_BODY get our own 413
        max_request_header_size=64 * 1024,
        clear_untrusted_proxy_headers=False,  # our envelope decides whom to trust
    )
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    draining = app.extensions["backend"].draining
    threading.Thread(target=_drain, args=(server, stop, draining), daemon=True).start()
    server.run()


def _most_connections() -> int:
    """4000, or what the limit of descriptors leaves beside databases and files."""
    try:
        import resource
    except ImportError:  # Windows
        return 400
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(4000, max(100, soft - 100)) if soft > 0 else 4000


def _drain(server: Any, stop: threading.Event, draining: threading.Event) -> None:
    """Once `stop` is set: take no new connection, finish what was begun, then end `server.run`.

    waitress by itself drops requests that run or wait when it is told to end.
    """
    stop.wait()
    draining.set()
    log.info("draining: no new connections; requests that were begun are finished")

    def unlisten() -> None:
        server.accepting = False
        server.del_channel()
        server.socket.close()

    server.trigger.pull_trigger(unlisten)  # in the thread that polls
    deadline = time.monotonic() + DRAIN_SECONDS
    time.sleep(0.1)
    while time.monotonic() < deadline and _is_busy(server):
        time.sleep(0.05)
    _thread.interrupt_main()


def _is_busy(server: Any) -> bool:
    channels = list(server.active_channels.values())
    return bool(server.task_dispatcher.queue) or any(
        channel.requests or channel.total_outbufs_len for channel in channels
    )
