"""Mail: after the commit, off the request's time, as config/mail/ words it.

Best effort: what the server does not take in a few tries is logged and lost. The log names the
template, never the recipient, the link, or the password of MAIL_URL.
"""

from __future__ import annotations

import ipaddress
import logging
import sys
from collections import deque
from collections.abc import Callable
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from urllib.parse import urlsplit

import idna
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from . import clock, context, smtp
from .logs import printable
from .paths import DATA
from .settings import Settings

log = logging.getLogger(__name__)


def enabled() -> bool:
    """True if there is a MAIL_URL."""
    return bool(context.settings().mail_url)


def link(token: str) -> str:
    """The address of the page that takes the token; what follows the # reaches no server."""
    return f"{context.settings().password_url}#token={token}"


def send(to: str, template: str, **values: object) -> None:
    """Mail the template, filled with `values`, once the open transaction is committed.

    At once if none is open, never if it is rolled back. Does not wait and does not raise; without
    MAIL_URL it does nothing.
    """
    if not enabled():
        log.info("mail.skipped", extra={"template": template})
        return
    service, at = context.service(), clock.now()

    def job() -> None:
        service.mailer.deliver(to, template, at, values)

    service.database.after_commit(lambda: service.jobs.submit(job))


class Mailer:
    """Writes messages and gives them to what MAIL_URL names.

    `patience` is how many seconds one try may take, `pauses` are the seconds between the tries;
    `outbox` holds the newest messages of `memory:`.
    """

    def __init__(self, settings: Settings) -> None:
        self.patience = 10.0
        self.pauses = (2.0, 10.0)
        self.outbox: deque[EmailMessage] = deque(maxlen=1000)
        self._settings = settings
        ways = {"console:": _print, "memory:": self.outbox.append}
        self._give: Callable[[EmailMessage], None] = ways.get(settings.mail_url, self._transfer)
        self._templates = Environment(
            loader=FileSystemLoader(DATA / "config" / "mail"),
            undefined=StrictUndefined,
            autoescape=select_autoescape(["html"]),
            trim_blocks=True,
        )

    def deliver(self, to: str, template: str, at: datetime, values: dict[str, object]) -> None:
        """Send the template, filled with `values` and with what all get, and log the outcome."""
        facts: dict[str, object] = {"template": template}
        try:
            message = self._envelope(to, at)
        except ValueError:
            log.warning("mail.failed", extra=facts | {"reason": "not an address"})
            return
        self._write(message, template, at, values)
        closing = context.service().jobs.closing
        for tries, pause in enumerate((*self.pauses, None), 1):
            facts["tries"] = tries
            try:
                self._give(message)
            except smtp.NotSent as fault:
                facts["reason"] = fault.reason
                if fault.final or pause is None or closing.wait(pause):
                    break
            else:
                log.info("mail.sent", extra=facts)
                return
        log.error("mail.failed", extra=facts)

    def _envelope(self, to: str, at: datetime) -> EmailMessage:
        """A message with all headers but the subject; ValueError if one cannot be written."""
        domain = _domain(self._host)
        name, _, address = self._settings.mail_from.rpartition("<")
        sender = address.rstrip(">") or f"no-reply@{domain}"
        message = EmailMessage()
        message["From"] = Address(name.strip(' "'), *_parts(sender))
        message["To"] = Address("", *_parts(to))
        message["Date"] = format_datetime(at)
        message["Message-ID"] = make_msgid(domain=domain)
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: let no machine answer
        return message

    def _write(
        self, message: EmailMessage, template: str, at: datetime, values: dict[str, object]
    ) -> None:
        values = {**values, "service": self._host, "at": f"{at:%Y-%m-%d %H:%M} UTC"}
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


def _print(message: EmailMessage) -> None:
    """Write the message to standard error; not to the log, which would redact the link."""
    plain = message.get_body(("plain",))
    assert plain is not None
    text = f"To: {message['To']}\nSubject: {message['Subject']}\n\n{plain.get_content()}"
    sys.stderr.write("\n".join(map(printable, text.split("\n"))))
    sys.stderr.flush()


def _parts(address: str) -> tuple[str, str]:
    """Local part and domain in ASCII (IDNA 2008); ValueError for what is no address."""
    local, _, domain = address.rpartition("@")
    if not (local and local.isascii() and local.isprintable()):
        raise ValueError("not an e-mail address")
    return local, domain if domain.isascii() else _idna(domain)


def _domain(host: str) -> str:
    """The host as a domain of mail: in ASCII, an address in brackets (RFC 5321 section 4.1.3)."""
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return host if host.isascii() else _idna(host)
    return f"[{host}]" if version == 4 else f"[IPv6:{host}]"


def _idna(domain: str) -> str:
    return idna.encode(domain, uts46=True, std3_rules=True).decode()
