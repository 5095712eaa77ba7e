"""`flask prune`: all background maintenance at once. Skip it on a first reading."""

from __future__ import annotations

import click
from flask.cli import with_appcontext

from .. import services
from ..background.maintenance import HOURLY_BATCH, until_done
from ..core.words import counted
from .common import inside, say


@click.command()
@with_appcontext
@inside
def prune() -> None:
    """Delete expired rows: sessions, throttles, audit events past their retention, and others.

    Also run the hourly tasks: disable unused keys, notify the owners of keys that expire soon.
    Servers do all this in small batches while they receive requests.
    """
    subjects = services.current().subjects
    deleted = until_done(task for each in subjects for task in each.maintenance)
    say(f"{counted(sum(deleted.values()), 'row')} deleted.")
    hourly = until_done((task for each in subjects for task in each.hourly), HOURLY_BATCH)
    for name, count in hourly.items():
        say(f"{name.replace('_', ' ')}: {count}")
