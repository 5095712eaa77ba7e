"""The files of config/proxy/: each in its proxy, before a real service and a real application."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from backend.core.settings import ROOT

from ..support.apps import client_of
from ..support.people import Person, add_user, by_key, sign_in
from ..support.processes import Process, free_port, nginx, program
from .serving import Counted, echo, serving

Answer = tuple[http.client.HTTPResponse, Any]

# What a client may forge: names of the service in other spellings, which applications do not all
# tell apart; names that look like its; and names that nobody has thought of.
SPELLED = ["X-Auth-User-Id", "x-auth-username", "X-AUTH-ROLE", "X-Auth-Method", "X-Auth-Key-Id"]
SPELLED += ["X-Auth-Scopes", "X-Auth-Code", "X_Auth_Role", "x_auth_key_id", "X-Auth_Scopes"]
SPELLED += ["X.Auth.Role", "x-auth.key-id", "X_Auth.Scopes"]
ALIKE = ["X-Auth", "X-Auth-User", "X-Auth-Session-Id", "x-auth-roles", "X-Auth-Scope"]
ALIKE += ["X-Auth-Name", "X-Auth-Email", "X-Auth-Groups", "X-Auth-Subject", "X-Auth-Token"]
ALIKE += [f"X-Auth-Request-{name}" for name in ("User", "Email", "Groups", "Access-Token")]
ALIKE += ["X-Auth-Request-Preferred-Username"]
UNHEARD_OF = ["X-Auth-Foo", "x-auth-role-2"]
# Those that reach the application all the same: nginx knows names, and no beginnings of names.
REACHING = {"nginx": {"X_AUTH_FOO", "X_AUTH_ROLE_2"}, "caddy": set(), "envoy": set()}


def caddy(text: str, folder: Path) -> list[str]:
    """The command that runs Caddy by this configuration, which leaves nothing outside."""
    (folder / "Caddyfile").write_text("{\n\tadmin off\n}\n" + text)
    return [program("caddy"), "run", "--adapter", "caddyfile", "--config", f"{folder}/Caddyfile"]


def envoy(text: str, folder: Path) -> list[str]:
    """The command that runs Envoy by this configuration, which leaves nothing outside."""
    (folder / "envoy.yaml").write_text(text)
    quiet = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warn"]
    return [program("envoy"), "-c", f"{folder}/envoy.yaml", *quiet]


# The file, how it is run, and what is asked in it and in the tests.
PROXIES: dict[str, tuple[str, Callable[[str, Path], list[str]], str, str]] = {
    "nginx": ("nginx.conf", nginx, "?limited=403", "?limited=403&scope=reports:read"),
    "caddy": ("Caddyfile", caddy, "/v1/verify\n", "/v1/verify?scope=reports:read\n"),
    "envoy": (
        "envoy.yaml",
        envoy,
        "path_prefix: /v1/verify\n",
        "path_override: /v1/verify?scope=reports:read\n",
    ),
}


@contextlib.contextmanager
def upgrading() -> Iterator[int]:
    """The port of an application that takes one upgrade, then says all that it is told."""

    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += connection.recv(65536)
            connection.sendall(
                b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
            )
            connection.sendall(head + connection.recv(65536))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(30)


class Proxy(Process):
    """A proxy, run by its file, on a port of its own."""

    def __init__(
        self, kind: str, folder: Path, service: int, application: int, asked: str | None = None
    ) -> None:
        file, command, in_file, in_tests = PROXIES[kind]
        text = (ROOT / "config" / "proxy" / file).read_text("utf-8")
        port = free_port()
        before = "127.0.0.1, port_value: " if kind == "envoy" else "127.0.0.1:"
        for said, meant in (
            (f"{before}8000", f"{before}{service}"),
            (f"{before}8080", f"{before}{application}"),
            (f"{before}8888", f"{before}{port}"),
            (in_file, in_tests if asked is None else asked),
        ):
            assert said in text, said
            text = text.replace(said, meant)
        environ = {"PATH": os.environ["PATH"], "HOME": str(folder)}
        super().__init__(command(text, folder), port, folder / "output", env=environ)

    def ask(
        self, path: str = "/", method: str = "GET", body: bytes | None = None, **headers: str
    ) -> Answer:
        """(the answer to somebody at another address of this machine, what the application saw)."""
        connection = self.connect(source_address=("127.0.0.2", 0))
        named = {name.replace("__", "-"): text for name, text in headers.items()}
        connection.request(method, path, body, named)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        return answer, json.loads(text) if answer.getheader("X-Own") and text else None


def told(seen: Any) -> dict[str, str]:
    """What the application was told of the caller."""
    return {name: text for name, text in seen["headers"].items() if name.startswith("X_AUTH")}


@pytest.fixture(params=PROXIES)
def kind(request: pytest.FixtureRequest) -> str:
    """The name of a proxy."""
    return request.param


@pytest.fixture
def service(make_app: Callable[..., Flask]) -> Counted:
    """A service that believes a proxy on this machine."""
    return Counted(make_app(trusted_proxies="127.0.0.1"))


@pytest.fixture
def alice(service: Counted) -> Person:
    """A user, signed in."""
    client = client_of(service.app)
    add_user(client, "alice")
    return sign_in(client, "alice")


@pytest.fixture
def proxy(kind: str, service: Counted, tmp_path: Path) -> Iterator[Proxy]:
    """The proxy, before an application that asks for the scope reports:read."""
    with (
        serving(service) as asked,
        serving(echo) as application,
        Proxy(kind, tmp_path, asked, application) as proxy,
    ):
        yield proxy


def test_who_may_passes_with_what_the_service_says(proxy: Proxy, alice: Person) -> None:
    key = alice.new_key(scopes=["reports:read"])
    sent = by_key(key["key"])
    answer, seen = proxy.ask("/x?role=admin&x=1", "POST", b"a body", **sent)
    assert answer.status == 200
    assert (seen["method"], seen["query"], seen["body"]) == ("POST", "role=admin&x=1", "a body")
    assert told(seen) == {
        "X_AUTH_USER_ID": alice.id,
        "X_AUTH_USERNAME": "alice",
        "X_AUTH_ROLE": "user",
        "X_AUTH_METHOD": "api_key",
        "X_AUTH_KEY_ID": key["id"],
        "X_AUTH_SCOPES": "reports:read",
    }
    assert seen["headers"]["X_FORWARDED_FOR"].endswith("127.0.0.2")
    answer, seen = proxy.ask(**alice.headers)
    assert (answer.status, seen["headers"]["X_AUTH_METHOD"]) == (200, "session")
    assert not seen["headers"].get("X_AUTH_KEY_ID")
    assert proxy.ask(method="HEAD", **sent)[0].status == 200


def test_who_may_not_does_not_reach_the_application(proxy: Proxy, alice: Person) -> None:
    key = alice.new_key()["key"]
    for sent, status in [
        ({}, 401),
        (by_key("garbage"), 401),
        ({**alice.headers, **by_key(key)}, 401),
        (by_key(key), 403),
    ]:
        for method in ("GET", "POST", "HEAD"):
            answer, seen = proxy.ask(method=method, body=b"x" * 100_000, **sent)
            assert (answer.status, seen, answer.getheader("X-Own")) == (status, None, None)
        if status == 401:
            assert answer.getheader("WWW-Authenticate").startswith("Bearer")


def test_who_has_used_up_a_limit_is_told_when_to_come_back(proxy: Proxy, alice: Person) -> None:
    limited = {"rate_limit": {"limit": 1, "window_seconds": 60}}
    spent = {"quota": {"remaining": 1, "refill_amount": 1, "refill_interval": "daily"}}
    for wanted in (limited, spent):
        sent = by_key(alice.new_key(scopes=["reports:read"], **wanted)["key"])
        passed, seen = proxy.ask(**sent)
        assert (passed.status, bool(seen)) == (200, True)
        refused, seen = proxy.ask(**sent)
        assert (refused.status, seen) == (429, None)
        assert int(refused.getheader("Retry-After")) > 0
        if wanted is limited:
            assert refused.getheader("RateLimit").startswith('"key";r=0;t=')
            assert refused.getheader("RateLimit-Policy") == '"key";q=1;w=60'


def test_what_the_client_says_of_itself_is_taken_away(
    kind: str, proxy: Proxy, alice: Person
) -> None:
    forged = dict.fromkeys([*SPELLED, *ALIKE, *UNHEARD_OF], "forged")
    for method in ("GET", "OPTIONS"):
        answer, seen = proxy.ask(method=method, **alice.headers, **forged)
        assert answer.status == 200
        assert {name for name, text in seen["headers"].items() if "forged" in text} == REACHING[
            kind
        ]
        assert seen["headers"].get("X_AUTH_ROLE", "") == ("user" if method == "GET" else "")


def test_what_the_service_says_cannot_be_taken_away(proxy: Proxy, alice: Person) -> None:
    sent = by_key(alice.new_key(scopes=["reports:read"])["key"])
    whole = told(proxy.ask(**sent)[1])
    assert len(whole) == 6
    names = ", ".join(whole).replace("_", "-")
    for named in (f"close, {names}", "x-auth-key-id ,X-Auth-Scopes", "x-auth-role"):
        answer, seen = proxy.ask(**sent, Connection=named)
        assert (answer.status, told(seen)) == (200, whole)


@pytest.mark.parametrize("kind", ["caddy", "envoy"])  # the file of nginx lets no upgrade through
def test_a_connection_is_upgraded(
    kind: str, service: Counted, alice: Person, tmp_path: Path
) -> None:
    sent = {"Upgrade": "websocket", "Connection": "keep-alive, Upgrade", **alice.headers}
    with (
        serving(service) as asked,
        upgrading() as application,
        Proxy(kind, tmp_path, asked, application) as proxy,
        contextlib.closing(proxy.connect()) as connection,
    ):
        connection.request("GET", "/", headers=sent)
        answer = connection.getresponse()
        assert answer.status == 101
        connection.sock.sendall(b"a frame")
        said = connection.sock.makefile("rb").read()
        assert b"\r\nx-auth-username: alice\r\n" in said.lower()
        assert said.endswith(b"a frame")


def test_preflights_are_the_applications_to_answer(proxy: Proxy, service: Counted) -> None:
    sent = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    answer, seen = proxy.ask("/x", "OPTIONS", **sent)
    assert (answer.status, seen["method"]) == (200, "OPTIONS")
    assert service.ports == set()


def test_the_address_is_the_clients_whatever_it_says(
    kind: str, proxy: Proxy, alice: Person
) -> None:
    for block, status in (("127.0.0.2/32", 200), ("192.0.2.0/24", 403), ("127.0.0.1/32", 403)):
        key = alice.new_key(scopes=["reports:read"], allowed_ips=[block])["key"]
        for said in ({}, {"X-Forwarded-For": "192.0.2.7"}, {"Connection": "X-Forwarded-For"}):
            refused = kind == "envoy" and "Connection" in said  # a bad request to Envoy itself
            assert proxy.ask(**by_key(key), **said)[0].status == (400 if refused else status)


def test_what_the_application_says_stays_as_it_is(proxy: Proxy, alice: Person) -> None:
    for status in (403, 404, 429, 500, 503):
        answer, seen = proxy.ask(f"/{status}", **alice.headers)
        assert (answer.status, answer.getheader("X-Own")) == (status, "1")
        assert seen


def test_fifty_long_scopes_pass(proxy: Proxy, alice: Person) -> None:
    scopes = [f"{'a' * 29}{number:03}:{'b' * 32}" for number in range(49)]
    key = alice.new_key(scopes=["reports:read", *scopes])["key"]
    answer, seen = proxy.ask(**by_key(key))
    assert answer.status == 200
    assert seen["headers"]["X_AUTH_SCOPES"] == " ".join([*scopes, "reports:read"])


def test_the_connection_to_the_service_is_kept(
    proxy: Proxy, service: Counted, alice: Person
) -> None:
    for _ in range(20):
        assert proxy.ask(**alice.headers)[0].status == 200
    assert len(service.ports) == 1


@pytest.mark.parametrize("state", ["down", "without a database"])
def test_without_the_service_nobody_passes(
    kind: str, state: str, tmp_path: Path, make_bare_app: Callable[..., Flask]
) -> None:
    app = make_bare_app()
    token = app.extensions["backend"].keyring.new_api_key()
    with serving(app) as asked, serving(echo) as application:
        behind = free_port() if state == "down" else asked
        with Proxy(kind, tmp_path, behind, application) as proxy:
            answer, seen = proxy.ask(**by_key(token))
        assert (answer.status, seen, answer.getheader("X-Own")) == (503, None, None)
        assert int(answer.getheader("Retry-After")) > 0


def test_a_service_that_serves_named_hosts_only_is_asked_under_any(
    kind: str, make_app: Callable[..., Flask], tmp_path: Path
) -> None:
    app = make_app(trusted_proxies="127.0.0.1", trusted_hosts="localhost")
    client = client_of(app)
    add_user(client, "alice")
    sent = sign_in(client, "alice").headers
    with (
        serving(app) as asked,
        serving(echo) as application,
        Proxy(kind, tmp_path, asked, application) as proxy,
    ):
        for said in ({}, {"X-Forwarded-Host": "a.example"}):
            answer, seen = proxy.ask(**sent, **said)
            assert (answer.status, bool(seen)) == (200, True)


def test_the_path_and_query_that_envoy_appends_never_choose_what_is_asked(
    service: Counted, alice: Person, tmp_path: Path
) -> None:
    sent = by_key(alice.new_key()["key"])
    as_it_is = PROXIES["envoy"][2]
    with (
        serving(service) as asked,
        serving(echo) as application,
        Proxy("envoy", tmp_path, asked, application, as_it_is) as proxy,
    ):
        for path in ("/", "/?scope=users:read", "/a//b/?role=admin&limited=403&x", "/%ff?%zz="):
            for method in ("GET", "POST", "DELETE"):
                answer, seen = proxy.ask(path, method, **sent)
                assert (answer.status, told(seen)["X_AUTH_USERNAME"]) == (200, "alice"), path
                assert proxy.ask(path, method)[0].status == 401


def test_the_line_of_the_docs_answers_where_rfc_8414_looks_for_an_issuer_with_a_path(
    make_bare_app: Callable[..., Flask], tmp_path: Path
) -> None:
    text = (ROOT / "docs" / "protect.md").read_text("utf-8")
    [block] = re.findall(r"^location = /\.well-known.*?^}$", text, re.DOTALL | re.MULTILINE)
    port = free_port()
    issuer = f"http://127.0.0.1:{port}/accounts"
    with serving(make_bare_app(public_url=issuer)) as behind:
        here = block.replace("http://backend", f"http://127.0.0.1:{behind}")
        conf = f"events {{ }} http {{ server {{ listen 127.0.0.1:{port}; {here} }} }}"
        with (
            Process(nginx(conf, tmp_path), port, tmp_path / "output") as proxy,
            contextlib.closing(proxy.connect()) as connection,
        ):
            connection.request("GET", "/.well-known/oauth-authorization-server/accounts")
            found = json.loads(connection.getresponse().read())
    assert (found["issuer"], found["introspection_endpoint"]) == (
        issuer,
        f"{issuer}/v1/auth/introspect",
    )


def test_traefik_is_told_to_take_away_all_that_looks_like_it() -> None:
    # There is no Traefik to run it in: the file alone is looked at.
    text = (ROOT / "config" / "proxy" / "traefik_routes.yml").read_text("utf-8")
    patterns = re.findall('authResponseHeadersRegex: "(.*)"', text)
    assert len(patterns) == text.count("forwardAuth:") == text.count("middlewares: [") == 2
    for pattern in patterns:
        assert all(re.search(pattern, name) for name in [*SPELLED, *ALIKE, *UNHEARD_OF])
        assert not any(re.search(pattern, name) for name in ("X-API-Key", "Authorization"))
