"""PostgreSQL that falls silent: bounded refusals, and a service that heals by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from flask import Flask

from backend.app import create_app

from .conftest import (
    POSTGRES_URL,
    Relay,
    add_user,
    client_of,
    make_settings,
    migrate,
    scratch_postgres,
    service_of,
    sign_in,
    until,
)


@pytest.fixture
def relayed() -> Iterator[tuple[Flask, Relay]]:
    """An app whose way to PostgreSQL leads through a relay."""
    if not POSTGRES_URL:
        pytest.skip("TEST_POSTGRES_URL is not set")
    with scratch_postgres() as direct:
        migrate(direct)
        url = urlsplit(direct)
        relay = Relay(url.hostname or "127.0.0.1", url.port or 5432)
        credentials = url.netloc.rpartition("@")[0]
        through = f"postgresql://{credentials}@127.0.0.1:{relay.port}{url.path}"
        app = create_app(make_settings(database_url=through, database_timeout=1, threads=4))
        yield app, relay
        relay.thaw()
        service_of(app).database.close_all()
        relay.close()


def test_a_frozen_database_is_told_in_bounded_time_and_heals(
    relayed: tuple[Flask, Relay],
) -> None:
    app, relay = relayed
    client = client_of(app)
    add_user(client, "alice")
    alice = sign_in(client, "alice")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: alice.get("/v1/auth/me"), range(8)))  # fills the pool

        relay.freeze()
        started = time.monotonic()
        answers = list(
            pool.map(lambda _: client_of(app).get("/v1/auth/me", headers=alice.headers), range(16))
        )
        assert time.monotonic() - started < 8
        assert {answer.status_code for answer in answers} == {503}
        assert answers[0].headers["Retry-After"]
        assert client.get("/healthz").status_code == 200

    relay.thaw()
    until(lambda: alice.get("/v1/auth/me").status_code == 200)
