"""`flask db`: the database and its migrations. Skip it on a first reading."""

from __future__ import annotations

from pathlib import Path

import click
from flask.cli import AppGroup

from .. import services
from ..db import backup as backups
from ..db import migrations, schema_check
from .common import fail, inside, say

group = AppGroup("db", help="The database and its migrations.")


@group.command()
@inside
def upgrade() -> None:
    """Apply all pending migrations. Safe to run in several processes at the same time."""
    database = services.current().database
    done = migrations.upgrade(database)
    for name in done:
        say(f"applied {name}")
    if faults := schema_check.faults(database):
        fail(*faults)
    if not done:
        say("The database is up to date.")


@group.command(context_settings={"ignore_unknown_options": True})
@click.argument("target", default="-1")
@inside
def downgrade(target: str) -> None:
    """Undo migrations until TARGET is the newest; the default, -1, undoes one."""
    for name in migrations.downgrade(services.current().database, target):
        say(f"undone {name}")


@group.command()
@click.option("-m", "--message", required=True, help="Becomes the file's name and first line.")
@inside
def revision(message: str) -> None:
    """Write a migration that adapts the database to the models. Review it before you use it."""
    path = migrations.revision(services.current().database, message)
    say(f"written {path}" if path else "The models match the migrations.")


@group.command()
@inside
def current() -> None:
    """Print the newest applied migration."""
    done = migrations.applied(services.current().database)
    say(done[-1] if done else "none")


@group.command()
@inside
def history() -> None:
    """List all migrations; an x marks the applied ones."""
    done = set(migrations.applied(services.current().database))
    for name in migrations.known():
        say(f"[{'x' if name in done else ' '}] {name}")


@group.command()
@click.argument("name")
@inside
def stamp(name: str) -> None:
    """Record NAME and all before it as applied, without running them; "none" clears the record."""
    migrations.stamp(services.current().database, name)
    say(f"stamped {name}")


@group.command()
@inside
def check() -> None:
    """Fail if the models differ from the migrations."""
    difference = migrations.drift(services.current().database)
    if difference:
        click.echo(difference)  # many lines of Python, generated from the models
        fail("the models differ from the migrations; `flask db revision` writes what is missing.")
    say("The models match the migrations.")


@group.command()
@click.argument("file", type=click.Path(path_type=Path))
@inside
def backup(file: Path) -> None:
    """Copy the database, which may be in use, to a new FILE. On PostgreSQL this runs pg_dump."""
    backups.backup(services.current().database, file)
    say(f"written {file}")


@group.command()
@inside
def verify() -> None:
    """Read the whole database and fail if it is damaged."""
    faults = backups.verify(services.current().database)
    if faults:
        fail(*faults)
    say("The database is sound.")
