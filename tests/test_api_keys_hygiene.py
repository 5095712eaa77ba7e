"""Unused keys are disabled; owners are notified of keys that expire soon or have leaked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from email.message import EmailMessage
from typing import Any

import pytest
from flask import Flask

from .support.apps import client_of, service_of, settle, url_of
from .support.people import Person, add_user, by_key, sign_in

Travel = Callable[..., None]
Logged = Callable[[], list[str]]


@pytest.fixture
def mailing(make_app: Callable[..., Flask]) -> Flask:
    """An app that keeps its mail, and disables keys after 90 days."""
    app = make_app(mail_url="memory:", disable_keys_unused_days=90)
    client = client_of(app)
    add_user(client, "alice")
    add_user(client, "root", role="admin")
    return app


def prune(app: Flask) -> list[str]:
    """What `flask prune` reports."""
    result = app.test_cli_runner().invoke(args=["prune"])
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def mails(app: Flask) -> list[EmailMessage]:
    """The mail about keys that the app has sent, and now forgets."""
    settle(app)
    service = service_of(app)
    found = [each for each in service.mailer.outbox if "API key" in each["Subject"]]
    service.mailer.outbox.clear()
    return found


def words(message: EmailMessage) -> str:
    """The plain text of a message, on one line."""
    part = message.get_body(("plain",))
    assert part is not None
    return " ".join(part.get_content().split())


def events(logged: Logged, name: str) -> list[dict[str, Any]]:
    """The log's lines of one event."""
    return [each for each in map(json.loads, logged()) if each["msg"] == name]


def status(person: Person, key: dict[str, Any]) -> str:
    return person.get(f"/v1/api-keys/{key['id']}").json["status"]


def use(person: Person, key: dict[str, Any]) -> None:
    assert person.client.get("/v1/auth/me", headers=by_key(key["key"])).status_code == 200
    service_of(person.client.application).flush()


# --- keys that nobody uses ---


def test_unused_keys_are_disabled_by_the_service_itself(mailing: Flask, travel: Travel) -> None:
    client = client_of(mailing)
    alice = sign_in(client, "alice")
    names = ("never used", "used once", "used since", "revoked", "expired")
    keys = {name: alice.new_key(name=name) for name in names}
    use(alice, keys["used once"])
    alice.post(f"/v1/api-keys/{keys['revoked']['id']}/revoke")
    tomorrow = alice.new_key(expires_in_days=1)["expires_at"]
    alice.patch(f"/v1/api-keys/{keys['expired']['id']}", {"expires_at": tomorrow})
    travel(days=1)
    use(alice, keys["used since"])
    travel(days=89)
    assert prune(mailing)[1:] == []  # a use may be a little late to be written
    travel(hours=2)
    assert prune(mailing)[1:] == ["disable unused keys: 2"]
    assert prune(mailing)[1:] == []
    alice, root = sign_in(client, "alice"), sign_in(client, "root")
    assert {name: status(alice, key) for name, key in keys.items()} == {
        "never used": "disabled",
        "used once": "disabled",
        "used since": "active",
        "revoked": "revoked",
        "expired": "expired",
    }
    told = root.get("/v1/audit-events?action=key.disable").json["items"]
    assert {event["target_id"] for event in told} == {
        keys["never used"]["id"],
        keys["used once"]["id"],
    }
    for event in told:
        assert event["actor_id"] is None
        assert event["detail"] == {"owner_id": alice.id, "reason": "unused"}


def test_a_key_that_is_enabled_again_has_the_full_time_again(
    mailing: Flask, travel: Travel
) -> None:
    client = client_of(mailing)
    key = sign_in(client, "alice").new_key()
    travel(days=91)
    prune(mailing)
    alice = sign_in(client, "alice")
    assert status(alice, key) == "disabled"
    alice.patch(f"/v1/api-keys/{key['id']}", {"disabled": False})
    prune(mailing)
    assert status(alice, key) == "active"
    travel(days=91)
    prune(mailing)
    assert status(sign_in(client, "alice"), key) == "disabled"


def test_without_the_setting_unused_keys_stay_enabled(
    app: Flask, alice: Person, travel: Travel
) -> None:
    key = alice.new_key()
    travel(days=3650)
    prune(app)
    assert status(alice.again(), key) == "active"


def test_the_servers_do_it_too(mailing: Flask, travel: Travel) -> None:
    client = client_of(mailing)
    key = sign_in(client, "alice").new_key()
    travel(days=91)
    alice = sign_in(client, "alice")
    service_of(mailing).periodic_tasks.run()
    assert status(alice, key) == "disabled"


# --- keys that soon expire ---


