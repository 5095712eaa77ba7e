"""`flask keys`: API keys."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import click
from flask.cli import AppGroup

from ..api_keys import service as keys
from ..api_keys.schemas import ApiKeySchema, CreateKeySchema
from ..core import tokens
from ..core.identity import CONSOLE
from .common import every_row, fail, inside, load, print_json, user_called

group = AppGroup("keys", help="API keys.")


@group.command("create")
@click.argument("owner")
@click.argument("name")
@click.option("--scope", "scopes", multiple=True, help="What the key may do; repeatable.")
@click.option("--expires-in-days", type=int, help="1 to 3650; without it the key does not expire.")
@inside
def create_key(owner: str, name: str, scopes: tuple[str, ...], expires_in_days: int | None) -> None:
    """Create a key for the account OWNER. Its text is printed, this once."""
    wanted: dict[str, Any] = {"name": name, "scopes": list(scopes)}
    wanted |= {"expires_in_days": expires_in_days} if expires_in_days is not None else {}
    key = keys.issue(CONSOLE, **load(CreateKeySchema, wanted), owner_id=user_called(owner).id)
    click.echo(key.key)


@group.command("list")
@click.option("--unused-since", type=click.DateTime(["%Y-%m-%d"]), help="Not used since that day.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@inside
def list_keys(unused_since: datetime | None, *, as_json: bool) -> None:
    """List all keys, newest first."""
    since = unused_since and unused_since.replace(tzinfo=UTC)
    for key in every_row(keys.listing, owner_id="any", unused_since=since):
        if as_json:
            print_json(ApiKeySchema(), key)
        else:
            used = f"{key.last_used_at:%Y-%m-%d}" if key.last_used_at else "never used"
            click.echo(f"{key.id}  {key.hint:<24} {key.status:<8} {used:<10}  {key.name}")


@group.command()
@click.argument("key_id", type=click.UUID)
@inside
def revoke(key_id: UUID) -> None:
    """Revoke a key, for good."""
    keys.revoke(CONSOLE, key_id)


@group.command("check")
def check_key() -> None:
    """Read a text from standard input and tell whether it has the form of a key. Asks nobody."""
    if not tokens.is_api_key(sys.stdin.readline().strip()):
        fail("that is not the text of an API key: its form or its checksum is wrong.")
    click.echo("That has the form of an API key, and its checksum is right.")
