"""A server of this machine for what the browser looks at."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

from flask import Flask
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.serving import WSGIRequestHandler, make_server

PREFIX = "/accounts"


class Quiet(WSGIRequestHandler):
    """Writes no line per request."""

    def log(self, *args: object) -> None:
        """Nothing."""


@contextlib.contextmanager
def served(make_app: Callable[..., Flask], **settings: object) -> Iterator[tuple[Flask, int]]:
    """(an app that a server of this machine serves under PREFIX, the port).

    PUBLIC_URL is where it is served, unless another is given.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        app = make_app(**{"public_url": f"http://127.0.0.1:{port}{PREFIX}"} | settings)
        host = DispatcherMiddleware(Flask("host"), {PREFIX: app})
        server = make_server(
            "127.0.0.1", port, host, threaded=True, request_handler=Quiet, fd=listener.fileno()
        )
    thread = threading.Thread(target=server.serve_forever, args=[0.01])
    thread.start()
    try:
        yield app, port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
