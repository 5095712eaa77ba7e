"""`flask tokens`: the keys that sign access tokens; `flask users set-password`.

Skip it on a first reading.
"""

from __future__ import annotations

import click
from flask import current_app
from flask.cli import AppGroup

from ..cli.common import fail, inside, read_password, say
from ..core.identity import CONSOLE
from ..core.settings import Settings, SettingsError
from ..crypto import signing_keys
from ..services import Services
from ..throttling import service as throttling
from ..users import passwords
from ..users import service as users
from ..users.commands import group as users_group

group = AppGroup("tokens", help="The key pairs that sign access tokens.")


@group.command()
@click.option("--promote", is_flag=True, help="Move the last key to the front, so that it signs.")
@click.option("--drop-others", is_flag=True, help="Remove all keys except the first, which signs.")
def rotate_key(*, promote: bool, drop_others: bool) -> None:
    """Add a new key to JWT_PRIVATE_KEY_FILE; each step says what to do next."""
    if promote and drop_others:
        raise click.UsageError("--promote and --drop-others are two steps; wait between them.")
    act = signing_keys.drop_others if drop_others else signing_keys.add
    act = signing_keys.promote if promote else act
    service: Services | None = current_app.extensions.get(
        "backend"
    )  # None if the settings were refused
    try:
        settings = service.settings if service else Settings.load()
        keys = act(settings)
    except SettingsError as refusal:
        fail(*refusal.problems)
    except OSError as error:
        fail(f"JWT_PRIVATE_KEY_FILE cannot be written: {error.strerror}.")
    for key in keys:
        say(signing_keys.thumbprint(key))
    if promote:
        wait = settings.jwt_access_token_expire_minutes + 1
        say(
            "The first of these keys signs once all processes are restarted; restart them now."
            f" {wait} minutes later, run this with --drop-others."
        )
    elif len(keys) > 1:
        say(
            "The last of these keys is new. Restart all processes now; after 5 minutes, when caches"
            " of /.well-known/jwks.json have it, run this with --promote."
        )
    else:
        say("Only this key signs and verifies once all processes are restarted.")


@users_group.command()
@click.argument("username")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@inside
def set_password(username: str, *, password_stdin: bool) -> None:
    """Set a password, end all sessions of the account, and forget its failed sign-ins."""
    user = users.get_by_name(username)
    passwords.set_password(CONSOLE, user, read_password(stdin=password_stdin))
    throttling.clear_failures(user)
