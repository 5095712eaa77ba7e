"""The commands of `flask --app wsgi`: thin, they call services.

What a person got wrong is told in a sentence on stderr with exit code 1, never as a traceback.
Secrets come by prompt or standard input, never as arguments, which other users of the machine see.
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
    """True inside of one of our commands; not in those of Flask that serve, such as `flask run`."""
    context = click.get_current_context(silent=True)
    return context is not None and isinstance(context.command, FlaskGroup)


def init_app(app: Flask) -> None:
    """Add the commands to the app's command line."""
    for command in COMMANDS:
        app.cli.add_command(command)


def refusing_app(refusal: SettingsError) -> Flask:
    """An app that cannot serve: each of its commands says why, as doctor would.

    Those on tokens work: one of them makes the file without which an app may refuse to start.
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
