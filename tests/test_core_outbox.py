"""The outbox: what was promised is mailed, once, whoever dies; what is pointless is not."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from email.message import EmailMessage
from pathlib import Path

import pytest
from flask import Flask

from backend.db.database import release
from backend.mail import outbox
from backend.mail.models import Mail

from .support.apps import client_of, service_of, settle, url_of
from .support.concurrency import until
from .support.mail import Inbox, token_in
from .support.outbox import LATER, SECRET, Killed
from .support.passwords import forgot, register, reset
from .support.people import NEW_PASSWORD, PASSWORD, add_user, sign_in
from .support.processes import free_port

pytestmark = pytest.mark.filterwarnings("ignore:::aiosmtpd")


@pytest.fixture
def cut_off(make_app: Callable[..., Flask]) -> Flask:
    """An app whose mail server does not answer."""
    return make_app(mail_url=f"smtp://127.0.0.1:{free_port()}")


@pytest.fixture
def sent_later(
    cut_off: Flask, make_app: Callable[..., Flask], travel: Callable[..., None]
) -> Callable[[], list[EmailMessage]]:
    """A function: a mail server answers 15 minutes later, and gets these messages."""

    def send() -> list[EmailMessage]:
        settle(cut_off)
        travel(minutes=15)
        app = make_app(database_url=url_of(cut_off))
        service_of(app).sender.wake()
        settle(app)
        return list(service_of(app).mailer.outbox)

    return send


def waiting(app: Flask) -> list[Mail]:
    """What is in the outbox."""
    service = service_of(app)
    with service.active():
        found = list(Mail.select().order_by(Mail.created_at))
        release(service.database)
    return found


# --- what is promised is sent ---


def test_links_are_made_and_their_time_starts_when_the_mail_is_sent(
    cut_off: Flask,
    sent_later: Callable[[], list[EmailMessage]],
    travel: Callable[..., None],
) -> None:
    client = client_of(cut_off)
    add_user(client, "alice")
    forgot(client, "alice@example.com")
    settle(cut_off)
    travel(hours=1)  # longer than a link is good
    [message] = sent_later()
    travel(minutes=29)
    assert reset(client, token_in(message)).status_code == 204
    assert sign_in(client, "alice", NEW_PASSWORD)


def test_what_waits_holds_no_secret(cut_off: Flask) -> None:
    client = client_of(cut_off)
    add_user(client, "root", role="admin")
    add_user(client, "alice")
    root, alice = sign_in(client, "root"), sign_in(client, "alice")
    register(root)
    forgot(client, "alice@example.com")
    change = {"email": "new@example.com", "current_password": PASSWORD}
    assert alice.patch("/v1/auth/me", change).status_code == 200
    settle(cut_off)
    found = waiting(cut_off)
    assert {each.template for each in found} == {"invitation", "reset", "email_confirm"}
    for each in found:
        assert {*json.loads(each.content)} <= {"username", "new_email", "epoch"}
        assert not re.search(r"bt[a-z]?_|token|#", each.content)


def test_a_newer_mail_of_the_same_kind_replaces_one_that_waits(
    cut_off: Flask, sent_later: Callable[[], list[EmailMessage]]
) -> None:
    client = client_of(cut_off)
    for name in ("alice", "bob"):
        add_user(client, name)
        for _ in range(3):
            forgot(client, f"{name}@example.com")
            settle(cut_off)
    messages = sent_later()
    assert Counter(str(each["To"]) for each in messages) == {
        "alice@example.com": 1,
        "bob@example.com": 1,
    }
    for message in messages:
        assert reset(client, token_in(message)).status_code == 204


def test_notices_about_different_things_do_not_replace_each_other(
    cut_off: Flask, sent_later: Callable[[], list[EmailMessage]]
) -> None:
    client = client_of(cut_off)
    add_user(client, "alice")
    alice = sign_in(client, "alice")
    for number in range(3):
        key = alice.new_key(name=f"key {number}")["key"]
        assert client.post("/v1/api-keys/revoke", json={"key": key}).status_code == 204
    texts = [str(each.get_body(("plain",))) for each in sent_later()]
    assert len(texts) == 3
    assert all(any(f"key {number}" in text for text in texts) for number in range(3))


def test_a_newer_mail_goes_out_although_the_one_it_replaces_is_on_its_way(
    cut_off: Flask,
) -> None:
    with service_of(cut_off).active():
        user_id = outbox.new_id()
        outbox.put("alice@example.com", "reset", user_id, {"epoch": 1})
        old = outbox.take()
        assert isinstance(old, Mail)
        outbox.put("alice@example.com", "reset", user_id, {"epoch": 2})
        outbox.remove(old)  # by whoever has sent it
        outbox.put_back(old, 600)  # or not
        new = outbox.take()
        assert isinstance(new, Mail)
        assert new.values == {"epoch": 2}
        release(service_of(cut_off).database)


def test_what_was_sent_leaves_nothing_behind(app: Flask) -> None:
    client = client_of(app)
    add_user(client, "alice")
    forgot(client, "alice@example.com")
    settle(app)
    assert len(service_of(app).mailer.outbox) == 1
    assert waiting(app) == []


# --- what is pointless is dropped ---


@pytest.mark.parametrize("event", ["disabled", "deleted", "new password", "new address"])
def test_mail_is_dropped_when_its_link_can_no_longer_be_good(
    cut_off: Flask,
    sent_later: Callable[[], list[EmailMessage]],
    event: str,
) -> None:
    client = client_of(cut_off)
    add_user(client, "root", role="admin")
    add_user(client, "alice")
    root, alice = sign_in(client, "root"), sign_in(client, "alice")
    forgot(client, "alice@example.com")
    settle(cut_off)
    path = f"/v1/users/{alice.id}"
    if event == "disabled":
        for active in (False, True):
            assert root.patch(path, {"is_active": active}).status_code == 200
    elif event == "deleted":
        assert root.delete(path).status_code == 204
    elif event == "new password":
        passwords = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
        assert alice.post("/v1/auth/password", passwords).status_code == 204
    else:
        assert root.patch(path, {"email": "new@example.com"}).status_code == 200
    for message in sent_later():
        assert "#token=" not in str(message.get_body(("plain",)))
    assert waiting(cut_off) == []


def test_mail_that_nothing_sends_is_pruned_after_a_day(
    cut_off: Flask, travel: Callable[..., None]
) -> None:
    add_user(client_of(cut_off), "alice")
    forgot(client_of(cut_off), "alice@example.com")
    settle(cut_off)
    service_of(cut_off).sender.close()
    with service_of(cut_off).active():
        assert outbox.prune(10) == 0
        travel(hours=25, seconds=1)
        assert outbox.prune(10) == 1
        release(service_of(cut_off).database)
    assert waiting(cut_off) == []


def test_doctor_reports_mail_that_has_been_waiting(
    cut_off: Flask, travel: Callable[..., None]
) -> None:
    add_user(client_of(cut_off), "alice")
    forgot(client_of(cut_off), "alice@example.com")
    settle(cut_off)

    def doctor() -> str:
        return cut_off.test_cli_runner().invoke(args=["doctor"]).output

    assert "Mail is waiting" not in doctor()
    travel(minutes=16)
    assert "Mail is waiting: 1, since " in doctor()


# --- several processes, and those that die ---


@pytest.mark.slow
def test_of_several_senders_each_mail_is_sent_by_one(make_app: Callable[..., Flask]) -> None:
    apps = [make_app()]
    apps += [make_app(database_url=url_of(apps[0])) for _ in range(3)]
    first = service_of(apps[0])
    with first.active():
        for number in range(120):
            outbox.put(f"user{number}@example.com", "mfa_enabled", None, {"username": "user"})
        release(first.database)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda app: service_of(app).sender.wake(), apps))
    for app in apps:
        settle(app)
    found = Counter(str(each["To"]) for app in apps for each in service_of(app).mailer.outbox)
    assert found == {f"user{number}@example.com": 1 for number in range(120)}
    assert waiting(apps[0]) == []


def test_a_mail_that_a_dead_process_had_taken_is_sent_when_its_lease_ends(
    app: Flask, travel: Callable[..., None]
) -> None:
    service = service_of(app)
    with service.active():
        outbox.put("alice@example.com", "mfa_enabled", None, {"username": "alice"})
        assert isinstance(outbox.take(), Mail)  # and nothing more is heard of who took it
        release(service.database)
    for passed, sent in ((0, 0), (outbox.LEASE.total_seconds() - 1, 0), (2, 1)):
        travel(seconds=passed)
        service.sender.wake()
        settle(app)
        assert len(service.mailer.outbox) == sent


def test_a_sender_looks_again_when_the_next_mail_is_due(app: Flask) -> None:
    service = service_of(app)
    service.sender.wake()
    settle(app)
    assert service.sender._pause == outbox.POLL_SECONDS
    with service.active():
        outbox.put("alice@example.com", "mfa_enabled", None, {"username": "alice"})
        taken = outbox.take()
        assert isinstance(taken, Mail)
        outbox.put_back(taken, 7)
        release(service.database)
    service.sender.wake()
    settle(app)
    assert service.sender._pause == pytest.approx(7, abs=1)


@pytest.mark.slow
def test_killing_the_server_loses_no_mail_that_it_promised(
    make_app: Callable[..., Flask],
    tree: Path,
    tmp_path: Path,
    smtp: Callable[..., int],
    inbox: Inbox,
) -> None:
    mail_port = free_port()
    killed = Killed(make_app(secret_key=SECRET), tree, tmp_path, mail_port)
    with killed.start("wsgi.py") as server:  # whose mail server is down
        killed.invite(server, range(40))
    assert inbox.taken == []
    smtp(port=mail_port)
    with killed.start("-c", LATER):  # which sends although no request comes
        until(lambda: len(inbox.taken) >= 40)
    assert sorted(inbox.recipients) == sorted(killed.invited)
