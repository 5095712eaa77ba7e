"""The commands of `flask --app wsgi`: thin wrappers around services. Skip it on a first reading.

A user's mistake is reported in a sentence on stderr with exit code 1, never as a traceback.
Secrets come from a prompt or standard input, never from arguments, which other users can see.
"""

from __future__ import annotations

from typing import Any, NoReturn

import click
from flask import Flask
from flask.cli import FlaskGroup

from ..core.settings import SettingsError
from . import audit, db, keys, mail, tokens, upkeep, users
from .common import fail

COMMANDS: tuple[click.Command, ...] = (
    db.group,
    users.group,
    keys.group,
    audit.group,
    mail.group,
    tokens.group,
    upkeep.prune,
    upkeep.doctor,
)


def is_command() -> bool:
    """True inside one of our commands; False in Flask's own serving ones, such as `flask run`."""
    context = click.get_current_context(silent=True)
    return context is not None and isinstance(context.command, FlaskGroup)


def init_app(app: Flask) -> None:
    """Add the commands to the app's command line."""
    for command in COMMANDS:
        app.cli.add_command(command)


def refusing_app(refusal: SettingsError) -> Flask:
    """Return an app that cannot serve: each of its commands says why, as doctor would.

    Only `flask tokens` works: it creates the file without which an app may refuse to start.
    """
    app = Flask(__name__)

    def refuse(rest: Any) -> NoReturn:
        fail(*refusal.problems, word="fatal")

    for name in (each.name for each in COMMANDS if each is not tokens.group):
        anything = {"ignore_unknown_options": True, "allow_extra_args": True}
        rest = click.Argument(["rest"], nargs=-1, type=click.UNPROCESSED)
        command = click.Command(name, callback=refuse, params=[rest], context_settings=anything)
        app.cli.add_command(command)
    app.cli.add_command(tokens.group)
    return app
