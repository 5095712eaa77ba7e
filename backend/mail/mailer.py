"""Mail: stored in the transaction that requests it, and sent after the commit.

The templates are in config/mail/. The log names the template and the user's id, never the
recipient, the link, or the password of MAIL_URL. Skip it on a first reading.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import sys
from collections import deque
from collections.abc import Callable
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import idna
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from ..core import clock, context
from ..core.logs import printable
from ..core.paths import DATA
from ..core.settings import Settings
from ..db.database import release
from . import outbox, smtp
from .models import Mail

log = logging.getLogger(__name__)

_LINKED = re.compile("[.:/\u3002\uff0e\uff61]")  # in URLs; domains can have four kinds of dot
PAUSES = (5, 15, 45, 135, 405, 600)  # seconds between attempts; the last one repeats

# (template, user id, stored values) -> the values for the template; None if it is too late
Complete = Callable[[str, UUID | None, dict[str, Any]], dict[str, Any] | None]


def enabled() -> bool:
    """Return whether MAIL_URL is set."""
    return bool(context.settings().mail_url)


def link(token: str) -> str:
    """Return the address of the page for the token. The part after the # reaches no server."""
    return f"{context.settings().password_url}#token={token}"


def send(to: str, template: str, *, user_id: UUID | None, about: str = "", **values: Any) -> None:
    """Mail the template, filled with `values`, once the open transaction is committed.

    It replaces a waiting mail to the user with the same template and the same `about`. This does
    not wait for a server, and does nothing without MAIL_URL. `values` are stored until then, so
    they must not contain secrets: links are created when the mail is sent.
    """
    if not enabled():
        log.info("mail.skipped", extra={"template": template})
        return
    service = context.required()
    outbox.put(to, f"{template} {about}".rstrip(), user_id, values)
    service.database.after_commit(service.sender.wake)


def send_to(user: Any, template: str, **values: Any) -> None:
    """Like `send`, to the address of this user, with their name in the template."""
    send(user.email, template, user_id=user.id, username=user.username, **values)


