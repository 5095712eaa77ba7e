"""Mail: what is sent when, to which server, how encrypted, and what becomes of it if it is not."""

from __future__ import annotations

import datetime as dt
import email
import logging
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import AuthResult, Envelope
from flask import Flask
from flask.testing import FlaskClient
from jinja2 import Environment, meta

from backend.core.paths import ROOT
from backend.db.database import release
from backend.mail import mailer
from backend.users.models import User

from .support.apps import service_of, settle
from .support.concurrency import until
from .support.databases import migrate
from .support.mail import Inbox, message_of
from .support.processes import run

# It advises against some of what is tried here.
pytestmark = pytest.mark.filterwarnings("ignore:::aiosmtpd")

LINK = "https://id.example/password#token=btp_AAAAAAAAAAAAAAAAAAAAAAAAAAA.BBBBBBBBBBBBBBBBBBBB"
VALUES: dict[str, dict[str, object]] = {
    "invitation": {"username": "alice", "link": LINK, "valid_for": "7 days"},
    "reset": {"username": "alice", "link": LINK, "valid_for": "30 minutes"},
    "password_changed": {"username": "alice", "api_keys": 2},
    "email_confirm": {
        "username": "alice",
        "new_email": "new@example.com",
        "link": LINK,
        "valid_for": "24 hours",
    },
    "email_changed": {"username": "alice", "new_email": "new@example.com"},
    "key_expires": {
        "username": "alice",
        "key": "deploys",
        "hint": "bt_...Qw3r",
        "expires_at": "2026-11-23 09:00 UTC",
    },
    "key_leaked": {
        "username": "alice",
        "key": "deploys",
        "hint": "bt_...Qw3r",
        "children": ["first (bt_...aaaa)", "second (bt_...bbbb)"],
    },
    "mfa_enabled": {"username": "alice"},
    "recovery_codes": {"username": "alice"},
    "mfa_disabled": {"username": "alice", "by_admin": False},
    "test": {"username": "alice"},
}
FOLDER = ROOT / "config" / "mail"


def values_of(template: str) -> dict[str, object]:
    """A text for each value that a template of yours needs."""
    text = (FOLDER / f"{template}.txt").read_text("utf-8")
    needed = meta.find_undeclared_variables(Environment().parse(text))
    return dict.fromkeys(needed - {"service", "host", "at"}, "alice")


VALUES |= {
    each.stem: values_of(each.stem) for each in FOLDER.glob("*.txt") if each.stem not in VALUES
}
SECRET_PARTS = ["alice@", "example.com", "btp_", "hunter2", "o'hara"]


def send(
    app: Flask, to: str = "alice@example.com", template: str = "reset", **values: object
) -> None:
    """Send a mail, outside of any transaction, and wait until the app has tried to."""
    service = service_of(app)
    with service.active():
        mailer.send(to, template, user_id=None, **(values or VALUES[template]))
        release(service.database)
    settle(app)


def again(app: Flask) -> None:
    """Let the app look for mail that is due by now, and wait until it has tried to send that."""
    service_of(app).sender.wake()
    settle(app)


def outbox(app: Flask) -> list[EmailMessage]:
    """The messages that `memory:` keeps."""
    return list(service_of(app).mailer.outbox)


def text_of(message: EmailMessage, kind: str = "plain") -> str:
    """The words of a message."""
    part = message.get_body((kind,))
    assert part is not None
    return part.get_content()


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, int]]:
    """What the log says of mail, and after how many tries. It holds nothing that it should not."""
    for record in caplog.records:
        line = str(record.__dict__) + str(record.exc_info)
        assert not [part for part in SECRET_PARTS if part in line], line
    return [
        (record.message, getattr(record, "tries", 0))
        for record in caplog.records
        if record.message.startswith("mail.")
    ]


@pytest.fixture(autouse=True)
def _hear_all(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "backend")


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """The URL of a migrated database."""
    url = f"sqlite:///{tmp_path / 'mail.db'}"
    migrate(url)
    return url


