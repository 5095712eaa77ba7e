"""A browser, and a server of this machine for what it looks at."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.serving import WSGIRequestHandler, make_server

from ..conftest import client_of
from .chromium import Chromium

BINARY = os.environ.get("TEST_CHROMIUM") or shutil.which("chromium")
PREFIX = "/accounts"

if os.environ.get("CI") == "true" and not BINARY:
    raise pytest.UsageError("CI=true: name a Chromium in TEST_CHROMIUM, no test may be skipped")


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """A browser for all tests of this process."""
    if not BINARY:
        pytest.skip("no Chromium; TEST_CHROMIUM may name one")
    browser = Chromium(BINARY, tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.fixture
def page(browser: Chromium) -> Iterator[Chromium]:
    """The browser, in which no test may leave a complaint about code or the policy."""
    browser.open("about:blank")
    browser.complaints.clear()
    yield browser
    assert [each for each in browser.complaints if "status of 4" not in each] == []


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


@pytest.fixture
def client(make_app: Callable[..., Flask]) -> Iterator[FlaskClient]:
    """A client of an app that is served under PREFIX."""
    with served(make_app) as (app, _):
        yield client_of(app)
