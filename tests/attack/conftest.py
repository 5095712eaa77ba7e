"""Real server processes on one database, and the table of what was measured of them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from ..conftest import client_of
from ..test_servers import Server

FULL = os.environ.get("ATTACK") == "full"
MANY = "1000000/300"  # a limit that nobody comes to
UNTHROTTLED = {
    "login_attempts": MANY,
    "login_attempts_per_address": MANY,
    "login_attempts_per_account": MANY,
}
FIGURES: list[tuple[str, str, str]] = []  # attack, what was measured, what came out

Site = tuple[FlaskClient, list[Server]]


@pytest.fixture
def make_site(
    fresh_database: Callable[[], str], app_on: Callable[..., Any], tree: Path, tmp_path: Path
) -> Iterator[Callable[..., Site]]:
    """A function that starts server processes on an empty database, with the settings given.

    `make_site("waitress", 2, bcrypt_rounds=10)` returns two, and a client of a third application on
    the database, in this process: for what an attack finds there.
    """
    started: list[Server] = []

    def make(kind: str = "waitress", processes: int = 1, **settings: Any) -> Site:
        settings = {
            "secret_key": secrets.token_urlsafe(48),
            "public_url": "http://127.0.0.1:8000",
            "mail_url": "memory:",
            "bcrypt_rounds": 10,
            **settings,
        }
        url = fresh_database()
        client = client_of(app_on(url, **settings))
        servers = [
            Server(kind, tree, tmp_path, database_url=url, **settings) for _ in range(processes)
        ]
        started.extend(servers)
        return client, [server.wait_until_it_serves() for server in servers]

    yield make
    for server in started:
        server.end()


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """A function that puts a line into the table at the end: figure("p99", "31 ms")."""

    def note(what: str, found: str) -> None:
        FIGURES.append((request.node.name, what, found))

    return note


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The table."""
    form = "full" if FULL else "short"
    terminalreporter.section(f"measured, {form} form, on {os.cpu_count()} cores")
    last = ""
    for attack, what, found in FIGURES:
        if attack != last:
            terminalreporter.write_line(attack)
        terminalreporter.write_line(f"    {what:<44} {found}")
        last = attack