@pytest.fixture
def mailing(database_url: str, app_on: Callable[..., Flask]) -> Callable[..., Flask]:
    """A function that builds an app which sends to a MAIL_URL; all on one database."""
    return lambda mail_url, **values: app_on(database_url, mail_url=mail_url, **values)


# --- what a message is ---


def test_a_message_has_two_forms_and_the_headers_that_mail_needs(
    mailing: Callable[..., Flask], travel: Callable[..., None]
) -> None:
    travel(days=400)
    app = mailing(
        "memory:", public_url="https://id.example/auth", mail_from="Böb, Inc. <a@b.example>"
    )
    send(app)
    [message] = outbox(app)
    assert str(message["From"]) == '"Böb, Inc." <a@b.example>'
    assert message["To"] == "alice@example.com"
    assert message["Subject"] == "A new password for Backend"
    assert message["Auto-Submitted"] == "auto-generated"
    assert re.fullmatch(r"<[^<>@\s]+@id\.example>", message["Message-ID"])
    sent = message["Date"].datetime
    assert abs(sent - dt.datetime.now(dt.UTC) - dt.timedelta(days=400)) < dt.timedelta(minutes=1)
    assert message.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]
    text, html = text_of(message), text_of(message, "html")
    assert f"\n{LINK}\n" in text
    assert f'href="{LINK}"' in html
    for part in ["id.example", "30 minutes", f"{sent:%Y-%m-%d %H:%M} UTC"]:
        assert part in text
        assert part in html
    assert "Subject:" not in text


def test_each_message_has_an_id_of_its_own(mailing: Callable[..., Flask]) -> None:
    app = mailing("memory:")
    send(app)
    send(app)
    assert len({message["Message-ID"] for message in outbox(app)}) == 2


@pytest.mark.parametrize(
    ("public_url", "sender"),
    [
        ("https://id.example/auth", "no-reply@id.example"),
        ("https://bücher.example", "no-reply@xn--bcher-kva.example"),
        ("http://127.0.0.1:8000", "no-reply@[127.0.0.1]"),
        ("http://[::1]:8000", "no-reply@[IPv6:::1]"),
        ("http://my_host:8000", "no-reply@my_host"),
    ],
)
def test_without_a_sender_it_is_one_at_the_services_host(
    mailing: Callable[..., Flask], public_url: str, sender: str
) -> None:
    app = mailing("memory:", public_url=public_url)
    send(app)
    [message] = outbox(app)
    assert message["From"] == sender
    assert message.as_bytes().isascii()


@pytest.mark.parametrize(
    ("to", "written"),
    [
        ("o'hara@example.com", "o'hara@example.com"),
        ("Alice.B+c@Example.COM", "Alice.B+c@Example.COM"),
        ("alice@bücher.example", "alice@xn--bcher-kva.example"),
        ("alice@BÜCHER。example", "alice@xn--bcher-kva.example"),
    ],
)
def test_the_domain_of_the_recipient_is_written_in_ascii_and_the_name_as_it_is(
    mailing: Callable[..., Flask], to: str, written: str
) -> None:
    app = mailing("memory:")
    send(app, to)
    [message] = outbox(app)
    assert message["To"] == written


@pytest.mark.parametrize(
    "to",
    [
        "alice@example.com\nBcc: eve@example.com",
        "alice@example.com\r\nBcc: eve@example.com",
        "a\nBcc: eve@x.example\n@example.com",
        "alice@exam\nple.com",
        "@example.com",
        "alice",
        "",
        "älice@example.com",
        "alice@-ü.example",
        "alice\0@example.com",
    ],
)
def test_what_is_no_address_gets_no_mail_and_adds_no_header(
    mailing: Callable[..., Flask], caplog: pytest.LogCaptureFixture, to: str
) -> None:
    app = mailing("memory:")
    send(app, to)
    assert outbox(app) == []
    assert told(caplog) == [("mail.failed", 1)]


# --- the templates ---


def test_every_template_is_a_text_and_a_page() -> None:
    assert {path.stem for path in FOLDER.glob("*.html")} - {"layout"} == set(VALUES)


