"""Logs: one line for each request, its id on all of them, and nothing in them that is secret."""

import io
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from backend.core.logs import JSONFormatter, TextFormatter
from backend.core.settings import ROOT
from backend.web.access import public

from .support.apps import client_of
from .support.databases import migrate
from .support.people import PASSWORD, Person, add_user, by_key, sign_in

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
INJECTION = "one\r\ntwo\x1b[31mthree\x00\x08\x07"


class Written:
    """What the service logged, in both forms."""

    def __init__(self) -> None:
        self.json, self.text = io.StringIO(), io.StringIO()

    def lines(self) -> list[dict[str, Any]]:
        """The lines of JSON so far."""
        return [json.loads(line) for line in self.json.getvalue().split("\n")[:-1]]

    def requests(self) -> list[dict[str, Any]]:
        """The lines of JSON that tell of whole requests."""
        return [line for line in self.lines() if "ms" in line]

    def __contains__(self, text: str) -> bool:
        return text in self.json.getvalue() or text in self.text.getvalue()


@pytest.fixture
def written() -> Iterator[Written]:
    """What the service logs from now on."""
    result, logger = Written(), logging.getLogger("backend")
    as_json, as_text = logging.StreamHandler(result.json), logging.StreamHandler(result.text)
    as_json.setFormatter(JSONFormatter())
    as_text.setFormatter(TextFormatter())
    logger.setLevel(logging.DEBUG)
    logger.addHandler(as_json)
    logger.addHandler(as_text)
    yield result
    logger.removeHandler(as_json)
    logger.removeHandler(as_text)
    logger.setLevel(logging.NOTSET)


def test_each_request_is_one_line(bare: FlaskClient, written: Written) -> None:
    for method, path, route, status in [
        ("GET", "/healthz", "/healthz", 200),
        ("GET", "/v1/docs/assets/swagger.js", "/v1/docs/assets/<name>", 200),
        ("OPTIONS", "/v1/auth/me", "/v1/auth/me", 204),
        ("POST", "/v1/auth/login", "/v1/auth/login", 422),
        ("GET", "/v1/auth/me", "/v1/auth/me", 401),
        ("GET", "/nothing", None, 404),
        ("PUT", "/healthz", None, 405),
    ]:
        before = len(written.lines())
        environ = {"REMOTE_ADDR": "203.0.113.9"}
        response = bare.open(path, method=method, environ_overrides=environ)
        [line] = written.lines()[before:]
        assert response.status_code == line["status"] == status
        assert (line["method"], line.get("route")) == (method, route)
        assert line["ip"] == "203.0.113.9"
        assert line["request_id"] == response.headers["X-Request-ID"]
        assert line["level"] == "INFO"
        assert 0 <= line["ms"] < 60_000
        assert TIME.fullmatch(line["ts"])
        assert "who" not in line


def test_a_line_says_who_it_was(alice: Person, written: Written) -> None:
    key = alice.new_key()
    alice.get("/v1/auth/me")
    alice.client.get("/v1/auth/me", headers=by_key(key["key"]))
    alice.get("/v1/users")
    alice.client.get("/v1/auth/me")
    who = [line.get("who") for line in written.requests()[-4:]]
    by_that_key = f"user:{alice.id} key:{key['id']}"
    assert who == [f"user:{alice.id}", by_that_key, f"user:{alice.id}", None]


def test_what_a_view_logs_is_all_told_whatever_it_calls_its_facts(
    make_bare_app: Callable[..., Flask], written: Written
) -> None:
    app = make_bare_app()

    @public
    def slow() -> str:
        logging.getLogger("backend.web.slow").info("slow", extra={"ms": 5, "rows": 7})
        return ""

    app.add_url_rule("/slow", view_func=slow)
    app.test_client().get("/slow")
    said, request = written.lines()
    assert (said["msg"], said["ms"], said["rows"]) == ("slow", 5, 7)
    assert (said["request_id"], request["route"]) == (request["request_id"], "/slow")


def test_the_id_of_a_request_is_on_all_its_lines(client: FlaskClient, written: Written) -> None:
    add_user(client, "alice")
    before = len(written.lines())
    for path, body in [
        ("/v1/auth/login", {"username": "alice", "password": PASSWORD}),
        ("/v1/auth/login", {"username": "alice", "password": "wrong"}),
    ]:
        client.post(path, json=body, headers={"X-Request-ID": "mine"})
    lines = written.lines()[before:]
    assert len(lines) >= 4  # what happened, and the request, twice
    assert {line["request_id"] for line in lines} == {"mine"}


def test_a_fault_is_logged_with_its_traceback_and_the_id_the_caller_was_told(
    make_bare_app: Callable[..., Flask], written: Written
) -> None:
    app = make_bare_app()

    @public
    def fault() -> None:
        raise RuntimeError("broken")

    app.add_url_rule("/fault", view_func=fault)
    told = app.test_client().get("/fault").json["request_id"]
    error, request = written.lines()
    assert error["request_id"] == request["request_id"] == told
    assert (error["level"], request["status"]) == ("ERROR", 500)
    assert error["exc"].startswith("Traceback")
    assert error["exc"].endswith("RuntimeError: broken")
    assert "RuntimeError: broken\n" in written.text.getvalue()


