"""`flask users`: accounts. Skip it on a first reading."""

from __future__ import annotations

import secrets
import sys
from typing import Any

import click
from flask.cli import AppGroup

from ..cli.common import every_row, fail, inside, load, print_json, read_password, say
from ..core import context
from ..core.errors import Conflict
from ..core.identity import CONSOLE
from . import permissions
from . import service as users
from .schemas import RegisterSchema, UserSchema

group = AppGroup("users", help="Accounts.")


@group.command()
@inside
def bootstrap() -> None:
    """Create the first administrator, unless there is one."""
    if permissions.admins().exists():
        say("There is an administrator already.")
        return
    settings = context.settings()
    password = settings.admin_password
    if not password:
        if settings.strict and not sys.stdout.isatty():
            fail("ADMIN_PASSWORD is not set, and there is no terminal to show a generated one on.")
        password = secrets.token_urlsafe(18)
    account = {"username": settings.admin_username, "email": settings.admin_email}
    try:
        users.create(CONSOLE, **load(RegisterSchema(), account), password=password, role="admin")
    except Conflict:
        if not permissions.admins().exists():
            raise
        say("There is an administrator already.")  # another process has just created one
        return
    say(f"First administrator: {settings.admin_username}")
    if not settings.admin_password:
        say(f"Password:            {password}   (shown this once)")


@group.command()
@click.argument("username")
@click.argument("email", required=False)
@click.option("--admin", is_flag=True, help="Give the role admin.")
@click.option("--service", is_flag=True, help="A service account, which has no password.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@inside
def create(
    username: str, email: str | None, *, admin: bool, service: bool, password_stdin: bool
) -> None:
    """Create an account and print its id."""
    if service and password_stdin:
        raise click.UsageError("--service and --password-stdin: a service account has no password.")
    account: dict[str, Any] = {"username": username}
    account |= {"email": email} if email else {}
    account |= {"role": "admin"} if admin else {}
    account |= {"kind": "service"} if service else {"password": read_password(stdin=password_stdin)}
    say(users.create(CONSOLE, **load(RegisterSchema(), account)).id)


@group.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@inside
def list_users(*, as_json: bool) -> None:
    """List all accounts, newest first."""
    for user in every_row(users.list_users):
        if as_json:
            print_json(UserSchema(), user)
        else:
            state = "active" if user.is_active else "disabled"
            say(f"{user.id}  {user.username:<24} {user.role:<6} {user.kind:<8} {state}")


@group.command()
@click.argument("username")
@inside
def disable(username: str) -> None:
    """Disable an account: its sessions end permanently, and its keys stop working."""
    users.change(CONSOLE, users.get_by_name(username).id, is_active=False)


@group.command()
@click.argument("username")
@inside
def enable(username: str) -> None:
    """Enable an account; its keys work again."""
    users.change(CONSOLE, users.get_by_name(username).id, is_active=True)
