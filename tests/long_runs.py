"""What long runs share: server processes on one database, and the table of what was measured."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from .conftest import MEMORY, client_of
from .test_servers import Server

Site = tuple[FlaskClient, list[Server]]


@pytest.fixture
def site_on(app_on: Callable[..., Any], tree: Path) -> Iterator[Callable[..., Site]]:
    """A function that starts server processes on the database of a URL, with the settings given.

    `site_on(url, "waitress", 2, bcrypt_rounds=10)` returns two, and a client of a third application
    on the database, in this process: for what an attack or a fault leaves there. `first` has
    settings of the first process alone.
    """
    started: list[Server] = []

    def make(
        url: str,
        kind: str = "waitress",
        processes: int = 1,
        *,
        first: dict[str, Any] | None = None,
        **settings: Any,
    ) -> Site:
        settings = {
            "secret_key": secrets.token_urlsafe(48),
            "public_url": "http://127.0.0.1:8000",
            "mail_url": "memory:",
            "bcrypt_rounds": 10,
            **settings,
        }
        client = client_of(app_on(url, **settings))
        each = {"database_url": url, **settings}
        own = [first or {}] + [{}] * (processes - 1)
        servers = [Server(kind, tree, Path(logs), **each | more) for more in own]
        started.extend(servers)
        return client, [server.wait_until_it_serves() for server in servers]

    # In memory: a line of the log waits for a disk that others keep busy, and all with it.
    with tempfile.TemporaryDirectory(dir=MEMORY) as logs:
        yield make
        for server in started:
            server.end()


@pytest.fixture
def make_site(
    fresh_database: Callable[[], str], site_on: Callable[..., Site]
) -> Callable[..., Site]:
    """As site_on, on an empty database."""
    return lambda *args, **settings: site_on(fresh_database(), *args, **settings)


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """A function that puts a line into the table at the end: figure("p99", "31 ms")."""

    def note(what: str, found: str) -> None:
        request.node.user_properties.append((what, found))

    return note


def at(share: float, values: list[float]) -> float:
    """The value that this share of them does not exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The table."""
    form = "full" if "full" in {os.environ.get("ATTACK"), os.environ.get("FAULTS")} else "short"
    terminalreporter.section(f"measured, {form} form, on {os.cpu_count()} cores")
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            if report.when == "call" and report.user_properties:
                terminalreporter.write_line(report.nodeid.rpartition("::")[2])
                for what, found in report.user_properties:
                    terminalreporter.write_line(f"    {what:<44} {found}")