def test_a_long_traceback_keeps_its_end(
    make_bare_app: Callable[..., Flask], written: Written
) -> None:
    app = make_bare_app()

    def down(floors: int) -> None:
        up(floors - 1)

    def up(floors: int) -> None:
        if floors <= 0:
            raise RuntimeError("broken in the cellar")
        down(floors)

    @public
    def fault() -> None:
        down(100)

    app.add_url_rule("/fault", view_func=fault)
    assert app.test_client().get("/fault").status_code == 500
    assert written.lines()[0]["exc"].endswith("RuntimeError: broken in the cellar")


def test_a_database_that_is_gone_is_logged_with_the_id_of_the_request(
    bare: FlaskClient, written: Written
) -> None:
    body = {"username": "alice", "password": PASSWORD}
    told = bare.post("/v1/auth/login", json=body).json["request_id"]
    error, request = written.lines()
    assert error["request_id"] == request["request_id"] == told
    assert (error["level"], request["status"]) == ("ERROR", 503)
    assert PASSWORD not in written


def test_why_it_is_not_ready_is_logged_with_the_id_of_the_request(
    bare: FlaskClient, written: Written
) -> None:
    told = bare.get("/readyz").json["request_id"]
    assert len(written.lines()) == 2
    assert {line.get("request_id") for line in written.lines()} == {told}


def test_the_password_of_the_database_is_not_logged(
    make_bare_app: Callable[..., Flask], written: Written
) -> None:
    url = "postgresql://someone:Canary-password-123@127.0.0.1:1/none"
    client = client_of(make_bare_app(database_url=url))
    client.get("/readyz")
    client.post("/v1/auth/login", json={"username": "alice", "password": PASSWORD})
    assert "127.0.0.1" in written
    assert "Canary" not in written


TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


@pytest.mark.parametrize("form", ["00-{}-{}-01", "00-{}-{}-ff", "01-{}-{}-00", "cc-{}-{}-01-more"])
def test_the_trace_that_a_request_belongs_to_stands_in_all_its_lines(
    bare: FlaskClient, written: Written, form: str
) -> None:
    bare.get("/readyz", headers={"traceparent": form.format(TRACE, PARENT)})
    bare.get("/healthz")
    why, ready, healthz = written.lines()
    assert (why["trace_id"], ready["trace_id"]) == (TRACE, TRACE)
    assert f'trace_id="{TRACE}"' in written.text.getvalue()
    assert "trace_id" not in healthz


@pytest.mark.parametrize(
    "value",
    [
        "",
        "none",
        TRACE,
        f"00-{TRACE}-{PARENT}",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01-more",
        f"00-{TRACE}-{PARENT}-01-",
        f"01-{TRACE}-{PARENT}-01more",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{PARENT}-1",
        f"00-{TRACE}-{PARENT}-01, 00-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01\n",
        INJECTION,
    ],
)
def test_what_names_no_trace_is_ignored(bare: FlaskClient, written: Written, value: str) -> None:
    bare.get("/healthz", environ_overrides={"HTTP_TRACEPARENT": value})
    [line] = written.lines()
    assert "trace_id" not in line


@pytest.mark.slow
def test_a_secret_is_never_logged_wherever_it_is_sent(
    root: Person, alice: Person, written: Written
) -> None:
    client, key = root.client, alice.new_key()["key"]
    again = client.post("/v1/auth/refresh", json={"refresh_token": alice.refresh_token}).json
    secrets = [PASSWORD, "Canary-password-123", key, alice.access_token, alice.refresh_token]
    secrets += [again["access_token"], again["refresh_token"]]
    headers = ["Authorization", "X-API-Key", "Cookie", "User-Agent", "Referer", "Origin", "Accept"]
    for secret in secrets:
        for name in headers:
            for value in [secret, f"Bearer {secret}", f"Basic {secret}"]:
                client.get("/v1/auth/me", headers={name: value})
        for place in ["/{}", "/v1/users/{}", "/v1/auth/me?x={}", "/v1/users?search={}", "/{}?{}"]:
            root.get(place.format(secret, secret))
        account = {"username": "carol", "email": "carol@example.com", "password": secret}
        for field in [*account, "role", "kind", "other"]:
            root.post("/v1/auth/register", account | {field: secret})
        for field in ["name", "description", "scopes", "expires_at", "other"]:
            root.post("/v1/api-keys", {"name": "x", field: secret})
        for field in ["username", "password", "other"]:
            client.post(
                "/v1/auth/login", json={"username": "alice", "password": "x", field: secret}
            )
        client.post("/v1/auth/login", data=secret, content_type=f"text/plain; x={secret}")
        client.post("/v1/auth/refresh", json={"refresh_token": f"{secret}x"})
        body = {"current_password": secret, "new_password": f"{secret} and more"}
        alice.post("/v1/auth/password", body)
        alice.patch("/v1/auth/me", {"username": "alicia", "current_password": secret})
        client.post("/v1/api-keys/revoke", json={"key": secret})
    client.post("/v1/auth/refresh", json={"refresh_token": alice.refresh_token})
    assert len(written.requests()) > 300
    for secret in secrets:
        assert secret not in written


