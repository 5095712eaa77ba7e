"""An SMTP server on this machine, and the mail that was sent."""

from __future__ import annotations

import email
import re
from email.message import EmailMessage
from email.policy import default
from typing import Any

from aiosmtpd.smtp import Envelope, Session
from flask.testing import FlaskClient

from .apps import service_of, settle


class Inbox:
    """What a server has taken: (whether encrypted, who signed in, envelope) each."""

    def __init__(self) -> None:
        self.taken: list[tuple[bool, Any, Envelope]] = []
        self.replies: list[str] = []  # to the next recipients, in place of "250 OK"
        self.asked = 0

    @property
    def recipients(self) -> list[str]:
        """To whom the messages went."""
        return [address for *_, envelope in self.taken for address in envelope.rcpt_tos]

    async def handle_RCPT(
        self, server: Any, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        self.asked += 1
        if self.replies:
            return self.replies.pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Session, envelope: Envelope) -> str:
        self.taken.append((session.ssl is not None, session.auth_data, envelope))
        return "250 OK"


def message_of(envelope: Envelope) -> EmailMessage:
    """The message as it went over the wire."""
    assert isinstance(envelope.content, bytes)
    message = email.message_from_bytes(envelope.content, policy=default)
    assert isinstance(message, EmailMessage)
    return message


def mails_of(client: FlaskClient) -> list[EmailMessage]:
    """Return all mail that the client's app has sent so far, in order."""
    settle(client.application)
    return list(service_of(client.application).mailer.outbox)


def token_in(message: EmailMessage) -> str:
    """Return the token of the only link in a mail."""
    text = message.get_body(("plain",)).get_content()
    [token] = re.findall(r"#token=(\S+)", text)
    return token
