"""ASVS 5.0 chapter 13: secrets and settings, and what a running service shows of itself."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from backend.core.settings import ROOT, SettingsError
from backend.core.settings_checks import EXAMPLE_SECRETS, require_safe
from backend.db.database import open_database

from .support.apps import client_of, url_of
from .support.people import add_user, sign_in
from .support.problems import assert_problem
from .support.processes import run
from .support.servers import Server
from .support.settings import make_settings

PRODUCTION = {"environment": "production", "secret_key": "k7Jx-q2Wd" * 5}


@pytest.mark.slow
@pytest.mark.parametrize("secret", ["secret", "change-me-change-me-change-me-change"])
def test_13_2_3_nothing_starts_with_a_secret_that_others_know(tree: Path, secret: str) -> None:
    refused = run(tree, "python", "wsgi.py", secret_key=secret)
    assert refused.returncode != 0
    _, *reasons = refused.stderr.splitlines()
    assert reasons
    assert all(reason.startswith("SECRET_KEY ") for reason in reasons)
    assert len(secret) < 10 or secret not in refused.stdout + refused.stderr


def test_13_2_3_what_is_delivered_holds_no_password_and_no_secret() -> None:
    settings = make_settings(environment="production")
    for name in ("secret_key", "admin_password", "mail_url", "secret_key_fallbacks"):
        assert not getattr(settings, name)
    for line in (ROOT / ".env.example").read_text("utf-8").splitlines():
        assert not re.match(r"(SECRET_KEY|ADMIN_PASSWORD|METRICS_TOKEN)\w*=.", line), line
    for secret in ("", "x" * 64, "short-k7Jxq2Wd", *EXAMPLE_SECRETS):
        with pytest.raises(SettingsError, match="SECRET_KEY"):
            require_safe(make_settings(environment="production", secret_key=secret))


@pytest.mark.slow
def test_13_3_1_secrets_may_be_files_that_are_not_in_the_artefact(
    tree: Path, tmp_path: Path
) -> None:
    everything, *let_in = (ROOT / ".dockerignore").read_text("utf-8").split()
    assert everything == "*"
    assert not {"!.env", "!instance", "!."} & set(let_in)
    (tmp_path / "secret").write_text(PRODUCTION["secret_key"], "utf-8")
    given = {"secret_key": None, "secret_key_file": tmp_path / "secret"}
    url = f"sqlite:///{tmp_path / 'test.db'}"
    told = run(tree, "flask", "--app", "wsgi", "db", "upgrade", database_url=url, **given)
    assert (told.returncode, told.stderr) == (0, "")


@contextmanager
def locked(app: Flask) -> Iterator[None]:
    """Somebody keeps everybody else from writing to the app's database."""
    other = open_database(make_settings(database_url=url_of(app)))
    with other.atomic():
        if url_of(app).startswith("postgresql:"):
            other.execute_sql("LOCK TABLE throttles, sessions, users")
        yield
    other.close_all()


def test_13_2_6_a_database_that_does_not_answer_is_waited_for_as_long_as_documented(
    make_app: Callable[..., Flask],
) -> None:
    documented = (ROOT / "docs" / "settings.md").read_text("utf-8")
    for name in ("DATABASE_TIMEOUT", "DATABASE_POOL_SIZE", "THREADS"):
        assert f"| `{name}` |" in documented
    app = make_app(database_timeout=1)
    client = client_of(app)
    add_user(client, "alice")
    body = {"username": "alice", "password": "wrong"}
    with locked(app):
        began = time.monotonic()
        answer = client.post("/v1/auth/login", json=body)
        assert time.monotonic() - began < 10
    assert_problem(answer, 503, "unavailable")
    assert "Retry-After" in answer.headers
    assert sign_in(client, "alice").get("/v1/auth/me").status_code == 200


def test_13_4_2_debugging_is_off(make_bare_app: Callable[..., Flask], bare: FlaskClient) -> None:
    with pytest.raises(SettingsError, match="FLASK_DEBUG"):
        make_bare_app(**PRODUCTION, flask_debug="1")
    assert bare.application.debug is False
    assert_problem(bare.get("/console"), 404, "not_found")
    for query in ("__debugger__=yes", "__debugger__=yes&cmd=resource&f=style.css"):
        assert_problem(bare.get(f"/?{query}"), 422, "validation_error", *faults(query))
        assert_problem(bare.get(f"/nothing?{query}"), 404, "not_found")


def faults(query: str) -> list[str]:
    """What is told of a query of which nothing is known."""
    return [f"query.{part.partition('=')[0]}" for part in query.split("&")]


def test_13_4_4_a_request_is_not_sent_back(bare: FlaskClient) -> None:
    for path in ("/", "/healthz", "/v1/auth/me", "/v1/auth/login"):
        answer = bare.open(path, method="TRACE", headers={"X-Mine": "canary"})
        assert_problem(answer, 405, "method_not_allowed")
        assert "canary" not in answer.text + str(answer.headers)


def test_13_4_5_documentation_is_shown_on_purpose_only(
    make_bare_app: Callable[..., Flask],
) -> None:
    paths = ("/v1/openapi.json", "/v1/docs", "/v1/redoc", "/v1/docs/assets/redoc.js")
    quiet = client_of(make_bare_app(**PRODUCTION))
    for path in (*paths, "/metrics"):
        assert_problem(quiet.get(path), 404, "not_found")
    shown = client_of(make_bare_app(**PRODUCTION, docs_enabled="true"))
    assert [shown.get(path).status_code for path in paths] == [200] * 4


@pytest.mark.slow
def test_13_4_6_no_header_tells_what_runs_in_which_version(tree: Path, tmp_path: Path) -> None:
    server = Server("waitress", tree, tmp_path, database_url=f"sqlite:///{tmp_path}/none/none.db")
    try:
        server.wait_until_it_serves()
        for path in ("/", "/readyz", "/nothing", "/v1/auth/me"):
            headers = dict(server.ask("GET", path).getheaders())
            assert not {"Server", "X-Powered-By", "Via"} & set(headers)
            assert not re.search("(?i)waitress|werkzeug|python|flask", str(headers))
    finally:
        server.end()