def test_a_secret_in_an_exception_is_taken_out(
    make_app: Callable[..., Flask], written: Written
) -> None:
    app, secrets = make_app(), ["$2b$12$" + "a" * 53]
    browser = app.test_client()

    @app.get("/fault")
    @public
    def fault() -> None:
        logging.getLogger("backend.web.test").info("%s", secrets, extra={"one": secrets[1]})
        raise RuntimeError(" ".join(secrets))

    add_user(client_of(app), "alice")
    alice = sign_in(client_of(app), "alice")
    secrets += [alice.new_key()["key"], alice.access_token, alice.refresh_token]
    assert browser.get("/fault").status_code == 500
    assert "RuntimeError" in written
    assert "[redacted]" in written
    for secret in secrets:
        assert secret not in written


@pytest.mark.parametrize("header", ["X_REQUEST_ID", "USER_AGENT", "HOST", "X_FORWARDED_FOR"])
def test_what_a_client_sends_cannot_forge_a_line(
    make_bare_app: Callable[..., Flask], written: Written, header: str
) -> None:
    client = client_of(make_bare_app(trusted_proxies="127.0.0.1"))
    for text in [INJECTION, f"fe80::1%{INJECTION}", f"1.1.1.1, {INJECTION}"]:
        client.get("/healthz", environ_overrides={f"HTTP_{header}": text})
        client.open(environ_overrides={"PATH_INFO": f"/{text}", "QUERY_STRING": text})
        client.open(environ_overrides={"REQUEST_METHOD": f"GET{text}"})
    for form in [written.json, written.text]:
        assert form.getvalue().count("\n") == 9
        assert not re.search(r"[\x00-\x09\x0b-\x1f]", form.getvalue())


@pytest.mark.parametrize("formatter", [JSONFormatter(), TextFormatter()])
def test_a_record_is_one_line_whatever_it_holds(formatter: logging.Formatter) -> None:
    record = logging.makeLogRecord(
        {"msg": "said %s", "args": (INJECTION,), "levelname": "INFO", "fact": INJECTION, "n": 3}
    )
    line = formatter.format(record)
    assert not re.search(r"[\x00-\x1f]", line)
    assert line.count("three") == 2


def test_a_line_of_json_has_its_facts_as_members() -> None:
    record = logging.makeLogRecord(
        {"msg": "%s keys", "args": (3,), "levelname": "INFO", "name": "backend.x", "created": 0.25}
        | {"msecs": 250.0, "count": 3, "nothing": None, "odd": Path("/x"), "text": "é\ud800"}
    )
    line = JSONFormatter().format(record)
    assert line.isascii()
    assert json.loads(line) == {
        "ts": "1970-01-01T00:00:00.250Z",
        "level": "INFO",
        "logger": "backend.x",
        "msg": "3 keys",
        "count": 3,
        "odd": "/x",
        "text": "é\ud800",
    }


def test_a_line_of_text_is_for_people() -> None:
    record = logging.makeLogRecord(
        {"msg": "sign-in", "levelname": "WARNING", "created": 3661, "user": "alice"}
    )
    assert TextFormatter().format(record) == '01:01:01 WARNING sign-in  user="alice"'


PROCESS = """
import wsgi
client = wsgi.app.test_client()
client.get("/healthz", headers={"X-Request-ID": "mine"})
client.post("/v1/auth/login", json={"username": "nobody", "password": "Canary-password-123"})
"""


@pytest.mark.slow
@pytest.mark.parametrize("form", ["json", "text"])
def test_a_process_logs_to_the_console_and_to_a_file_in_json(tmp_path: Path, form: str) -> None:
    path = tmp_path / "backend.log"
    url = f"sqlite:///{tmp_path}/backend.db"
    migrate(url)
    environ = os.environ | {
        "ENVIRONMENT": "testing",
        "DATABASE_URL": url,
        "LOG_LEVEL": "DEBUG",
        "LOG_FORMAT": form,
        "LOG_FILE": str(path),
    }
    ran = subprocess.run(
        [sys.executable, "-c", PROCESS], cwd=ROOT, env=environ, capture_output=True, text=True
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    lines = [json.loads(line) for line in path.read_text("ascii").splitlines()]
    assert [line["status"] for line in lines if "status" in line] == [200, 401]
    assert lines[0]["request_id"] == "mine"
    on_console = ran.stdout.splitlines()
    assert len(on_console) == len(lines)
    if form == "json":
        assert [json.loads(line) for line in on_console] == lines
    else:
        assert re.match(
            r"\d\d:\d\d:\d\d INFO    GET /healthz 200  request_id=\"mine\"", on_console[0]
        )
    assert "Canary" not in ran.stdout + path.read_text()