def test_the_owner_is_notified_14_and_3_days_before_a_key_expires(
    mailing: Flask, travel: Travel, logged: Logged
) -> None:
    client = client_of(mailing)
    alice = sign_in(client, "alice")
    key = alice.new_key(name="deploys & <more>", expires_in_days=20)
    alice.new_key(expires_in_days=40)
    for days, due in [(5, False), (2, True), (8, False), (3, True), (1, False), (2, False)]:
        travel(days=days)
        for _ in range(2):
            prune(mailing)
        found = mails(mailing)
        assert len(found) == due, days
        for message in found:
            assert message["To"] == "alice@example.com"
            assert "expires soon" in message["Subject"]
            assert f'"deploys & <more>" ({key["hint"]})' in words(message)
            assert f"{key['expires_at'][:16].replace('T', ' ')} UTC" in words(message)
    told = events(logged, "key.expires")
    assert [event["days"] for event in told] == [14, 3]
    assert {event["key_id"] for event in told} == {key["id"]}
    assert {event["owner_id"] for event in told} == {alice.id}


def test_the_owner_of_a_short_lived_key_is_not_notified(mailing: Flask, travel: Travel) -> None:
    alice = sign_in(client_of(mailing), "alice")
    alice.new_key(name="two days", expires_in_days=2)
    alice.new_key(name="ten days", expires_in_days=10)
    prune(mailing)
    assert mails(mailing) == []
    travel(days=8)
    prune(mailing)
    [message] = mails(mailing)
    assert "ten days" in words(message)


def test_a_new_expiry_is_announced_again_and_inactive_keys_never(
    mailing: Flask, travel: Travel
) -> None:
    client = client_of(mailing)
    alice = sign_in(client, "alice")
    keys = [alice.new_key(name=f"number {number}", expires_in_days=20) for number in range(3)]
    alice.patch(f"/v1/api-keys/{keys[1]['id']}", {"disabled": True})
    alice.post(f"/v1/api-keys/{keys[2]['id']}/revoke")
    travel(days=18)
    prune(mailing)
    assert len(mails(mailing)) == 1
    alice = sign_in(client, "alice")
    later = alice.new_key(expires_in_days=30)["expires_at"]
    path = f"/v1/api-keys/{keys[0]['id']}"
    assert alice.patch(path, {"expires_at": later}).status_code == 200
    prune(mailing)
    assert mails(mailing) == []
    travel(days=17)
    prune(mailing)
    assert len(mails(mailing)) == 2  # of this one, and of the one whose expiry it got
    sign_in(client, "alice").patch(path, {"expires_at": later, "name": "other"})
    prune(mailing)
    assert mails(mailing) == []


def test_service_accounts_and_disabled_users_get_no_mail_but_a_log_line(
    mailing: Flask, travel: Travel, logged: Logged
) -> None:
    client = client_of(mailing)
    add_user(client, "robot", kind="service", password=None, email="robot@example.com")
    root, alice = sign_in(client, "root"), sign_in(client, "alice")
    [robot] = root.get("/v1/users?kind=service").json["items"]
    root.new_key(owner_id=robot["id"], expires_in_days=20)
    alice.new_key(expires_in_days=20)
    root.patch(f"/v1/users/{alice.id}", {"is_active": False})
    travel(days=7)
    prune(mailing)
    assert mails(mailing) == []
    assert {each["owner_id"] for each in events(logged, "key.expires")} == {robot["id"], alice.id}


@pytest.mark.slow
def test_of_several_processes_one_notifies(
    mailing: Flask, make_app: Callable[..., Flask], travel: Travel, logged: Logged
) -> None:
    values = {"mail_url": "memory:", "disable_keys_unused_days": 90}
    apps = [mailing, *[make_app(database_url=url_of(mailing), **values) for _ in range(3)]]
    alice = sign_in(client_of(mailing), "alice")
    unused = [alice.new_key() for _ in range(10)]
    travel(days=80)
    alice = sign_in(client_of(mailing), "alice")
    for _ in range(10):
        alice.new_key(expires_in_days=20)
    travel(days=11)
    alice = sign_in(client_of(mailing), "alice")
    threads = [threading.Thread(target=prune, args=[app]) for app in apps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(len(mails(app)) for app in apps) == 10
    assert len(events(logged, "key.expires")) == 10
    assert len(events(logged, "key.disable")) == len(unused)
    assert {status(alice, key) for key in unused} == {"disabled"}


# --- keys that leaked ---


def test_the_owner_of_a_leaked_key_is_notified_once(mailing: Flask, logged: Logged) -> None:
    client = client_of(mailing)
    alice = sign_in(client, "alice")
    key, other = alice.new_key(name="deploys"), alice.new_key()

    def report() -> None:
        sent = client_of(mailing).post("/v1/api-keys/revoke", json={"key": key["key"]})
        assert sent.status_code == 204

    threads = [threading.Thread(target=report) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alice.post(f"/v1/api-keys/{other['id']}/revoke")  # by herself
    [message] = mails(mailing)
    assert "reported and revoked" in message["Subject"]
    assert f'"deploys" ({key["hint"]})' in words(message)
    assert key["key"] not in message.as_string()
    [event] = events(logged, "key.leaked")
    assert (event["key_id"], event["owner_id"]) == (key["id"], alice.id)
