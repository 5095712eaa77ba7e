"""The command line, `flask --app wsgi`: helpers, and the commands that belong to no subject.

A user's mistake is reported as a sentence on stderr with exit code 1, never as a traceback.
Secrets come from a prompt or standard input, never from arguments, which other users can see.
Skip it on a first reading.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

import click
from flask import Flask
from flask.cli import FlaskGroup

from ..core.settings import SettingsError
from . import db, mail, template
from .common import fail
from .prune import prune

COMMANDS: tuple[click.Command, ...] = (
    db.group,
    mail.group,
    prune,
    template.new,
    template.rename,
)

# It can create the key file without which an app refuses to start.
_WORKS_WITHOUT_APP = "tokens"


def is_command() -> bool:
    """Return True while one of our commands runs, and False under `flask run`, which serves."""
    context = click.get_current_context(silent=True)
    return context is not None and isinstance(context.command, FlaskGroup)


def init_app(app: Flask, commands: Iterable[click.Command]) -> None:
    """Add the commands to the app's command line."""
    for command in commands:
        app.cli.add_command(command)


def refusing_app(refusal: SettingsError, commands: Iterable[click.Command]) -> Flask:
    """Return an app that cannot serve, and whose commands report why, as doctor would."""

    def refuse(rest: Any) -> NoReturn:
        fail(*refusal.problems, word="fatal")

    def refusing(name: str | None) -> click.Command:
        anything = {"ignore_unknown_options": True, "allow_extra_args": True}
        rest = click.Argument(["rest"], nargs=-1, type=click.UNPROCESSED)
        return click.Command(name, callback=refuse, params=[rest], context_settings=anything)

    app = Flask(__name__)
    for each in commands:
        app.cli.add_command(each if each.name == _WORKS_WITHOUT_APP else refusing(each.name))
    return app
