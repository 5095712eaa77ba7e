"""Apps in this process, the service inside them, and clients that check what they answer."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from backend.services import Services
from backend.web import openapi

INTERNAL = re.compile(r'"(password_hash|digest|seal|wrapped_key|secret_id|\w*epoch)":|\$2b\$')


def client_of(app: Flask) -> FlaskClient:
    """Return a client of the app. Each answer is checked against the documentation."""
    app.test_client_class = DocumentedClient
    return app.test_client()


def close(app: Flask) -> None:
    """End the app's threads, then its connections: a thread that still uses one would crash."""
    service = service_of(app)
    for lane in (service.tasks, service.shuffled_tasks, service.sender):
        lane.close()
    service.periodic_tasks.stop()  # no test looks at what remains to be done
    service.database.close_all()


def service_of(app: Flask) -> Services:
    """Return the service inside the app."""
    return app.extensions["backend"]


def url_of(app: Flask) -> str:
    """Return the URL of the app's database."""
    return service_of(app).settings.database_url


@contextmanager
def statements(app: Flask) -> Iterator[list[str]]:
    """Collect the SQL that this thread runs on the app's database during the block."""
    database, thread, ran = service_of(app).database, threading.get_ident(), []

    def hook(event: Any) -> None:
        if threading.get_ident() == thread:
            ran.append(event.sql)

    database.query_hooks.append(hook)
    yield ran
    database.query_hooks.remove(hook)


class DocumentedClient(FlaskClient):
    """Fails the test on a 5xx that is not documented, or an undocumented error code.

    It also fails on an answer that shows an internal column or a hash (ASVS 5.0 8.2.3).
    """

    def open(self, *args: Any, **kwargs: Any) -> TestResponse:
        response = super().open(*args, **kwargs)
        assert response.status_code != 500, response.text
        if response.mimetype == "application/json":
            assert not INTERNAL.search(response.text), response.text
        is_problem = response.mimetype == "application/problem+json"
        if response.status_code >= 400 and is_problem and response.data:  # HEAD has none
            rules = self.application.url_map.bind("localhost")
            path, method = response.request.path, response.request.method
            if response.json["code"] not in {"not_found", "method_not_allowed", "bad_request"}:
                endpoint, found = rules.match(path, method)
                view = self.application.view_functions[endpoint]
                assert response.json["code"] in openapi.codes_of(view, has_id=bool(found))
        return response


def settle(app: Flask) -> None:
    """Wait until all that requests started is done: tasks, shuffled tasks, mail that is due."""
    service = service_of(app)
    assert all(lane.join(30) for lane in (service.tasks, service.shuffled_tasks, service.sender))
