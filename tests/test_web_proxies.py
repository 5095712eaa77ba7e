"""Proxies: whose word about address, scheme, host and prefix is taken; which hosts are served."""

from collections.abc import Callable

import pytest
from flask import Flask, request
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from backend.web.access import public

from .support.apps import client_of, service_of, url_of
from .support.people import Person, by_key
from .support.problems import assert_problem

PROXY, CLIENT = "10.0.0.1", "203.0.113.9"
TRUSTED = "10.0.0.0/8, 192.168.1.1, 2001:db8:a::/48"


@pytest.fixture(scope="module")
def behind(make_bare_app: Callable[..., Flask]) -> FlaskClient:
    """A client of an app that trusts some proxies."""
    return client_of(make_bare_app(trusted_proxies=TRUSTED))


def ask(client: FlaskClient, peer: str, path: str = "/healthz", **headers: str) -> TestResponse:
    """GET from `peer`; names of headers are written with `_`."""
    environ = {f"HTTP_{name.upper()}": value for name, value in headers.items()}
    return client.get(path, environ_overrides={"REMOTE_ADDR": peer, **environ})


@pytest.mark.parametrize(
    ("peer", "forwarded", "seen"),
    [
        # Nothing is forwarded.
        (PROXY, "", PROXY),
        (CLIENT, "", CLIENT),
        # One proxy, and what a client may write before it.
        (PROXY, CLIENT, CLIENT),
        (PROXY, f"1.1.1.1, {CLIENT}", CLIENT),
        (PROXY, f"10.0.0.7, {CLIENT}", CLIENT),
        (PROXY, f"127.0.0.1,::1,{CLIENT}", CLIENT),
        (PROXY, f"  {CLIENT}  ", CLIENT),
        # Several proxies, from right to left.
        (PROXY, f"{CLIENT}, 10.0.0.2", CLIENT),
        (PROXY, f"1.1.1.1, {CLIENT}, 10.0.0.3, 192.168.1.1", CLIENT),
        (PROXY, "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        (PROXY, f"{CLIENT}, 192.168.1.2", "192.168.1.2"),
        # A peer that is not trusted may say what it likes.
        (CLIENT, "1.1.1.1", CLIENT),
        (CLIENT, PROXY, CLIENT),
        ("192.168.1.2", "1.1.1.1", "192.168.1.2"),
        # What cannot be read ends it.
        (PROXY, "nonsense", PROXY),
        (PROXY, f"{CLIENT}, nonsense", PROXY),
        (PROXY, f"{CLIENT}, nonsense, 10.0.0.2", "10.0.0.2"),
        (PROXY, f"{CLIENT}, , 10.0.0.2", "10.0.0.2"),
        (PROXY, f"{CLIENT},", PROXY),
        (PROXY, "unknown", PROXY),
        (PROXY, "_hidden", PROXY),
        (PROXY, "010.0.0.9", PROXY),
        (PROXY, "1.2.3", PROXY),
        (PROXY, "3405803785", PROXY),
        (PROXY, "1.1.1.1/32", PROXY),
        (PROXY, "1.1.1.1\r\nX: y", PROXY),
        (PROXY, "\N{FULLWIDTH DIGIT ONE}.1.1.1".encode().decode("latin-1"), PROXY),
        # IPv6, and IPv4 written as IPv6.
        ("2001:db8:a::1", "2001:db8:b::9", "2001:db8:b::9"),
        ("2001:db8:a::1", "2001:0DB8:B:0:0:0:0:0009", "2001:db8:b::9"),
        ("2001:db8:a::1", f"{CLIENT}, 2001:db8:a::2", CLIENT),
        ("2001:db8:b::1", CLIENT, "2001:db8:b::1"),
        (PROXY, "2001:db8:b::9", "2001:db8:b::9"),
        ("::ffff:10.0.0.1", CLIENT, CLIENT),
        ("::ffff:a00:1", f"::ffff:{CLIENT}", CLIENT),
        (f"::ffff:{CLIENT}", "", CLIENT),
        (PROXY, f"::ffff:{CLIENT}, ::ffff:10.0.0.2", CLIENT),
        ("::10.0.0.1", CLIENT, "::a00:1"),
    ],
)
def test_the_client_is_the_first_from_the_right_who_is_no_proxy(
    behind: FlaskClient,
    caplog: pytest.LogCaptureFixture,
    peer: str,
    forwarded: str,
    seen: str,
) -> None:
    caplog.set_level("INFO")
    assert ask(behind, peer, x_forwarded_for=forwarded).status_code == 200
    assert caplog.records[-1].__dict__["ip"] == seen


def test_without_trusted_proxies_nothing_is_believed(
    bare: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    told = {"x_forwarded_for": "1.1.1.1", "x_real_ip": "1.1.1.1", "forwarded": "for=1.1.1.1"}
    for peer in ["127.0.0.1", "::1", CLIENT]:
        ask(bare, peer, **told, x_forwarded_prefix="/p", client_ip="1.1.1.1")
        assert caplog.records[-1].__dict__["ip"] == peer
    assert (
        ask(bare, "127.0.0.1", "/", x_forwarded_prefix="/p").json["links"]["healthz"] == "/healthz"
    )


def test_other_headers_are_not_believed_from_anybody(
    behind: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    others = ["x_real_ip", "forwarded", "client_ip", "true_client_ip", "x_client_ip"]
    ask(behind, PROXY, **dict.fromkeys(others, "1.1.1.1"))
    assert caplog.records[-1].__dict__["ip"] == PROXY


@pytest.mark.parametrize("peer", ["", "unix:", "@", "/run/backend.sock"])
def test_a_peer_without_an_address_is_served(behind: FlaskClient, peer: str) -> None:
    assert ask(behind, peer, x_forwarded_for=CLIENT).status_code == 200


def test_a_key_was_last_used_by_the_client_and_not_by_the_proxy(
    make_app: Callable[..., Flask], alice: Person
) -> None:
    app = make_app(trusted_proxies=TRUSTED, database_url=url_of(alice.client.application))
    client, key = client_of(app), alice.new_key()

    def last_used(peer: str, forwarded: str) -> str:
        environ = {"REMOTE_ADDR": peer, "HTTP_X_FORWARDED_FOR": forwarded}
        used = client.get("/v1/auth/me", headers=by_key(key["key"]), environ_overrides=environ)
        assert used.status_code == 200
        service_of(app).flush()
        return alice.get(f"/v1/api-keys/{key['id']}").json["last_used_ip"]

    assert last_used(PROXY, f"1.1.1.1, {CLIENT}") == CLIENT
    assert last_used(CLIENT, "1.1.1.1") == CLIENT
    assert last_used(PROXY, "2001:0db8:000b::1") == "2001:db8:b::1"
    assert last_used("::ffff:10.0.0.1", "::ffff:198.51.100.4") == "198.51.100.4"


def test_an_address_that_a_client_made_up_keeps_no_key_from_being_written(
    make_app: Callable[..., Flask], alice: Person
) -> None:
    """A client within the trusted networks is passed over as if it were one more proxy."""
    app = make_app(trusted_proxies=TRUSTED, database_url=url_of(alice.client.application))
    client, keys = client_of(app), [alice.new_key(), alice.new_key()]
    made_up = f"fe80::1%{'x' * 500}, 10.9.9.9"
    for key, forwarded in zip(keys, [made_up, CLIENT], strict=True):
        environ = {"REMOTE_ADDR": PROXY, "HTTP_X_FORWARDED_FOR": forwarded}
        client.get("/v1/auth/me", headers=by_key(key["key"]), environ_overrides=environ)
    service_of(app).flush()
    first, second = (alice.get(f"/v1/api-keys/{key['id']}").json for key in keys)
    assert second["last_used_ip"] == CLIENT
    assert len(first["last_used_ip"]) <= 45


@pytest.fixture(scope="module")
def where(make_bare_app: Callable[..., Flask]) -> FlaskClient:
    """A client of an app with a route that tells the address it believes to be asked at."""
    app = make_bare_app(trusted_proxies=TRUSTED)

    @public
    def tell() -> str:
        return request.url

    app.add_url_rule("/where", view_func=tell)
    return client_of(app)


def test_a_trusted_proxy_tells_scheme_host_and_prefix(where: FlaskClient) -> None:
    told = {
        "x_forwarded_proto": "https",
        "x_forwarded_host": "accounts.example.com",
        "x_forwarded_prefix": "/accounts",
    }
    believed = ask(where, PROXY, "/where", **told)
    assert believed.text == "https://accounts.example.com/accounts/where"
    assert ask(where, CLIENT, "/where", **told).text == "http://localhost/where"
    links = ask(where, PROXY, "/", **told).json["links"]
    assert links["docs"] == "/accounts/v1/docs"
    servers = ask(where, PROXY, "/v1/openapi.json", **told).json["servers"]
    assert servers[-1] == {"url": "/accounts"}  # after PUBLIC_URL


@pytest.mark.parametrize(
    ("header", "value", "url"),
    [
        ("proto", "https", "https://localhost/where"),
        ("proto", "HTTPS", "https://localhost/where"),
        ("proto", "http, https", "https://localhost/where"),
        ("proto", "javascript", "http://localhost/where"),
        ("proto", "", "http://localhost/where"),
        ("host", "a.example:8443", "http://a.example:8443/where"),
        ("host", "spoofed.example, real.example", "http://real.example/where"),
        ("host", "[2001:db8::1]:8443", "http://[2001:db8::1]:8443/where"),
        ("host", "evil.example/path", "http://localhost/where"),
        ("host", "user@evil.example", "http://localhost/where"),
        ("host", "evil example", "http://localhost/where"),
        ("host", "evil.example\r\nX: y", "http://localhost/where"),
        ("host", "<script>", "http://localhost/where"),
        ("prefix", "/a/b", "http://localhost/a/b/where"),
        ("prefix", "/a/", "http://localhost/a/where"),
        ("prefix", "/spoofed, /real", "http://localhost/real/where"),
        ("prefix", "/", "http://localhost/where"),
        ("prefix", "a", "http://localhost/where"),
        ("prefix", "//evil.example", "http://localhost/where"),
        ("prefix", "/a//b", "http://localhost/where"),
        ("prefix", "https://evil.example", "http://localhost/where"),
        ("prefix", "/a?b", "http://localhost/where"),
        ("prefix", "/a b", "http://localhost/where"),
        ("prefix", "/<script>", "http://localhost/where"),
        ("prefix", "/a\r\nX: y", "http://localhost/where"),
    ],
)
def test_what_a_trusted_proxy_tells_must_make_sense(
    where: FlaskClient, header: str, value: str, url: str
) -> None:
    assert ask(where, PROXY, "/where", **{f"x_forwarded_{header}": value}).text == url


# --- trusted hosts ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def strict(make_bare_app: Callable[..., Flask]) -> FlaskClient:
    """A client of an app that serves one host by name and one by name and port."""
    hosts = "Accounts.example.com, internal:8000, [::1]"
    return client_of(make_bare_app(trusted_hosts=hosts, trusted_proxies=PROXY))


@pytest.mark.parametrize(
    "host",
    [
        "accounts.example.com",
        "ACCOUNTS.example.COM",
        "accounts.example.com:8000",
        "accounts.example.com:443",
        "internal:8000",
        "[::1]",
        "[::1]:8000",
    ],
)
def test_a_trusted_host_is_served_at_any_port_that_is_not_forbidden(
    strict: FlaskClient, host: str
) -> None:
    for path, status in [("/", 200), ("/nothing", 404), ("/v1/auth/me", 401), ("/v1/docs", 200)]:
        assert ask(strict, CLIENT, path, host=host).status_code == status


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "accounts.example.com.evil.example",
        "evil.accounts.example.com",
        "evil.example:accounts.example.com",
        "accounts.example.com@evil.example",
        "accounts.example.com evil.example",
        "accounts.example.com:8000:8000",
        "accounts.example.com:x",
        "internal",
        "internal:8001",
        "localhost",
        "127.0.0.1",
        "::1",
    ],
)
def test_another_host_is_refused_before_anything_else(strict: FlaskClient, host: str) -> None:
    for path in ["/", "/nothing", "/v1/auth/me", "/v1/docs", "/healthz/", "/v1/healthz"]:
        assert_problem(ask(strict, CLIENT, path, host=host), 400, "bad_request")


def test_machines_may_ask_for_health_at_any_host(strict: FlaskClient) -> None:
    for host in ["10.1.2.3:8000", "evil.example", ""]:
        assert ask(strict, CLIENT, "/healthz", host=host).status_code == 200
        assert ask(strict, CLIENT, "/readyz", host=host).status_code == 503  # and not 400


def test_a_proxy_asks_under_the_host_of_what_stands_behind_it(strict: FlaskClient) -> None:
    answer = ask(strict, CLIENT, "/v1/verify", host="shop.example")
    assert (answer.status_code, answer.headers["X-Auth-Code"]) == (401, "unauthenticated")


def test_the_host_that_counts_is_the_one_a_trusted_proxy_tells(strict: FlaskClient) -> None:
    good, evil = "accounts.example.com", "evil.example"
    assert ask(strict, PROXY, "/", host="backend:8000", x_forwarded_host=good).status_code == 200
    assert ask(strict, PROXY, "/", host=good, x_forwarded_host=evil).status_code == 400
    assert ask(strict, CLIENT, "/", host=evil, x_forwarded_host=good).status_code == 400
