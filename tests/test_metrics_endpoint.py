"""Metrics: what is counted, who may read it, and that it is right over several processes."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from backend.api_keys.service import write_last_used
from backend.background import periodic
from backend.core import clock
from backend.core.settings import ROOT

from .support.apps import client_of, service_of
from .support.concurrency import until
from .support.databases import migrate
from .support.metrics import Figures, told_by
from .support.openapi import NOTHING
from .support.people import PASSWORD, Person, add_user, by_key, by_token, sign_in
from .support.problems import assert_problem
from .support.servers import Server

TOKEN = "Canary-token-of-Prometheus"


def scrape(client: FlaskClient) -> Figures:
    """What /metrics says now."""
    response = client.get("/metrics")
    assert (response.status_code, response.mimetype) == (200, "text/plain")
    return Figures(response.text)


# --- who may read it ---


def test_it_is_text_for_prometheus_that_is_not_cached(bare: FlaskClient) -> None:
    response = bare.get("/metrics")
    assert response.content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert response.headers["Cache-Control"] == "no-store"
    assert "# TYPE backend_http_requests_total counter\n" in response.text


def test_metrics_that_are_off_are_not_found(make_bare_app: Callable[..., Flask]) -> None:
    off = client_of(make_bare_app(metrics_enabled="false", metrics_token=TOKEN))
    for headers in ({}, by_token(TOKEN)):
        assert_problem(off.get("/metrics", headers=headers), 404, "not_found")
    assert "/metrics" not in off.get("/v1/openapi.json").json["paths"]


@pytest.mark.parametrize("place", ["metrics_token", "metrics_token_file"])
def test_a_token_is_required_if_one_is_set(
    make_bare_app: Callable[..., Flask],
    logged: Callable[[], list[str]],
    tmp_path: Path,
    place: str,
) -> None:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    client = client_of(make_bare_app(**{place: path if place.endswith("file") else TOKEN}))
    for sent in (None, "", "Bearer", f"Basic {TOKEN}", TOKEN):
        response = client.get("/metrics", headers={"Authorization": sent} if sent else {})
        assert_problem(response, 401, "unauthenticated")
        assert response.headers["WWW-Authenticate"] == "Bearer"
    for wrong in ("x", TOKEN[:-1], f"{TOKEN}x", TOKEN.lower(), "tök\x00en", "a.b.c"):
        response = client.get("/metrics", environ_base={"HTTP_AUTHORIZATION": f"Bearer {wrong}"})
        assert_problem(response, 401, "invalid_credentials")
        assert response.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    assert_problem(client.get("/metrics", headers=by_key(TOKEN)), 401, "unauthenticated")
    for right in (f"Bearer {TOKEN}", f"bearer  {TOKEN} "):
        response = client.get("/metrics", headers={"Authorization": right})
        assert response.status_code == 200
        assert TOKEN not in response.text
    assert len(logged()) >= 14
    assert TOKEN not in "".join(logged())


# --- requests ---


def test_requests_are_counted_by_rule_method_and_status(client: FlaskClient, root: Person) -> None:
    before = scrape(client)
    for _ in range(3):
        root.get(f"/v1/users/{NOTHING}")
    root.get(f"/v1/users/{root.id}")
    root.delete(f"/v1/users/{NOTHING}")
    after = scrape(client)

    def more(**labels: str) -> float:
        labels["route"] = "/v1/users/<id:user_id>"
        name = "http_requests_total"
        return after.get(name, **labels) - before.get(name, **labels)

    assert more(method="GET", status="404") == 3
    assert more(method="GET", status="200") == 1
    assert more(method="DELETE", status="404") == 1
    assert more() == 5
    assert root.id not in after.text
    assert after.get("http_requests_total", route="/metrics", status="200") == 1


def test_text_made_up_by_clients_never_becomes_a_label(
    make_bare_app: Callable[..., Flask],
) -> None:
    client = client_of(make_bare_app())
    for number in range(20):
        client.get(f"/canary/{number}?canary=1")
        client.open("/healthz", method=f"CANARY{number}")
        client.open("/canary", method=f"CANARY{number}")
        client.get("/healthz", headers={"Host": f"canary{number}", "User-Agent": "canary"})
    figures = scrape(client)
    assert "canary" not in figures.text.lower()
    assert figures.get("http_requests_total", method="GET", route="none", status="404") == 20
    assert figures.get("http_requests_total", method="other", route="none") == 40
    assert figures.labels("http_requests_total", "method") == {"GET", "other"}


def test_durations_of_requests_have_buckets_below_a_millisecond(
    make_bare_app: Callable[..., Flask],
) -> None:
    client = client_of(make_bare_app())
    for _ in range(4):
        client.get("/healthz")
    figures, name = scrape(client), "http_request_duration_seconds"
    bounds = sorted(map(float, figures.labels(f"{name}_bucket", "le")))
    assert len([bound for bound in bounds if bound <= 0.001]) == 3
    assert bounds[-2:] == [5, float("inf")]
    of_healthz = {"method": "GET", "route": "/healthz"}
    assert figures.get(f"{name}_count", **of_healthz) == 4
    assert figures.get(f"{name}_bucket", le="+Inf", **of_healthz) == 4
    assert 0 < figures.get(f"{name}_sum", **of_healthz) < 4


def test_two_apps_in_a_process_count_separately(make_bare_app: Callable[..., Flask]) -> None:
    one, other = client_of(make_bare_app()), client_of(make_bare_app())
    one.get("/healthz")
    assert scrape(one).get("http_requests_total", route="/healthz") == 1
    assert scrape(other).get("http_requests_total", route="/healthz") == 0


# --- the rest ---


def test_counts_of_the_services_are_reported(make_bare_app: Callable[..., Flask]) -> None:
    app = make_bare_app()
    client, metrics = client_of(app), service_of(app).metrics
    for code in ("valid", "valid", "revoked"):
        metrics.verification(code)
    figures = scrape(client)
    assert figures.get("verifications_total", code="valid") == 2
    assert figures.get("verifications_total", code="revoked") == 1


def test_limits_that_are_checked_without_redis_are_counted(make_app: Callable[..., Flask]) -> None:
    client = client_of(make_app(redis_url="redis://127.0.0.1:1"))
    add_user(client, "alice")
    key = sign_in(client, "alice").new_key(rate_limit={"limit": 5, "window_seconds": 60})["key"]
    assert scrape(client).get("limiter_fallbacks_total") == 0
    assert client.get("/v1/auth/me", headers=by_key(key)).status_code == 200
    assert scrape(client).get("limiter_fallbacks_total") == 1


def test_running_and_refused_hashes_are_reported(make_app: Callable[..., Flask]) -> None:
    app = make_app(threads=2)
    client, body = client_of(app), {"username": "nobody", "password": PASSWORD}
    with service_of(app).password_hasher.place():
        assert_problem(client.post("/v1/auth/login", json=body), 503, "unavailable")
        assert scrape(client).get("password_hashes") == 1
    figures = scrape(client)
    assert figures.get("password_hashes") == 0
    assert figures.get("password_hashes_refused_total") == 1


def test_connections_in_use_are_reported(make_app: Callable[..., Flask]) -> None:
    app = make_app(database_pool_size=7)
    client = client_of(app)
    assert scrape(client).get("database_connections_in_use") == 0
    service_of(app).database.connect()
    figures = scrape(client)  # at its end, this thread's connection is given back
    assert figures.get("database_connections_in_use") == 1
    assert figures.get("database_connections_max") == 7
    assert scrape(client).get("database_connections_in_use") == 0


def test_the_write_behind_lag_is_reported(
    app: Flask,
    client: FlaskClient,
    alice: Person,
    travel: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(periodic, "INTERVAL", 1000.0)
    service_of(app).periodic_tasks.run()
    key = alice.new_key()["key"]
    assert scrape(client).get("write_behind_lag_seconds") == 0
    client.get("/v1/auth/me", headers=by_key(key))
    travel(seconds=40)
    client.get("/v1/auth/me", headers=by_key(key))
    assert 40 <= scrape(client).get("write_behind_lag_seconds") < 60
    service_of(app).periodic_tasks.run()
    assert scrape(client).get("write_behind_lag_seconds") == 0


def test_chores_that_fail_are_counted_and_what_they_leave_stays_late(
    make_bare_app: Callable[..., Flask], travel: Callable[..., None]
) -> None:
    app = make_bare_app()
    client, service = client_of(app), service_of(app)
    service.write_behind[write_last_used].add(NOTHING, (clock.now(), None))
    travel(seconds=40)
    for _ in range(2):
        service.periodic_tasks.run()
    figures = scrape(client)
    assert figures.get("chore_failures_total", chore="api_keys.write_last_used") == 2
    assert figures.get("chore_failures_total", chore="audit_chain.seal") == 2
    assert 40 <= figures.get("write_behind_lag_seconds") < 60


def test_waiting_jobs_are_reported(make_bare_app: Callable[..., Flask]) -> None:
    app, begun, go_on = make_bare_app(), threading.Event(), threading.Event()
    client, jobs = client_of(app), service_of(app).tasks

    def job() -> None:
        begun.set()
        go_on.wait(30)

    for _ in range(3):
        jobs.submit(job)
    assert begun.wait(30)
    assert scrape(client).get("jobs_waiting") == 2
    go_on.set()
    jobs.close()
    assert scrape(client).get("jobs_waiting") == 0


# --- over several processes ---


@pytest.fixture
def gunicorn(tree: Path, tmp_path: Path) -> Iterator[Server]:
    """gunicorn with two workers; its temporary files are in tmp_path."""
    url = f"sqlite:///{tmp_path / 'test.db'}"
    migrate(url)
    own = {"metrics_enabled": "true", "bcrypt_rounds": 10, "database_pool_size": 3}
    server = Server("gunicorn", tree, tmp_path, database_url=url, tmpdir=tmp_path, **own)
    yield server.wait_until_it_serves()
    server.end()


def workers_of(server: Server) -> list[int]:
    """The process ids of the workers, once there are two."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")

    def both() -> list[int] | None:
        found = [int(each) for each in children.read_text().split()]
        return found if len(found) == 2 else None

    return until(both)


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Stop a process while the block lasts."""
    os.kill(pid, signal.SIGSTOP)
    yield
    os.kill(pid, signal.SIGCONT)


def lives(figures: Figures) -> float:
    """How many requests for /healthz have been answered."""
    return figures.get("http_requests_total", route="/healthz", status="200")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="this needs /proc of Linux")
def test_every_worker_reports_the_sums_of_all_even_of_those_that_died(
    gunicorn: Server, tmp_path: Path
) -> None:
    [folder] = tmp_path.glob("backend-metrics-*")
    (folder / "counter_1.db").touch()  # as a worker leaves it that is killed while it makes it
    workers = workers_of(gunicorn)
    until(lambda: told_by(gunicorn).get("database_connections_max") == 6)
    before = lives(told_by(gunicorn))
    for count, other in enumerate(workers, start=1):
        with frozen(other):  # so that the one that is left answers
            for _ in range(10):
                assert gunicorn.ask("GET", "/healthz").status == 200
            figures = told_by(gunicorn)
            assert lives(figures) == before + 10 * count
            name, healthz = "http_request_duration_seconds", {"route": "/healthz"}
            assert figures.get(f"{name}_count", **healthz) == lives(figures)
            assert figures.get("database_connections_max") == 6

    os.kill(workers[0], signal.SIGKILL)
    until(lambda: list(folder.glob(f"gauge_live*_{workers[0]}.db")) == [])
    until(lambda: workers[0] not in workers_of(gunicorn))
    until(lambda: told_by(gunicorn).get("database_connections_max") == 6)
    assert lives(told_by(gunicorn)) == before + 20

    gunicorn.process.send_signal(signal.SIGHUP)
    until(lambda: not set(workers) & set(workers_of(gunicorn)))
    assert lives(told_by(gunicorn)) == before + 20
    assert 'pid="' not in told_by(gunicorn).text
    assert list(tmp_path.glob("backend-metrics-*")) == [folder]

    gunicorn.process.send_signal(signal.SIGTERM)
    assert gunicorn.process.wait(40) == 0
    assert not folder.exists()
    assert "Traceback" not in gunicorn.output.read_text("utf-8")


# --- the dashboard ---


def test_the_dashboard_uses_only_metrics_that_exist(bare: FlaskClient) -> None:
    text = (ROOT / "config" / "grafana" / "dashboard.json").read_text("utf-8")
    panels = json.loads(text)["panels"]
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    assert len(asked) >= len(panels) >= 7
    names = {name for each in asked for name in re.findall(r"backend_\w+", each)}
    metrics = dict(re.findall(r"^# TYPE (backend_\w+) (\w+)$", scrape(bare).text, re.M))
    metrics |= {f"{name}_bucket": kind for name, kind in metrics.items() if kind == "histogram"}
    metrics = {name: kind for name, kind in metrics.items() if not name.endswith("_created")}
    assert names <= set(metrics)
    plain = {name for name, kind in metrics.items() if kind != "histogram"}
    assert plain <= names