@pytest.mark.parametrize("template", VALUES)
def test_every_template_can_be_filled_and_names_service_and_user(
    mailing: Callable[..., Flask], template: str
) -> None:
    app = mailing("memory:", public_url="https://id.example")
    send(app, template=template)
    [message] = outbox(app)
    assert message["Subject"]
    for kind in ("plain", "html"):
        words = text_of(message, kind)
        assert all(part in words for part in ["Hello alice", "id.example", " UTC"])
        assert "{" not in words
        assert "\n\n\n" not in words
    assert not re.search(
        r"(src|href|url\()=?\W*(?!https://id\.example/password)\w", text_of(message, "html")
    )


@pytest.mark.parametrize("template", VALUES)
def test_hostile_values_stay_text(mailing: Callable[..., Flask], template: str) -> None:
    app = mailing("memory:", public_url="https://id.example")
    hostile = '"><script>alert(1)</script>\r\nBcc: eve@example.com\n\n{{ link }}\u2028\x0b'
    values = dict.fromkeys(VALUES[template], hostile)
    values["username"] = re.sub("[.:/]", "", hostile)  # or it would be left out
    send(app, template=template, **values)
    [message] = outbox(app)
    again = email.message_from_bytes(message.as_bytes(), policy=default)
    assert isinstance(again, EmailMessage)
    assert set(again.keys()) == {
        "From",
        "To",
        "Subject",
        "Date",
        "Message-ID",
        "Auto-Submitted",
        "MIME-Version",
        "Content-Type",
    }
    assert "<script" not in text_of(again, "html")
    assert "{{ link }}" in text_of(again, "html")


@pytest.mark.parametrize("template", VALUES)
def test_a_value_that_is_missing_is_a_fault_in_the_log_and_no_mail(
    mailing: Callable[..., Flask], caplog: pytest.LogCaptureFixture, template: str
) -> None:
    app = mailing("memory:")
    for missing in VALUES[template]:
        caplog.clear()
        values = {name: each for name, each in VALUES[template].items() if name != missing}
        send(app, template=template, **values, more="than nothing")
        record, _ = caplog.records
        assert (record.levelno, record.exc_info is not None) == (logging.ERROR, True)
        assert told(caplog) == [("mail.delayed", 1)]  # a template may be mended
    assert outbox(app) == []


@pytest.mark.parametrize("name", ["evil.example", "www.evil.example", "evil.example.", "a.b"])
@pytest.mark.parametrize("template", VALUES)
def test_a_username_that_a_mail_client_would_show_as_a_link_is_not_in_the_mail(
    mailing: Callable[..., Flask], template: str, name: str
) -> None:
    app = mailing("memory:", public_url="https://id.example")
    send(app, template=template, **VALUES[template] | {"username": name})
    [message] = outbox(app)
    for kind in ("plain", "html"):
        assert name not in text_of(message, kind)
        assert "Hello," in text_of(message, kind)
    if template == "invitation":
        assert "You sign in with this e-mail address." in text_of(message)


@pytest.mark.parametrize("name", ["https://evil.example", "evil.example", "evil。example", "a:b"])
@pytest.mark.parametrize("template", ["key_expires", "key_leaked"])
def test_the_name_of_a_key_that_would_become_a_link_is_not_in_the_mail(
    mailing: Callable[..., Flask], template: str, name: str
) -> None:
    app = mailing("memory:")
    send(app, template=template, **VALUES[template] | {"key": name})
    [message] = outbox(app)
    for kind in ("plain", "html"):
        assert name not in text_of(message, kind)
        assert "our API key (bt_...Qw3r)" in " ".join(text_of(message, kind).split())


def test_a_new_address_that_would_become_a_link_is_not_in_the_mail(
    mailing: Callable[..., Flask],
) -> None:
    app = mailing("memory:")
    address = "www.evil.example/x@b.example"
    send(app, template="email_changed", username="alice", new_email=address)
    [message] = outbox(app)
    for kind in ("plain", "html"):
        assert "evil" not in text_of(message, kind)
        assert "another address" in text_of(message, kind)


