"""What a running service notices is reported by `flask doctor`, in another process."""

from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient

from .support.apps import client_of, service_of, url_of

FORWARDED = {"X-Forwarded-For": "192.0.2.7"}


def doctor(app: Flask) -> str:
    """What doctor says, in an app of its own."""
    return app.test_cli_runner().invoke(args=["doctor"]).output


def see(client: FlaskClient, **headers: str) -> None:
    """Let the service see a request."""
    client.get("/healthz", headers=headers)
    assert service_of(client.application).tasks.join(30)


def test_requests_forwarded_by_an_untrusted_proxy_are_reported(
    client: FlaskClient, make_app: Callable[..., Flask], caplog: pytest.LogCaptureFixture
) -> None:
    url = url_of(client.application)
    see(client)
    assert "TRUSTED_PROXIES" not in doctor(make_app(database_url=url))
    for _ in range(3):
        see(client, **FORWARDED)
    assert "TRUSTED_PROXIES" in doctor(make_app(database_url=url))
    warnings = [line for line in caplog.messages if "TRUSTED_PROXIES" in line]
    assert len(warnings) == 1  # once a process, not once a request


def test_they_are_not_reported_once_fixed_or_long_past(
    client: FlaskClient, make_app: Callable[..., Flask], travel: Callable[..., None]
) -> None:
    url = url_of(client.application)
    see(client, **FORWARDED)
    mended = make_app(database_url=url, trusted_proxies="127.0.0.1")
    see(client_of(mended), **FORWARDED)
    assert "TRUSTED_PROXIES" not in doctor(mended)
    travel(days=8)
    assert "TRUSTED_PROXIES" not in doctor(make_app(database_url=url))


def test_a_clock_that_is_off_is_reported(app: Flask, travel: Callable[..., None]) -> None:
    assert "clock" not in doctor(app)
    travel(seconds=-600)
    if url_of(app).startswith("postgresql:"):
        assert "by 600 s" in doctor(app)
    else:
        assert "clock" not in doctor(app)  # the database is this machine
