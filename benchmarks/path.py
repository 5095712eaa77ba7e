"""`python -m benchmarks.path [--short]`: where a request's microseconds go, without a server.

The WSGI application is called in a loop, in this process. This module puts clocks around the
functions through which a request enters a layer; the service does not know about them. Each layer
is shown without the layers inside it. The second-to-last row is measured without clocks, so the
difference to the sum of the layers is what the clocks cost.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flask import Flask
from flask.ctx import RequestContext
from marshmallow import Schema

from backend.app import create_app
from backend.core import logs
from backend.core.settings import Settings
from backend.crypto import keyring
from backend.web import api, middleware, parsing

from . import charts, contenders, report
from .contenders import ENGINES, KEYS, Site, service_work
from .load import Request
from .peers.floor.app import app as bare

WORKS = ("me by token", "me by key", "verify", "forward-auth")
Application = Callable[..., Any]


class Clocks:
    """The seconds spent in each layer, without the layers that it calls."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self._inner = [0.0]
        self._undo: list[Callable[[], None]] = []

    def put(self, layer: str, owner: Any, name: Any) -> None:
        """Measure an attribute or member of the owner, under the layer's name."""
        is_container = isinstance(owner, list | dict)
        original = owner[name] if is_container else getattr(owner, name)
        assign = owner.__setitem__ if is_container else lambda *given: setattr(owner, *given)
        inner, spent = self._inner, self.spent
        spent.setdefault(layer, 0.0)

        @wraps(original)
        def timed(*args: Any, **kwargs: Any) -> Any:
            inner.append(0.0)
            started = time.perf_counter()
            try:
                return original(*args, **kwargs)
            finally:
                took = time.perf_counter() - started
                spent[layer] += took - inner.pop()
                inner[-1] += took

        assign(name, timed)
        self._undo.append(lambda: assign(name, original))

    def take_off(self) -> None:
        """Restore everything."""
        while self._undo:
            self._undo.pop()()


def put_on(clocks: Clocks, app: Flask) -> None:
    """Put a clock on each layer of the service, from the outside inwards."""
    service: Any = app.extensions["backend"]
    surround: Any = app.wsgi_app
    clocks.put("middleware", app, "wsgi_app")
    clocks.put("headers", surround, "_complete")
    clocks.put("log", middleware, "_log")
    if hasattr(service, "metrics"):
        clocks.put("metrics", type(service.metrics), "request")
    clocks.put("Flask", surround, "_app")
    clocks.put("routing", app, "create_url_adapter")
    clocks.put("routing", RequestContext, "match_request")
    for number in range(len(app.before_request_funcs[None])):
        clocks.put("guard", app.before_request_funcs[None], number)
    if forward_auth := sys.modules.get("backend.forward_auth.routes"):
        clocks.put("guard", forward_auth, "authorize")  # it checks its callers itself
    clocks.put("token, digest", type(service.access_tokens), "read")
    clocks.put("token, digest", keyring, "is_api_key")
    clocks.put("token, digest", type(service.keyring), "digests")
    for name in ("connect", "close"):
        clocks.put("connection", service.database, name)
    clocks.put("query", service.database, "execute_sql")
    clocks.put("body", parsing, "_body")
    for endpoint in app.view_functions:
        clocks.put("view", app.view_functions, endpoint)
    for name in ("load", "dump"):
        clocks.put("schema", Schema, name)
    clocks.put("JSON", api, "to_json")


def call(app: Application, environ: dict[str, Any], body: bytes) -> str:
    """Send a request as a server would, read the answer, and return its status."""
    statuses: list[str] = []
    started = {**environ, "wsgi.input": io.BytesIO(body)}
    answer = app(started, lambda status, headers, error=None: statuses.append(status))
    b"".join(answer)
    if hasattr(answer, "close"):
        answer.close()
    return statuses[0]


def environ_of(request: Request) -> tuple[dict[str, Any], bytes]:
    """Return (WSGI environment, body) of a request, as gunicorn makes them."""
    path, body = urlsplit(request.path), (request.body or "").encode()
    headers = {f"HTTP_{k.upper().replace('-', '_')}": v for k, v in request.headers.items()}
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "PATH_INFO": path.path,
        "QUERY_STRING": path.query,
        "SCRIPT_NAME": "",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "127.0.0.1:8000",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        **headers,
    }
    if body:
        environ["CONTENT_TYPE"] = environ.pop("HTTP_CONTENT_TYPE")
        environ["CONTENT_LENGTH"] = str(len(body))
    return environ, body


def microseconds(app: Application, request: Request, times: int) -> float:
    """Measure a request `times` times; return its microseconds."""
    environ, body = environ_of(request)
    took = []
    for _ in range(times):
        started = time.perf_counter()
        call(app, environ, body)
        took.append(time.perf_counter() - started)
    return _best(took)


def layers(app: Flask, request: Request, times: int) -> dict[str, float]:
    """Measure a request `times` times; return the microseconds of each layer."""
    environ, body = environ_of(request)
    clocks = Clocks()
    put_on(clocks, app)
    found: dict[str, list[float]] = {layer: [] for layer in clocks.spent}
    for _ in range(times):
        call(app, environ, body)
        for layer, seconds in clocks.spent.items():
            found[layer].append(seconds)
            clocks.spent[layer] = 0.0
    clocks.take_off()
    return {layer: _best(values) for layer, values in found.items()}


def _best(values: list[float]) -> float:
    """Return the first decile, in microseconds: other processes can only make a figure larger."""
    return statistics.quantiles(values, n=10)[0] * 1e6


def measure(site: Site, times: int) -> dict[str, dict[str, float]]:
    """Return {workload: {layer: microseconds}} of the service, and of the bare route for each."""
    settings = Settings.load(contenders.production(site, 2, 1), dotenv=None)
    with open(os.devnull, "w") as nowhere:
        logs.configure(settings, console=nowhere)
        app = create_app(settings)
        found = {}
        for work in WORKS:
            request = service_work(site.known, 0)[work].requests[0]
            status = call(app, *environ_of(request))
            if status[:3] in ("404", "405"):
                print(f"{work} does not exist", file=sys.stderr)
                continue
            if status[:1] != "2":
                raise RuntimeError(f"{work} is answered with {status}")
            found[work] = layers(app, request, times)
            found[work]["all, without clocks"] = microseconds(app, request, times)
            found[work]["bare Flask"] = microseconds(bare.wsgi_app, Request("/me"), times)
        service: Any = app.extensions["backend"]
        service.periodic_tasks.close()
        service.database.close_all()
    return found


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.path", description=__doc__)
    parser.add_argument("--short", action="store_true")
    asked = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        for engine in ENGINES:
            site = stack.enter_context(contenders.site(engine, Path(name), KEYS))
            for work, figures in measure(site, 300 if asked.short else 5000).items():
                found[f"{work}, {engine}"] = figures
    names = list(next(iter(found.values())))
    table = [["µs", *found]]
    table += [[layer, *(f"{found[work][layer]:.1f}" for work in found)] for layer in names]
    groups = [
        (work, [(layer, figures[layer]) for layer in names[:-2]]) for work, figures in found.items()
    ]
    chart = charts.bars("Microseconds of a request, without the server", groups)
    into = contenders.ENVIRONMENTS / "short" if asked.short else report.RESULTS
    report.publish("path", table, found, {"path": chart}, into)


if __name__ == "__main__":
    main()
