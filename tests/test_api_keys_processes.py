"""Keys in two server processes on one database, and one Redis."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from .support.apps import client_of, url_of
from .support.concurrency import at_once
from .support.keys import path_of
from .support.people import Person, add_user, by_key, sign_in
from .support.servers import Answer, Server, read

pytestmark = pytest.mark.slow

SECRET = "known-to-all-processes-" * 2


@pytest.fixture
def owner(make_app: Callable[..., Flask]) -> Person:
    """Alice, signed in at an app in this process, on the database that the servers have too."""
    client = client_of(make_app(secret_key=SECRET))
    add_user(client, "alice")
    return sign_in(client, "alice")


@pytest.fixture
def servers(owner: Person, tree: Path, tmp_path: Path, redis_url: str) -> Iterator[list[Server]]:
    """Two processes that serve."""
    settings = {"secret_key": SECRET, "redis_url": redis_url, "bcrypt_rounds": 10}
    settings["database_url"] = url_of(owner.client.application)
    started = [Server("waitress", tree, tmp_path, **settings) for _ in range(2)]
    try:
        yield [server.wait_until_it_serves() for server in started]
    finally:
        for server in started:
            server.end()


def use(connection: HTTPConnection, key: dict[str, Any]) -> Answer:
    """The answer to one use of the key."""
    try:
        connection.request("GET", "/v1/auth/me", headers=by_key(key["key"]))
        return read(connection)
    finally:
        connection.close()


def use_often(servers: list[Server], key: dict[str, Any], times: int) -> Counter[int]:
    """How often what was answered to so many uses, sent at the same moment, half of them to each.

    The connections are there by then: none comes later for having waited for its own.
    """
    connections = [servers[number % 2].connect() for number in range(times)]
    for connection in connections:
        connection.connect()
    answers = at_once(*[partial(use, connection, key) for connection in connections])
    return Counter(answer.status for answer in answers)


def test_what_holds_in_one_process_holds_in_two(owner: Person, servers: list[Server]) -> None:
    counted = owner.new_key(quota={"remaining": 10})
    assert use_often(servers, counted, 64) == {200: 10, 429: 54}

    limited = owner.new_key(rate_limit={"limit": 100, "window_seconds": 60})
    assert use_often(servers, limited, 160) == {200: 100, 429: 60}
    refused = use(servers[0].connect(), limited)
    assert json.loads(refused.content)["code"] == "rate_limited"
    assert 0 < int(refused.getheader("Retry-After") or 0) <= 120

    plain = owner.new_key()
    new = owner.post(f"{path_of(plain)}/rotate", {"grace_seconds": 0}).json
    assert use_often(servers, plain, 4) == {200: 4}
    assert use(servers[0].connect(), new).status == 200
    assert use(servers[1].connect(), plain).status == 401
    assert use_often(servers, new, 4) == {200: 4}
    owner.post(f"{path_of(plain)}/revoke")
    assert use_often(servers, new, 4) == {401: 4}
