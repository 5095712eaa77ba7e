"""`flask prune` and `flask doctor`."""

from __future__ import annotations

import click
from flask.cli import with_appcontext

from .. import upkeep
from ..api_keys import service as keys
from ..audit import chain
from ..auth import service as auth
from ..core import context
from ..core import doctor as installation
from ..mfa import service as mfa
from ..notices import service as notices
from .common import fail, inside


@click.command("prune")
@with_appcontext
@inside
def prune() -> None:
    """Delete what means nothing any more: expired sessions, throttles, audit beyond retention.

    The servers do so little by little; this does it all at once.
    """
    pruned = 0
    while some := upkeep.prune():
        pruned += some
    click.echo(f"{pruned} rows deleted.")


@click.command("doctor")
@with_appcontext
@inside
def doctor() -> None:
    """Tell what is wrong or doubtful, and what to do about it. Exit code 1 if anything is fatal."""
    service = context.service()
    fatal, doubtful = installation.findings(service.settings, service.database)
    if not fatal:
        for each in (auth, mfa, keys, chain, notices):
            doubtful += each.doubts()
    for sentence in doubtful:
        click.echo(f"warning: {sentence}")
    if fatal:
        fail(*fatal, word="fatal")
    click.echo(f"{len(doubtful)} warnings, nothing fatal.")