class Mailer:
    """Writes messages, and sends them as MAIL_URL says.

    `patience` is the maximum number of seconds for an attempt. `outbox` has the newest messages
    that were sent to `memory:`. `complete` turns the stored values into those for the template.
    """

    def __init__(self, settings: Settings, complete: Complete) -> None:
        self.patience = 10.0
        self.outbox: deque[EmailMessage] = deque(maxlen=1000)
        self._settings = settings
        self._complete = complete
        ways = {"console:": _print, "memory:": self.outbox.append}
        self._deliver: Callable[[EmailMessage], None] = ways.get(settings.mail_url, self._transfer)
        self._templates = Environment(
            loader=FileSystemLoader(DATA / "config" / "mail"),
            undefined=StrictUndefined,
            autoescape=select_autoescape(["html"]),
            trim_blocks=True,
        )

    @property
    def smtp_server(self) -> str:
        """The host of MAIL_URL; empty if it names no server."""
        return urlsplit(self._settings.mail_url).hostname or ""

    def probe(self, seconds: float) -> None:
        """Check that the server accepts our connection and password. Raises smtp.NotSent."""
        smtp.probe(self._settings.mail_url, name=_domain(self._host), seconds=seconds)

    def send_now(self, to: str, template: str, **values: Any) -> None:
        """Send a mail in one attempt, without the outbox. Raises ValueError or smtp.NotSent."""
        mail, now = Mail(recipient=to, kind=template), clock.now()
        message = self._without_text(mail, now)
        self._write(message, template, now, values)
        self._deliver(message)

    def send_due(self, may_go_on: Callable[[], bool]) -> float:
        """Send all due mail; return the seconds until there may be more."""
        while enabled() and may_go_on():
            mail = outbox.take()
            if not isinstance(mail, Mail):
                return mail
            self._attempt(mail)
        return outbox.POLL_SECONDS

    def _attempt(self, mail: Mail) -> None:
        """Try to send the mail, and log the result."""
        who = str(mail.user_id) if mail.user_id else None
        facts = {"template": mail.template, "user_id": who, "tries": mail.attempts}
        values = self._complete(mail.template, mail.user_id, mail.values)
        if values is None:
            outbox.remove(mail)
            log.info("mail.dropped", extra=facts | {"reason": "its link can no longer be valid"})
            return
        fault = self._fault(mail, values)
        if fault is None:
            outbox.remove(mail)
            log.info("mail.sent", extra=facts)
        elif fault.final:
            outbox.remove(mail)
            log.error("mail.failed", extra=facts | {"reason": fault.reason})
        else:
            outbox.put_back(mail, PAUSES[min(mail.attempts, len(PAUSES)) - 1])
            log.warning("mail.delayed", extra=facts | {"reason": fault.reason})

    def _fault(self, mail: Mail, values: dict[str, Any]) -> smtp.NotSent | None:
        """Send the mail; return the error, or None if it was sent."""
        now = clock.now()
        if now >= mail.expires_at:
            return smtp.NotSent("no attempt succeeded in time", final=True)
        try:
            message = self._without_text(mail, now)
        except ValueError:
            return smtp.NotSent("not an address", final=True)
        try:
            self._write(message, mail.template, now, values)
            release(context.required().database)  # requests may need it while the server is slow
            self._deliver(message)
        except smtp.NotSent as fault:
            return fault
        except Exception as error:  # perhaps an edited template, which can be fixed
            log.exception("a mail cannot be written")
            return smtp.NotSent(type(error).__name__, final=False)
        return None

    def _without_text(self, mail: Mail, at: datetime) -> EmailMessage:
        """Return a message with all headers but the subject; ValueError for a bad address."""
        domain = _domain(self._host)
        name, _, address = self._settings.mail_from.rpartition("<")
        sender = address.rstrip(">") or f"no-reply@{domain}"
        message = EmailMessage()
        message["From"] = Address(name.strip(' "'), *_parts(sender))
        message["To"] = Address("", *_parts(mail.recipient))
        message["Date"] = format_datetime(at)
        message["Message-ID"] = f"<{mail.id}@{domain}>"  # the same at each attempt
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: asks machines not to reply
        return message

    def _write(
        self, message: EmailMessage, template: str, at: datetime, values: dict[str, object]
    ) -> None:
        values = {
            **{name: _unlinked(name, value) for name, value in values.items()},
            "service": self._settings.service_name,
            "host": self._host,
            "at": f"{at:%Y-%m-%d %H:%M} UTC",
        }
        text = self._templates.get_template(f"{template}.txt").render(values)
        html = self._templates.get_template(f"{template}.html").render(values)
        subject, _, text = text.removeprefix("Subject:").partition("\n")
        message["Subject"] = " ".join(subject.split())
        message.set_content(f"{text.strip()}\n")
        message.add_alternative(html, subtype="html")

    def _transfer(self, message: EmailMessage) -> None:
        url, name = self._settings.mail_url, _domain(self._host)
        smtp.transfer(message, url, name=name, seconds=self.patience)

    @property
    def _host(self) -> str:
        return urlsplit(self._settings.public_url).hostname or ""


def _unlinked(name: str, value: Any) -> Any:
    """Return the value, or a substitute if mail clients would turn it into a link.

    Users choose these values, and quoting them does not keep mail clients from linking them.
    """
    if name in {"username", "key"} and _LINKED.search(value):
        return ""
    if name == "children":  # each is the name of a key with its hint, or how many more there are
        parted = [each.rpartition(" (") for each in value]
        return [
            f"({hint}" if _LINKED.search(key) else f"{key}{gap}{hint}" for key, gap, hint in parted
        ]
    if name == "new_email" and "/" in value:
        return "another address"
    return value


def _print(message: EmailMessage) -> None:
    """Write the message to standard error, not to the log, which would redact the link."""
    plain = message.get_body(("plain",))
    assert plain is not None
    text = f"To: {message['To']}\nSubject: {message['Subject']}\n\n{plain.get_content()}"
    sys.stderr.write("\n".join(map(printable, text.split("\n"))))
    sys.stderr.flush()


def _parts(address: str) -> tuple[str, str]:
    """Return local part and domain in ASCII (IDNA 2008). Raises ValueError for a bad address."""
    local, _, domain = address.rpartition("@")
    if not (local and local.isascii() and local.isprintable()):
        raise ValueError("not an e-mail address")
    return local, domain if domain.isascii() else _idna(domain)


def _domain(host: str) -> str:
    """Return the host as a mail domain: ASCII, with IPs in brackets (RFC 5321 section 4.1.3)."""
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return host if host.isascii() else _idna(host)
    return f"[{host}]" if version == 4 else f"[IPv6:{host}]"


def _idna(domain: str) -> str:
    return idna.encode(domain, uts46=True, std3_rules=True).decode()
