"""An SMTP server on this machine, and what it has taken."""

from __future__ import annotations

import email
import socket
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from email.policy import default
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import Envelope, Session


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


@pytest.fixture
def inbox() -> Inbox:
    """What the server of this test has taken."""
    return Inbox()


@pytest.fixture
def smtp(inbox: Inbox) -> Iterator[Callable[..., int]]:
    """A function that starts an SMTP server on this machine, at a port or any; its port."""
    started: list[Controller] = []

    def start(port: int = 0, **options: Any) -> int:
        with socket.create_server(("127.0.0.1", port)) as probe:
            port = probe.getsockname()[1]
        started.append(Controller(inbox, hostname="127.0.0.1", port=port, **options))
        started[-1].start()
        return port

    yield start
    for server in started:
        server.stop()
