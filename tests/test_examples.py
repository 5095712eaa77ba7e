"""The examples, as processes of their own that share a service's settings and database."""

from __future__ import annotations

import http.client
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from backend.core.settings import ROOT

from .support.apps import url_of
from .support.people import Person, by_key
from .support.processes import Process, copy_tree, free_port
from .support.settings import process_environ
from .support.usage import counts

pytestmark = pytest.mark.slow

EXAMPLES = ["flask_app:app", "django_app:application", "mounted:app"]

# As docs/protect.md has it.
WAITRESS = """
import signal, sys, waitress
from examples.{module} import {app}
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
waitress.serve({app}, listen="127.0.0.1:{port}")
"""


class Host(Process):
    """A process that serves an example, with gunicorn as the example says, or with waitress."""

    def __init__(self, tree: Path, name: str, server: str, **settings: object) -> None:
        port = free_port()
        module, _, app = name.partition(":")
        programs: dict[str, list[str]] = {
            "gunicorn": ["-b", f"127.0.0.1:{port}", "--threads", "8", f"examples.{name}"],
            "python": ["-c", WAITRESS.format(module=module, app=app, port=port)],
        }
        super().__init__(
            [Path(sys.executable).parent / server, *programs[server]],
            port,
            tree / f"{port}.log",
            cwd=tree,
            # gunicorn puts a socket there, by which it can be told things.
            env=process_environ(environment="testing", secret_key=None, home=tree, **settings),
        )

    def ask(
        self, path: str, headers: dict[str, str] | None = None, body: Any = None
    ) -> tuple[int, Any, http.client.HTTPMessage]:
        """(status, body, headers) of the answer."""
        connection = self.connect()
        sent = {**(headers or {}), **({"Content-Type": "application/json"} if body else {})}
        method, data = ("POST", json.dumps(body)) if body else ("GET", None)
        connection.request(method, path, data, sent)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        is_json = "json" in answer.headers.get("Content-Type", "")
        return answer.status, json.loads(text) if is_json else text, answer.headers


@pytest.fixture
def start(client: FlaskClient, tmp_path: Path) -> Iterator[Callable[..., Host]]:
    """A function that serves an example, beside the service of `client`."""
    shutil.copytree(ROOT / "examples", copy_tree(tmp_path) / "examples")
    with ExitStack() as started:

        def start(name: str, server: str = "gunicorn") -> Host:
            url = url_of(client.application)
            return started.enter_context(Host(tmp_path, name, server, database_url=url))

        yield start


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_host_lets_those_pass_whom_the_service_knows(
    start: Callable[..., Host], alice: Person, name: str
) -> None:
    host = start(name)
    assert host.ask("/")[0] == 200
    key = by_key(alice.new_key(scopes=["reports:read"])["key"])
    for headers, method in ((key, "api_key"), (alice.headers, "session")):
        assert host.ask("/reports", headers)[:2] == (200, {"for": "alice", "by": method})
    for headers, code in [
        ({}, "unauthenticated"),
        ({"X-Auth-Username": "alice"}, "unauthenticated"),
        (by_key("garbage"), "invalid_credentials"),
        (by_key(alice.new_key()["key"]), "insufficient_scope"),
    ]:
        status, problem, _ = host.ask("/reports", headers)
        assert (status, problem["code"]) == (problem["status"], code)
    alice.post("/v1/auth/logout")
    assert host.ask("/reports", alice.headers)[0] == 401


@pytest.mark.parametrize("server", ["gunicorn", "python"])
@pytest.mark.parametrize("name", EXAMPLES)
def test_a_host_that_is_told_to_end_has_counted_all_uses(
    start: Callable[..., Host], alice: Person, name: str, server: str
) -> None:
    host = start(name, server)
    key = alice.new_key(scopes=["reports:read"])
    for _ in range(5):
        assert host.ask("/reports", by_key(key["key"]))[0] == 200
    host.process.terminate()
    assert host.process.wait(40) == 0
    assert counts(alice, key) == {"valid": 5}


def test_the_mounted_service_works_under_its_prefix(
    start: Callable[..., Host], alice: Person
) -> None:
    host = start("mounted:app")
    _, front, _ = host.ask("/accounts/")
    for path in front["links"].values():
        assert path.startswith("/accounts/")
        assert host.ask(path)[0] == 200
    assert host.ask("/accounts/v1/openapi.json")[1]["servers"][-1] == {"url": "/accounts"}
    wanted = {"name": "x", "scopes": ["reports:read"]}
    status, made, headers = host.ask("/accounts/v1/api-keys", alice.headers, wanted)
    assert (status, headers["Location"]) == (201, f"/accounts/v1/api-keys/{made['id']}")
    assert host.ask(headers["Location"], alice.headers)[1]["id"] == made["id"]
    assert host.ask("/reports", by_key(made["key"]))[0] == 200
    assert host.ask("/accounts/v1/verify?scope=reports:read", by_key(made["key"]))[0] == 200
    assert host.ask("/v1/verify", by_key(made["key"]))[0] == 404
