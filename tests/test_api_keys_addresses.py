"""Keys that may be used from some addresses only, and what their owners keep with them."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from .support.apps import client_of, service_of
from .support.people import Person, add_user, by_key, sign_in
from .support.problems import assert_problem

KEYS = "/v1/api-keys"


def me(client: FlaskClient, key: str, address: str) -> TestResponse:
    """The answer to who is calling with the key from an address."""
    overrides = {"REMOTE_ADDR": address}
    return client.get("/v1/auth/me", headers=by_key(key), environ_overrides=overrides)


@pytest.mark.parametrize(
    ("block", "inside", "outside"),
    [
        ("192.0.2.0/24", "192.0.2.255", "192.0.3.0"),
        ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
        ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::1"),
        ("::ffff:192.0.2.0/120", "192.0.2.1", "192.0.3.1"),
        ("192.0.2.0/24", "::ffff:192.0.2.1", "::ffff:192.0.3.1"),
        ("0.0.0.0/0", "203.0.113.9", "2001:db8::1"),
        ("::/0", "2001:db8::1", "203.0.113.9"),
    ],
)
def test_a_key_works_from_its_allowed_addresses(
    client: FlaskClient, alice: Person, block: str, inside: str, outside: str
) -> None:
    key = alice.new_key(allowed_ips=["198.51.100.0/30", block])["key"]
    assert me(client, key, inside).status_code == 200
    assert_problem(me(client, key, outside), 403, "ip_not_allowed")


def test_forwarding_headers_of_strangers_are_ignored(client: FlaskClient, alice: Person) -> None:
    key = alice.new_key(allowed_ips=["192.0.2.0/24"])["key"]
    claimed = by_key(key) | {"X-Forwarded-For": "192.0.2.1", "Forwarded": "for=192.0.2.1"}
    assert_problem(client.get("/v1/auth/me", headers=claimed), 403, "ip_not_allowed")


def test_behind_a_trusted_proxy_the_clients_address_counts(make_app: Callable[..., Flask]) -> None:
    client = client_of(make_app(trusted_proxies="127.0.0.1"))
    add_user(client, "alice")
    key = sign_in(client, "alice").new_key(allowed_ips=["192.0.2.0/24"])["key"]
    for address, status in (("192.0.2.1", 200), ("198.51.100.1", 403)):
        headers = by_key(key) | {"X-Forwarded-For": f"192.0.2.9, {address}"}
        assert client.get("/v1/auth/me", headers=headers).status_code == status


def test_a_fault_of_the_key_itself_is_reported_first(client: FlaskClient, alice: Person) -> None:
    key = alice.new_key(allowed_ips=["192.0.2.0/24"])
    alice.post(f"{KEYS}/{key['id']}/revoke")
    assert_problem(me(client, key["key"], "198.51.100.1"), 401, "invalid_credentials")


def test_a_refusal_by_address_is_recorded(client: FlaskClient, root: Person, alice: Person) -> None:
    key = alice.new_key(allowed_ips=["192.0.2.0/24"])
    me(client, key["key"], "198.51.100.1")
    [event] = root.get("/v1/audit-events?action=access.denied").json["items"]
    assert (event["actor_id"], event["ip"]) == (alice.id, "198.51.100.1")
    assert event["detail"]["key_id"] == key["id"]
    assert event["detail"]["code"] == "ip_not_allowed"


def test_blocks_are_returned_in_their_canonical_form(alice: Person) -> None:
    blocks = ["192.0.2.7", "::ffff:198.51.100.0/120", "2001:DB8:0::/48"]
    key = alice.new_key(allowed_ips=blocks)
    wanted = ["192.0.2.7/32", "198.51.100.0/24", "2001:db8::/48"]
    assert key["allowed_ips"] == wanted
    assert alice.get(f"{KEYS}/{key['id']}").json["allowed_ips"] == wanted


@pytest.mark.parametrize(
    "block",
    [
        "",
        "no",
        "192.0.2.1/24",
        "2001:db8::1/32",
        "192.0.2.0/33",
        "fe80::1%eth0",
        "1",
        7,
        None,
        "192.0.2.0/24 ",
        "192.0.2.0/255.255.255.1",
        "192.0.0.0/255.255.0.0",
        "192.0.0.0/0.0.255.255",
        "0.0.0.0/0.0.0.0",
        "192.0.2.0/024",
        "2001:db8::/032",
        "192.0.2.0/",
        "١٩٢.0.2.0/24",
    ],
)
def test_invalid_blocks_are_refused(alice: Person, block: Any) -> None:
    answer = alice.post(KEYS, {"name": "x", "allowed_ips": [block]})
    assert_problem(answer, 422, "validation_error", "json.allowed_ips")


def test_at_most_fifty_blocks_are_accepted(alice: Person) -> None:
    blocks = [f"192.0.2.{number}" for number in range(51)]
    assert alice.new_key(allowed_ips=blocks[:50])["allowed_ips"][49] == "192.0.2.49/32"
    answer = alice.post(KEYS, {"name": "x", "allowed_ips": blocks})
    assert_problem(answer, 422, "validation_error", "json.allowed_ips")


def test_a_change_counts_at_the_next_request(client: FlaskClient, alice: Person) -> None:
    key = alice.new_key()
    path = f"{KEYS}/{key['id']}"
    assert alice.patch(path, {"allowed_ips": ["192.0.2.0/24"]}).status_code == 200
    assert_problem(me(client, key["key"], "127.0.0.1"), 403, "ip_not_allowed")
    assert alice.patch(path, {"allowed_ips": []}).json["allowed_ips"] == []
    assert me(client, key["key"], "127.0.0.1").status_code == 200


def test_a_key_cannot_create_one_with_more_addresses(alice: Person) -> None:
    wide = alice.new_key(scopes=["keys:write"], allowed_ips=["127.0.0.0/8", "192.0.2.0/24"])
    actor = alice.with_key(wide)
    for blocks, status in (
        (["127.0.0.1"], 201),
        (["192.0.2.128/25", "127.0.0.0/8"], 201),
        (["192.0.0.0/16"], 403),
        (["2001:db8::/32"], 403),
        ([], 403),
    ):
        answer = actor.post(KEYS, {"name": "x", "allowed_ips": blocks})
        assert answer.status_code == status, blocks
    assert actor.post(KEYS, {"name": "x"}).json["code"] == "insufficient_scope"


# --- metadata ---


def test_metadata_is_returned_as_it_was_sent(alice: Person) -> None:
    given = {"team": "Größe 😀", "nested": {"list": [1, 2.5, None, True]}, "": ""}
    key = alice.new_key(metadata=given)
    path = f"{KEYS}/{key['id']}"
    assert key["metadata"] == given
    assert alice.get(path).json["metadata"] == given
    assert alice.patch(path, {"metadata": {}}).json["metadata"] == {}
    assert alice.new_key()["metadata"] == {}


def test_metadata_is_an_object_of_4096_bytes_at_most(alice: Person) -> None:
    fits = {"x": "é" * 2044}  # {"x":""} and two bytes each
    assert alice.new_key(metadata=fits)["metadata"] == fits
    for wrong in ({"x": "é" * 2045}, [], "x", None, 7):
        answer = alice.post(KEYS, {"name": "x", "metadata": wrong})
        assert_problem(answer, 422, "validation_error", "json.metadata")


# --- filters ---


def test_keys_that_expire_or_are_not_used_are_found(
    alice: Person, travel: Callable[..., None]
) -> None:
    forever = alice.new_key(name="forever")["id"]
    soon = alice.new_key(name="soon", expires_in_days=5)["id"]
    late = alice.new_key(name="late", expires_in_days=50)["id"]
    now = datetime.now(UTC)

    def found(name: str, days: int) -> list[str]:
        at = (now + timedelta(days=days)).isoformat().replace("+00:00", "Z")
        page = alice.get(f"{KEYS}?{name}={at}").json
        return [key["id"] for key in page["items"]]

    assert found("expires_before", 10) == [soon]
    assert found("expires_before", 100) == [late, soon]
    assert found("unused_since", 1) == [late, soon, forever]
    assert found("unused_since", -1) == []
    assert_problem(
        alice.get(f"{KEYS}?expires_before=x"), 422, "validation_error", "query.expires_before"
    )


def test_keys_that_were_never_used_are_found(client: FlaskClient, alice: Person) -> None:
    used, unused = alice.new_key(), alice.new_key()
    assert client.get("/v1/auth/me", headers=by_key(used["key"])).status_code == 200
    service_of(client.application).flush()
    for asked, wanted in (("true", unused), ("false", used)):
        [found] = alice.get(f"{KEYS}?never_used={asked}").json["items"]
        assert found["id"] == wanted["id"]
    answer = alice.get(f"{KEYS}?never_used=yes")
    assert_problem(answer, 422, "validation_error", "query.never_used")
