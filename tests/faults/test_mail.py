"""Servers that are killed while they send mail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ..support.concurrency import until
from ..support.long_runs import FULL
from ..support.mail import Inbox
from ..support.outbox import LATER, SECRET, Killed
from .load import in_full

pytestmark = pytest.mark.filterwarnings("ignore:::aiosmtpd")

COUNT = 1000 if FULL else 100
KILLS = 10 if FULL else 4


@pytest.mark.parametrize("engine", ["sqlite", pytest.param("postgres", marks=in_full)])
def test_no_mail_is_lost_by_killing_servers_that_are_sending(
    engine: str,
    url_on: Callable[[str], str],
    app_on: Callable[..., Any],
    tree: Path,
    tmp_path: Path,
    smtp: Callable[..., int],
    inbox: Inbox,
    figure: Callable[[str, str], None],
) -> None:
    killed = Killed(app_on(url_on(engine), secret_key=SECRET), tree, tmp_path, smtp())
    each = COUNT // KILLS
    for number in range(KILLS):
        with killed.start("wsgi.py") as server:
            killed.invite(server, range(number * each, (number + 1) * each))
    figure("mails sent before the last kill", f"{len(inbox.taken)} of {COUNT}")
    with killed.start("-c", LATER):
        until(lambda: set(inbox.recipients) == killed.invited, 120)
    twice = [name for name, times in Counter(inbox.recipients).items() if times > 1]
    figure("sent twice, by that many kills", f"{len(twice)}, {KILLS}")
    assert len(killed.invited) == COUNT
    assert len(twice) <= KILLS  # killed between the server's answer and the note of it