def test_mails_name_the_service_by_service_name_and_where_it_is(
    mailing: Callable[..., Flask],
) -> None:
    app = mailing("memory:", public_url="https://id.example", service_name="Ümläut & Söhne")
    send(app)
    [message] = outbox(app)
    assert message["Subject"] == "A new password for Ümläut & Söhne"
    assert "Ümläut & Söhne at id.example, " in text_of(message)
    assert "Ümläut &amp; Söhne at id.example, " in text_of(message, "html")


def test_whether_it_was_an_administrator_is_told(mailing: Callable[..., Flask]) -> None:
    app = mailing("memory:")
    send(app, template="mfa_disabled", username="alice", by_admin=True)
    send(app, template="mfa_disabled", username="alice", by_admin=False)
    by_admin, by_user = (text_of(message) for message in outbox(app))
    assert "an administrator switched off" in by_admin.lower()
    assert "administrator" not in by_user


# --- when it is sent ---


def test_mail_is_sent_once_the_transaction_is_committed(app: Flask, client: FlaskClient) -> None:
    service = service_of(app)
    with service.active():
        with service.database.atomic():
            mailer.send("alice@example.com", "mfa_enabled", user_id=None, username="alice")
            with service.database.atomic():
                mailer.send("bob@example.com", "mfa_enabled", user_id=None, username="bob")
            again(app)
            assert outbox(app) == []
        settle(app)
        assert [message["To"] for message in outbox(app)] == [
            "alice@example.com",
            "bob@example.com",
        ]
        service.database.close()


def test_what_is_rolled_back_sends_no_mail_not_even_with_the_next_commit(
    app: Flask, client: FlaskClient
) -> None:
    service = service_of(app)
    with service.active():
        with suppress(ZeroDivisionError), service.database.atomic():
            mailer.send("alice@example.com", "mfa_enabled", user_id=None, username="alice")
            _ = 1 / 0
        with service.database.atomic():
            User.select().count()
        service.database.close()
    again(app)
    assert outbox(app) == []


def test_without_a_server_nothing_is_sent_and_one_line_says_so(
    mailing: Callable[..., Flask], caplog: pytest.LogCaptureFixture
) -> None:
    app = mailing(
        "", environment="production", secret_key="k3" * 10 + "abcdefghijklmnop", bcrypt_rounds=10
    )
    with service_of(app).active():
        assert mailer.enabled() is False
    send(app)
    assert told(caplog) == [("mail.skipped", 0)]


def test_a_link_carries_its_token_behind_the_number_sign(mailing: Callable[..., Flask]) -> None:
    for url, link in [
        ({"public_url": "https://id.example/auth"}, "https://id.example/auth/password#token=x"),
        (
            {"password_url": "https://app.example/reset/?a=b"},
            "https://app.example/reset/?a=b#token=x",
        ),
    ]:
        with service_of(mailing("memory:", **url)).active():
            assert mailer.enabled() is True
            assert mailer.link("x") == link


@pytest.mark.slow
def test_the_console_shows_the_link_as_it_is(tree: Path, database_url: str) -> None:
    script = f"""
from backend.app import create_app
from backend.mail import mailer
from backend.db.database import release
app = create_app()
with app.extensions["backend"].active():
    values = {{"username": "alice", "link": {LINK!r}, "valid_for": "an hour"}}
    mailer.send("alice@example.com", "reset", user_id=None, **values)
"""
    settings = {"mail_url": "console:", "public_url": "https://id.example"}
    done = run(tree, "python", "-c", script, database_url=database_url, **settings)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("To: alice@example.com\nSubject: A new password for Backend\n")
    assert f"\n{LINK}\n" in done.stderr


