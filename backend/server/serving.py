"""The server of `python wsgi.py`: waitress, or one that reloads in development.

Skip it on a first reading.
"""

from __future__ import annotations

import _thread
import gc
import logging
import select
import signal
import socket
import sys
import threading
import time
from typing import Any

from flask import Flask
from waitress import wasyncore
from waitress.server import BaseWSGIServer, create_server

from ..core.settings import Settings
from ..web import access
from ..web.parsing import MAX_BODY
from .connections import Waiting, channel_class
from .listeners import begin, finish, has_input, listen, on_end, stop_listening
from .reloader import serve_and_reload

log = logging.getLogger(__name__)

DRAIN_SECONDS = 25  # within the 30 s that Kubernetes grants; Docker's default of 10 s is too short
LINGER_SECONDS = 1.0  # for requests on their way on connections that a proxy keeps open


def serve(app: Flask, settings: Settings) -> None:
    """Serve until SIGTERM, SIGHUP or Ctrl-C."""
    try:
        sockets = listen(settings)
    except OSError as error:  # the port is taken, or the address is not ours
        sys.exit(f"Cannot listen on {settings.host} port {settings.port}: {error.strerror}")
    if settings.environment == "development":
        serve_and_reload(sockets)
        return
    # In a flood many threads want to run, and each waits for all others: with Python's default of
    # 5 ms, the tenth thread waits 50 ms (`make attack` measures it).
    sys.setswitchinterval(0.0005)
    # All objects that exist now will stay: searching them for garbage took 30 ms every 250 pages.
    gc.freeze()
    _serve(app, settings, sockets)
    finish(app)


def _serve(app: Flask, settings: Settings, sockets: list[socket.socket]) -> None:
    polled: dict[int, Any] = {}  # what waitress polls: listeners and connections by descriptor
    server = create_server(
        app,
        polled,
        sockets=sockets,
        threads=settings.threads,
        ident=None,  # no Server header
        # An idle connection costs a descriptor, not a thread; the default, 100, fills up soon.
        connection_limit=_most_connections(),
        asyncore_use_poll=hasattr(select, "poll"),  # select() is limited to 1,024 descriptors
        channel_timeout=60,
        max_request_body_size=2 * MAX_BODY,  # bodies above MAX_BODY get our own 413
        max_request_header_size=64 * 1024,
        clear_untrusted_proxy_headers=False,  # our middleware decides whom to trust
    )
    draining = app.extensions["backend"].draining
    waiting = Waiting(access.hashing_paths(app))
    for listener in _listeners(polled):
        listener.task_dispatcher.queue = waiting
        listener.channel_class = channel_class(draining, waiting, settings.threads)
    stop = threading.Event()
    on_end(stop.set)
    # Shells start background processes with SIGINT ignored, but the drain ends with a SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_drain, args=(polled, stop, draining), daemon=True).start()
    begin(app)
    server.run()
    # The remaining work takes seconds, and no request on an open connection would be answered.
    wasyncore.close_all(polled, ignore_all=True)


def _listeners(polled: dict[int, Any]) -> list[BaseWSGIServer]:
    """Return the listeners, one for each address of the host name."""
    return [each for each in polled.values() if isinstance(each, BaseWSGIServer)]


def _most_connections() -> int:
    """Return 4000, or fewer if the limit on descriptors is low."""
    try:
        import resource
    except ImportError:  # Windows
        return 400
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(4000, max(100, soft - 100)) if soft > 0 else 4000


def _drain(polled: dict[int, Any], stop: threading.Event, draining: threading.Event) -> None:
    """When `stop` is set: refuse new connections, finish running requests, and end the server.

    waitress itself drops running and waiting requests when it is asked to end.
    """
    stop.wait()
    draining.set()
    log.info("draining: no new connections; finishing the requests that have started")
    listeners = _listeners(polled)

    def unlisten() -> None:
        for listener in listeners:
            listener.accepting = False
            listener.del_channel()
            stop_listening(listener.socket, listener.handle_accept)

    def close_idle() -> None:
        for listener in listeners:
            for channel in list(listener.active_channels.values()):
                if not _is_busy(channel):
                    channel.handle_close()

    trigger = listeners[0].trigger  # runs functions in the polling thread
    trigger.pull_trigger(unlisten)
    deadline = time.monotonic() + DRAIN_SECONDS
    time.sleep(LINGER_SECONDS)
    while time.monotonic() < deadline and any(each.active_channels for each in listeners):
        trigger.pull_trigger(close_idle)
        time.sleep(0.05)
    _thread.interrupt_main()


def _is_busy(channel: Any) -> bool:
    """Return whether anything is left to read, do or write: closing would reset the client."""
    left = channel.request or channel.requests or channel.total_outbufs_len
    return bool(left) or has_input(channel.socket)
