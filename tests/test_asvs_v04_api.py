"""ASVS 5.0 chapter 4: the API, and how its requests are framed."""

from __future__ import annotations

import contextlib
import json
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from backend.core.settings import SettingsError

from .support.apps import client_of
from .support.openapi import operations
from .support.people import Person
from .support.problems import assert_problem
from .support.servers import Server

TYPES = {"application/json", "application/problem+json", "text/html; charset=utf-8"}
TYPES.add("text/plain; version=0.0.4; charset=utf-8")  # of Prometheus


@pytest.mark.slow
def test_4_1_1_every_body_says_its_type(client: FlaskClient, root: Person) -> None:
    pages = ["/password", "/v1/docs", "/v1/redoc", "/v1/openapi.json", "/nothing"]
    found = [client.get(path) for path in pages]
    for method, path, _ in operations(client):
        headers = root.again().headers
        found += [client.open(path, method=method, headers=each) for each in ({}, headers)]
    for answer in found:
        if answer.data:
            assert answer.content_type in TYPES
        else:
            assert "Content-Type" not in answer.headers


def test_4_1_2_plain_http_is_never_redirected_and_not_started_with(
    make_bare_app: Callable[..., Flask], bare: FlaskClient
) -> None:
    production = {"environment": "production", "secret_key": "k7Jx-q2Wd" * 5}
    with pytest.raises(SettingsError, match="PUBLIC_URL is http"):
        make_bare_app(**production, public_url="http://id.example")
    secure = client_of(make_bare_app(public_url="https://id.example"))
    for client in (bare, secure):
        for path in ("/", "/healthz", "/v1/auth/me", "/nothing"):
            assert client.get(path).status_code in (200, 401, 404)


def test_4_1_3_headers_of_proxies_are_not_believed_from_anybody(
    alice: Person, logged: Callable[[], list[str]]
) -> None:
    names = ["X-Forwarded-For", "X-Real-IP", "Forwarded", "X-Client-IP", "True-Client-IP"]
    users = ["X-Auth-User", "X-Auth-User-Id", "X-Remote-User", "Remote-User", "X-Role"]
    headers = dict.fromkeys(names, "for=1.1.1.1") | dict.fromkeys(users, "root")
    answer = alice.client.get("/v1/auth/me", headers={**headers, **alice.headers})
    assert (answer.json["username"], answer.json["role"]) == ("alice", "user")
    assert json.loads(logged()[-1])["ip"] == "127.0.0.1"
    assert_problem(alice.client.get("/v1/auth/me", headers=headers), 401, "unauthenticated")


def test_4_1_4_only_declared_methods_are_answered(alice: Person) -> None:
    key = alice.new_key()
    for method in ("TRACE", "CONNECT", "FOO", "PUT"):
        answer = alice.client.open(
            f"/v1/api-keys/{key['id']}", method=method, headers=alice.headers
        )
        assert_problem(answer, 405, "method_not_allowed")
        assert set(answer.headers["Allow"].split(", ")) >= {"GET", "PATCH", "DELETE"}
    for name in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"):
        headers = {**alice.headers, name: "DELETE"}
        assert alice.client.get(f"/v1/api-keys/{key['id']}", headers=headers).status_code == 200
    assert alice.get(f"/v1/api-keys/{key['id']}").json["status"] == "active"


# --- framing ---

POST = b"POST /v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
SECOND = b"GET /v1/second HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
SMUGGLED = {
    "a length and chunks": b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 0\r\nContent-Length: 70\r\n\r\n",
    "an odd length": b"Content-Length: +0\r\n\r\n",
    "an unknown coding": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "two codings": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "a blank before a name": b" Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a folded line": b"X: y\r\n\tContent-Length: 70\r\n\r\n",
    "a blank before the colon": b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a line feed alone": b"Content-Length: 0\nX: y\r\n\r\n",
    "a carriage return alone": b"X: y\rContent-Length: 0\r\n\r\n",
    "a broken chunk": b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
}


@pytest.fixture(scope="module")
def server(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server of production, without a database."""
    folder = tmp_path_factory.mktemp("server")
    server = Server("waitress", tree, folder, database_url=f"sqlite:///{folder}/none/none.db")
    yield server.wait_until_it_serves()
    server.end()


@pytest.mark.slow
def test_4_2_1_no_request_hides_in_another(server: Server) -> None:
    for fault, framing in SMUGGLED.items():
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(POST + framing + SECOND)
            with contextlib.suppress(ConnectionResetError):
                answer = connection.makefile("rb").read()  # to its end: the connection is closed
        [status] = re.findall(rb"HTTP/1\.\d (\d{3}) ", answer)
        assert status in {b"400", b"501"}, (fault, answer)
    assert "/v1/second" not in server.output.read_text("utf-8")
