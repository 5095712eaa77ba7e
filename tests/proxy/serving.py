"""The service and an application behind it, for proxies to be in front of."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from flask import Flask
from waitress.server import create_server


def echo(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Answer with what arrived, and the status in the path."""
    status = environ["PATH_INFO"].strip("/")
    start_response(f"{status if status.isdigit() else 200} Said", [("X-Own", "1")])
    headers = {name[5:]: text for name, text in environ.items() if name.startswith("HTTP_")}
    body = environ["wsgi.input"].read().decode()
    line = {"method": environ["REQUEST_METHOD"], "query": environ["QUERY_STRING"], "body": body}
    return [json.dumps({**line, "headers": headers}).encode()]


@contextlib.contextmanager
def serving(app: Any) -> Iterator[int]:
    """The port on which the application is served."""
    server = create_server(
        app, host="127.0.0.1", port=0, threads=4, clear_untrusted_proxy_headers=False
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    yield server.effective_port
    server.trigger.pull_trigger(server.close)
    thread.join(30)


class Counted:
    """The service, and the ports of the connections over which it was asked."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.ports: set[str] = set()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.ports.add(environ["REMOTE_PORT"])
        return self.app(environ, start_response)
