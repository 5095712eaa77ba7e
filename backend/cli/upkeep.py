"""`flask prune` and `flask doctor`. Skip it on a first reading."""

from __future__ import annotations

import click
from flask.cli import with_appcontext

from .. import services, upkeep
from ..api_keys import service as keys
from ..audit import chain
from ..auth import service as auth
from ..core.words import counted
from ..doctor import checks as installation
from ..mail import outbox
from ..mfa import service as mfa
from ..notices import service as notices
from .common import fail, inside, say


@click.command("prune")
@with_appcontext
@inside
def prune() -> None:
    """Delete expired rows: sessions, throttles, audit events past retention, and others.

    Also disable unused keys, and notify the owners of keys that expire soon. Running servers do
    this in small batches while they get requests; this command does it all in one go.
    """
    say(f"{counted(sum(iter(upkeep.prune, 0)), 'row')} deleted.")
    tended = 0
    while some := upkeep.tend():
        tended += some
    if tended:
        say(f"{counted(tended, 'key')} disabled or expiring soon.")


@click.command("doctor")
@with_appcontext
@inside
def doctor() -> None:
    """Report what is wrong or doubtful, and what to do. Exit code 1 if anything is fatal."""
    service = services.current()
    fatal, doubtful = installation.findings(service.settings, service.database)
    if not fatal:
        doubtful += _about_secrets() + chain.doubts() + notices.doubts() + outbox.doubts()
    doubtful += installation.servers(service)
    for sentence in doubtful:
        say(f"warning: {sentence}")
    if fatal:
        fail(*fatal, word="fatal")
    say(f"{counted(len(doubtful), 'warning')}, nothing fatal.")


def _about_secrets() -> list[str]:
    """Report what still needs an earlier SECRET_KEY, and what was made with one that is gone."""
    used = {
        "API key": keys.secrets_in_use(),
        "session": auth.secrets_in_use(),
        "second factor": mfa.secrets_in_use(),
    }
    present, *earlier = services.current().keyring.secret_ids
    result = []
    for number, secret_id in enumerate(earlier, 1):
        needed = [counted(ids[secret_id], thing) for thing, ids in used.items() if secret_id in ids]
        if needed:
            result.append(
                f"SECRET_KEY_FALLBACKS: number {number} is still needed by {', '.join(needed)};"
                " each moves to SECRET_KEY when it is used."
            )
    known = {present, *earlier, None}
    for thing, ids in used.items():
        lost = sum(count for secret_id, count in ids.items() if secret_id not in known)
        if lost:
            result.append(
                f"{counted(lost, thing)} cannot be used: made with a SECRET_KEY that is gone. If"
                " you still have it, add it to SECRET_KEY_FALLBACKS."
            )
    return result
