"""The development server: it restarts when a file changes, and survives errors in the files.

Skip it on a first reading.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from importlib import import_module
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any
from wsgiref.types import WSGIApplication, WSGIEnvironment

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from ..core.paths import ROOT
from .listeners import begin, finish, on_end

log = logging.getLogger(__name__)

INTERVAL = 0.5  # seconds between two checks of the files
ENDING_SECONDS = 10

Stamps = dict[Path, tuple[int, int]]


def serve_and_reload(sockets: list[socket.socket]) -> None:
    """Serve on the sockets until SIGTERM or Ctrl-C, in a process that is replaced on changes.

    The sockets stay open meanwhile, so clients that connect wait for the next process.
    """
    on_end(sys.exit)
    signal.signal(signal.SIGINT, lambda *_: sys.exit())  # shells ignore it in the background
    while True:
        before = _stamps()
        server = multiprocessing.get_context("spawn").Process(target=_serve, args=(sockets,))
        try:
            server.start()
            changed = _wait_for_change(server, before)
        finally:
            _end(server)
        if changed is None:
            return
        log.info("reloading: %s has changed", changed.relative_to(ROOT))


def _wait_for_change(server: SpawnProcess, before: Stamps) -> Path | None:
    """Return the first file that changes, or None if the server ends first because it was asked."""
    has_failed = False
    while True:
        time.sleep(INTERVAL)
        now = _stamps()
        for path in sorted(now.keys() | before.keys()):
            if now.get(path) != before.get(path):
                return path
        if server.exitcode == 0:
            return None
        if server.exitcode is not None and not has_failed:
            has_failed = True
            log.error(
                "the server ended with exit code %s; it starts again when a file changes",
                server.exitcode,
            )


def _end(server: SpawnProcess) -> None:
    if server.pid is None:
        return
    server.terminate()
    server.join(ENDING_SECONDS)
    if server.is_alive():
        server.kill()
        server.join()


def _stamps() -> Stamps:
    """Return the time and size of each file that the service may have read: code and settings."""
    return dict(_stamps_below(ROOT))


def _stamps_below(top: Path) -> Iterator[tuple[Path, tuple[int, int]]]:
    for folder, folders, files in os.walk(top):
        if "pyvenv.cfg" in files:
            folders.clear()
            continue
        folders[:] = [name for name in folders if name[0] != "." and name != "__pycache__"]
        for name in files:
            if name.endswith((".py", ".env")):
                path = Path(folder, name)
                try:
                    found = path.stat()
                except FileNotFoundError:  # an editor has just replaced it
                    continue
                yield path, (found.st_mtime_ns, found.st_size)


def _serve(sockets: list[socket.socket]) -> None:
    """Serve, in a child process, until a signal or the end of the first process."""
    on_end(sys.exit)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both; the first process decides
    # Import the current code here, by name, because the entry point imports the servers.
    app = import_module(f"{__package__.partition('.')[0]}.wsgi").app
    servers = [_server_on(listener, app) for listener in sockets]
    begin(app)
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    first = multiprocessing.parent_process()
    with contextlib.suppress(SystemExit):
        wait([first.sentinel] if first else [])
    for server in servers:
        server.shutdown()
    finish(app)


def _server_on(listener: socket.socket, app: WSGIApplication) -> BaseWSGIServer:
    host, port = listener.getsockname()[:2]
    fd = listener.fileno()
    return make_server(host, port, app, threaded=True, request_handler=_Quiet, fd=fd)


class _Quiet(WSGIRequestHandler):
    """Hides the version, and leaves the log line of each request to the application."""

    def version_string(self) -> str:
        """Return the value of the Server header."""
        return "development"

    def log_request(self, *args: Any) -> None:
        """Do nothing."""

    def make_environ(self) -> WSGIEnvironment:
        """Return the WSGI environment. The library would turn `//v1/x` into `/v1/x`."""
        environ = super().make_environ()
        if self.requestline.split()[1].startswith("//"):
            environ["PATH_INFO"] = f"/{environ['PATH_INFO']}"
        return environ
