"""A flood of forgotten passwords: no other mail is lost for it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count

import pytest

from ..support.apps import service_of
from ..support.concurrency import until
from ..support.load import CLIENTS, Client, drive, request
from ..support.long_runs import FULL, UNTHROTTLED, Site
from ..support.mail import Inbox
from ..support.people import add_user, sign_in
from ..support.servers import read

pytestmark = pytest.mark.filterwarnings("ignore:::aiosmtpd")

SECONDS = 30 if FULL else 8
INVITED = 100 if FULL else 20


def forgetting(numbers: Iterator[int]) -> Client:
    """A client that asks for links to addresses of no account."""
    for number in numbers:
        body = {"email": f"unknown{number}@example.com"}
        yield request("forgot", "POST", "/v1/auth/password/forgot", body=body)


@pytest.mark.parametrize("throttles", [UNTHROTTLED, {}], ids=["none", "default"])
def test_a_flood_of_forgotten_passwords_displaces_no_mail_of_others(
    make_site: Callable[..., Site],
    figure: Callable[[str, str], None],
    smtp: Callable[..., int],
    inbox: Inbox,
    throttles: dict[str, str],
) -> None:
    client, [server] = make_site(mail_url=f"smtp://127.0.0.1:{smtp()}", **throttles)
    service_of(client.application).sender.close()  # the mail is for the server to send
    add_user(client, "root", role="admin")
    root = sign_in(client, "root")
    headers = {**root.headers, "Content-Type": "application/json"}
    invited = [f"guest{number}@example.com" for number in range(INVITED)]
    numbers = count()
    with ThreadPoolExecutor(1) as pool, closing(server.connect()) as connection:
        plans = [forgetting(numbers) for _ in range(CLIENTS)]
        flood = pool.submit(lambda: list(drive(server.port, SECONDS, plans)))
        until(lambda: next(numbers) > 50)
        for email in invited:
            account = {"username": email.partition("@")[0], "email": email}
            connection.request("POST", "/v1/auth/register", json.dumps(account), headers)
            assert read(connection).status == 201
        assert flood.running()
        answers = flood.result()
    until(lambda: len(inbox.taken) >= INVITED)
    figure("asked a second", f"{len(answers) / SECONDS:,.0f}")
    assert {each.status for each in answers} == {202}
    assert Counter(inbox.recipients) == Counter(invited)