# --- servers ---


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    """What a server with that certificate needs."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def knows(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
    """Signs in one user."""
    good = (data.login, data.password) == (b"mail@id.example", b"hunter2/:@")
    return AuthResult(success=good, handled=False, auth_data=data.login)


LOGIN = "mail%40id.example:hunter2%2F%3A%40@"
# Reaches this machine on Linux and macOS, and is no loopback address.
ELSEWHERE = "0.0.0.0"


def test_a_server_gets_the_message_as_it_was_written(
    mailing: Callable[..., Flask],
    smtp: Callable[..., int],
    inbox: Inbox,
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = mailing(f"smtp://127.0.0.1:{smtp()}", mail_from="Accounts <a@b.example>")
    send(app, "o'hara@bücher.example")
    [(encrypted, user, envelope)] = inbox.taken
    assert (encrypted, user) == (False, None)
    assert envelope.mail_from == "a@b.example"
    assert envelope.rcpt_tos == ["o'hara@xn--bcher-kva.example"]
    assert isinstance(envelope.content, bytes)
    assert envelope.content.isascii()
    message = message_of(envelope)
    assert f"\n{LINK}\n" in text_of(message).replace("\r\n", "\n")
    assert f'href="{LINK}"' in text_of(message, "html")
    assert told(caplog) == [("mail.sent", 1)]


def test_each_mail_has_a_connection_of_its_own_and_one_recipient(
    mailing: Callable[..., Flask], smtp: Callable[..., int], inbox: Inbox
) -> None:
    app = mailing(f"smtp://127.0.0.1:{smtp()}")
    for name in ("alice", "bob", "carol"):
        send(app, f"{name}@example.com")
    assert [envelope.rcpt_tos for _, _, envelope in inbox.taken] == [
        ["alice@example.com"],
        ["bob@example.com"],
        ["carol@example.com"],
    ]


def test_on_loopback_starttls_is_used_where_it_is_offered_and_nothing_is_verified(
    mailing: Callable[..., Flask],
    smtp: Callable[..., int],
    inbox: Inbox,
    tls: ssl.SSLContext,
) -> None:
    port = smtp(tls_context=tls, authenticator=knows)
    send(mailing(f"smtp://{LOGIN}127.0.0.1:{port}"))
    [(encrypted, user, _)] = inbox.taken
    assert (encrypted, user) == (True, b"mail@id.example")


def test_on_loopback_a_password_may_go_unencrypted(
    mailing: Callable[..., Flask], smtp: Callable[..., int], inbox: Inbox
) -> None:
    port = smtp(authenticator=knows, auth_required=True, auth_require_tls=False)
    send(mailing(f"smtp://{LOGIN}127.0.0.1:{port}"))
    send(mailing(f"smtp://{LOGIN}127.0.0.1:{port}?starttls=never"))
    assert [user for _, user, _ in inbox.taken] == [b"mail@id.example"] * 2


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_a_password_outside_ascii_is_sent_as_utf_8(
    mailing: Callable[..., Flask],
    smtp: Callable[..., int],
    inbox: Inbox,
    caplog: pytest.LogCaptureFixture,
    mechanism: str,
) -> None:
    def knows(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        good = (data.login, data.password) == ("müller".encode(), "pässwört→".encode())
        return AuthResult(success=good, handled=False, auth_data=data.login)

    other = {"PLAIN": "LOGIN", "LOGIN": "PLAIN"}[mechanism]
    options = {"auth_require_tls": False, "auth_exclude_mechanism": [other]}
    port = smtp(authenticator=knows, auth_required=True, **options)
    for login in ("m%C3%BCller:p%C3%A4ssw%C3%B6rt%E2%86%92", "müller:pässwört→"):
        send(mailing(f"smtp://{login}@127.0.0.1:{port}"))
    assert len(inbox.taken) == 2
    assert told(caplog) == [("mail.sent", 1)] * 2


def test_smtps_is_encrypted_from_the_start(
    mailing: Callable[..., Flask],
    smtp: Callable[..., int],
    inbox: Inbox,
    tls: ssl.SSLContext,
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    port = smtp(ssl_context=tls, authenticator=knows, auth_require_tls=False)
    send(mailing(f"smtps://{ELSEWHERE}:{port}"))
    assert told(caplog) == [("mail.delayed", 1)]
    assert inbox.asked == 0
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    send(mailing(f"smtps://{LOGIN}{ELSEWHERE}:{port}"))
    [(_, user, _)] = inbox.taken
    assert user == b"mail@id.example"


def test_another_machine_must_offer_starttls(
    mailing: Callable[..., Flask],
    smtp: Callable[..., int],
    inbox: Inbox,
    caplog: pytest.LogCaptureFixture,
) -> None:
    port = smtp()
    send(mailing(f"smtp://{ELSEWHERE}:{port}"))
    assert told(caplog) == [("mail.delayed", 1)]
    assert inbox.asked == 0
    send(mailing(f"smtp://{ELSEWHERE}:{port}?starttls=never"))
    assert len(inbox.taken) == 1


def test_the_certificate_of_another_machine_is_verified(
    mailing: Callable[..., Flask],
    smtp: Callable[..., int],
    inbox: Inbox,
    tls: ssl.SSLContext,
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    port = smtp(tls_context=tls, authenticator=knows)
    url = f"smtp://{LOGIN}{ELSEWHERE}:{port}"
    send(mailing(url))
    assert told(caplog) == [("mail.delayed", 1)]
    assert inbox.asked == 0
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    send(mailing(url))
    [(encrypted, user, _)] = inbox.taken
    assert (encrypted, user) == (True, b"mail@id.example")


def test_no_password_goes_to_another_machine_unencrypted(
    mailing: Callable[..., Flask],
    smtp: Callable[..., int],
    inbox: Inbox,
    caplog: pytest.LogCaptureFixture,
) -> None:
    port = smtp(authenticator=knows, auth_require_tls=False)
    send(mailing(f"smtp://{LOGIN}{ELSEWHERE}:{port}?starttls=never"))
    assert told(caplog) == [("mail.delayed", 1)]
    assert inbox.taken == []


# --- servers that do not take it ---


@pytest.mark.parametrize(
    ("replies", "outcome"),
    [
        (["550 5.1.1 <alice@example.com>: no such user"], ["failed"]),
        (["451 4.7.1 <alice@example.com>: later"], ["delayed", "sent"]),
        (["451 later", "421 later"], ["delayed", "delayed", "sent"]),
        (["451 later", "550 never"], ["delayed", "failed"]),
        (["451 <alice@example.com>: later"] * 7, ["delayed"] * 7 + ["sent"]),
    ],
)
def test_a_refusal_is_final_or_tried_again_as_its_code_says(
    mailing: Callable[..., Flask],
    smtp: Callable[..., int],
    inbox: Inbox,
    caplog: pytest.LogCaptureFixture,
    travel: Callable[..., None],
    replies: list[str],
    outcome: list[str],
) -> None:
    inbox.replies = list(replies)
    app = mailing(f"smtp://127.0.0.1:{smtp()}")
    send(app)
    for _ in outcome:
        travel(minutes=10)
        again(app)
    assert told(caplog) == [(f"mail.{each}", tries) for tries, each in enumerate(outcome, 1)]
    assert inbox.asked == len(outcome)
    assert len(inbox.taken) == (outcome[-1] == "sent")


def test_the_pauses_between_attempts_grow(
    mailing: Callable[..., Flask],
    smtp: Callable[..., int],
    inbox: Inbox,
    travel: Callable[..., None],
) -> None:
    inbox.replies = ["451 later"] * 100
    app = mailing(f"smtp://127.0.0.1:{smtp()}")
    send(app)
    for tries, pause in enumerate(mailer.PAUSES, 1):
        travel(seconds=pause - 2)
        again(app)
        assert inbox.asked == tries
        travel(seconds=2)
        again(app)
        assert inbox.asked == tries + 1


def test_what_no_server_takes_for_24_hours_is_given_up_and_logged(
    mailing: Callable[..., Flask],
    smtp: Callable[..., int],
    inbox: Inbox,
    caplog: pytest.LogCaptureFixture,
    travel: Callable[..., None],
) -> None:
    inbox.replies = ["451 later"] * 3
    app = mailing(f"smtp://127.0.0.1:{smtp()}")
    send(app)
    for hours in (1, 22.9, 0.2, 1):
        travel(hours=hours)
        again(app)
    outcome = ["mail.delayed"] * 3 + ["mail.failed"]
    assert told(caplog) == [(each, tries) for tries, each in enumerate(outcome, 1)]
    assert inbox.asked == 3


def test_a_message_keeps_its_id_when_it_is_tried_again(
    mailing: Callable[..., Flask],
    smtp: Callable[..., int],
    inbox: Inbox,
    travel: Callable[..., None],
) -> None:
    seen: list[str] = []

    async def refuse_twice(server: Any, session: Any, envelope: Envelope) -> str:
        seen.append(message_of(envelope)["Message-ID"])
        return "250 OK" if len(seen) == 3 else "451 later"

    inbox.handle_DATA = refuse_twice  # type: ignore[method-assign]
    app = mailing(f"smtp://127.0.0.1:{smtp()}")
    send(app)
    for _ in range(3):
        travel(minutes=10)
        again(app)
    assert len(seen) == 3
    assert len(set(seen)) == 1


def test_a_message_that_the_server_refuses_for_good_is_not_tried_again(
    mailing: Callable[..., Flask],
    smtp: Callable[..., int],
    inbox: Inbox,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def refuse(server: Any, session: Any, envelope: Envelope) -> str:
        return "554 looks like spam"

    inbox.handle_DATA = refuse  # type: ignore[method-assign]
    send(mailing(f"smtp://127.0.0.1:{smtp()}"))
    assert told(caplog) == [("mail.failed", 1)]


def test_what_an_operator_can_mend_loses_no_mail(
    mailing: Callable[..., Flask],
    smtp: Callable[..., int],
    inbox: Inbox,
    caplog: pytest.LogCaptureFixture,
    travel: Callable[..., None],
) -> None:
    port = smtp(authenticator=knows, auth_require_tls=False)
    send(mailing(f"smtp://alice@example.com:hunter2@127.0.0.1:{port}"))
    assert told(caplog) == [("mail.delayed", 1)]
    travel(minutes=10)
    again(mailing(f"smtp://{LOGIN}127.0.0.1:{port}"))  # the service starts with a right password
    assert len(inbox.taken) == 1


def test_a_dead_server_delays_mail_and_is_named_in_the_log(
    mailing: Callable[..., Flask], caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    send(mailing(f"smtp://alice@example.com:hunter2@127.0.0.1:{port}"))
    assert told(caplog) == [("mail.delayed", 1)]
    assert caplog.records[-1].__dict__["reason"] == "ConnectionRefusedError"


class Odd:
    """A server that treats each connection in a way of its own."""

    def __init__(self, treat: Callable[[socket.socket], None]) -> None:
        self._treat = treat
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._taken: list[socket.socket] = []
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with suppress(OSError):
            while True:
                self._taken.append(self._listener.accept()[0])
                threading.Thread(target=self._one, args=self._taken[-1:], daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with suppress(OSError):
            self._treat(connection)

    @property
    def count(self) -> int:
        """How many have come."""
        return len(self._taken)

    def close(self) -> None:
        """Take nobody more, and hang up on all."""
        with suppress(OSError):  # this wakes who waits in accept(); not everywhere
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(30)
        for each in (self._listener, *self._taken):
            each.close()


@pytest.fixture
def odd() -> Iterator[Callable[[Callable[[socket.socket], None]], Odd]]:
    """A function that starts an odd server."""
    started: list[Odd] = []

    def start(treat: Callable[[socket.socket], None]) -> Odd:
        started.append(Odd(treat))
        return started[-1]

    yield start
    for server in started:
        server.close()


def says_nothing(connection: socket.socket) -> None:
    """Accept, and be frozen."""


def drips(connection: socket.socket) -> None:
    """Say one character at a time, for ever, fast enough for every time-out of a socket."""
    while True:
        connection.sendall(b"2")
        threading.Event().wait(0.02)


def babbles(connection: socket.socket) -> None:
    """Go on with one reply for ever."""
    while True:
        connection.sendall(b"220-and\r\n")
        threading.Event().wait(0.02)


@pytest.mark.parametrize("treat", [says_nothing, drips, babbles])
@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_a_try_ends_in_time_whatever_the_server_does(
    mailing: Callable[..., Flask],
    odd: Callable[..., Odd],
    caplog: pytest.LogCaptureFixture,
    treat: Callable[[socket.socket], None],
    scheme: str,
) -> None:
    server = odd(treat)
    app = mailing(f"{scheme}://127.0.0.1:{server.port}")
    service_of(app).mailer.patience = 0.2
    started = time.monotonic()
    send(app)
    assert time.monotonic() - started < 5
    assert told(caplog) == [("mail.delayed", 1)]
    assert server.count == 1


def test_a_server_that_hangs_up_after_it_took_the_message_gets_it_once(
    mailing: Callable[..., Flask], odd: Callable[..., Odd], caplog: pytest.LogCaptureFixture
) -> None:
    def take(connection: socket.socket) -> None:
        lines = connection.makefile("rwb", buffering=0)
        lines.write(b"220 hello\r\n")
        for line in iter(lines.readline, b""):
            if line.upper() == b"DATA\r\n":
                lines.write(b"354 go on\r\n")
                while lines.readline() != b".\r\n":
                    pass
                lines.write(b"250 taken\r\n")
                connection.shutdown(socket.SHUT_RDWR)
                return
            lines.write(b"250 fine\r\n")

    server = odd(take)
    send(mailing(f"smtp://127.0.0.1:{server.port}"))
    assert told(caplog) == [("mail.sent", 1)]
    assert server.count == 1


def test_sending_takes_no_time_while_the_server_hangs(
    mailing: Callable[..., Flask], odd: Callable[..., Odd]
) -> None:
    app = mailing(f"smtp://127.0.0.1:{odd(says_nothing).port}")
    service = service_of(app)
    service.mailer.patience = 0.5
    started = time.thread_time()
    with service.active():
        for number in range(5):
            about = {"user_id": None, "about": str(number), **VALUES["reset"]}
            mailer.send("alice@example.com", "reset", **about)
        release(service.database)
    assert time.thread_time() - started < 0.5
    service.mailer.patience = 0.001


def test_requests_have_the_only_connection_while_the_server_hangs(
    mailing: Callable[..., Flask], odd: Callable[..., Odd]
) -> None:
    server = odd(says_nothing)
    app = mailing(f"smtp://127.0.0.1:{server.port}", database_pool_size=1)
    service = service_of(app)
    with service.active():
        mailer.send("alice@example.com", "reset", user_id=None, **VALUES["reset"])
        release(service.database)
        until(lambda: server.count)
        assert User.select().count() == 0
        release(service.database)
    assert not service.sender.join(0)  # it still waits for the server
    server.close()


def test_the_end_of_the_process_waits_for_no_further_attempt(
    mailing: Callable[..., Flask], caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    app = mailing(f"smtp://127.0.0.1:{port}")
    for _ in range(3):
        send(app)
    service_of(app).sender.close()
    assert service_of(app).sender.join(0)
    assert told(caplog) == [("mail.delayed", 1)] * 3


@pytest.mark.slow
def test_a_command_sends_its_mail_before_it_exits(
    tree: Path, database_url: str, smtp: Callable[..., int], inbox: Inbox
) -> None:
    script = f"""
from backend.app import create_app
from backend.mail import mailer
from backend.db.database import release
app = create_app()
with app.extensions["backend"].active():
    values = {{"username": "alice", "link": {LINK!r}, "valid_for": "an hour"}}
    mailer.send("alice@example.com", "reset", user_id=None, **values)
"""
    settings = {"mail_url": f"smtp://127.0.0.1:{smtp()}", "database_url": database_url}
    done = run(tree, "python", "-c", script, **settings)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len(inbox.taken) == 1
