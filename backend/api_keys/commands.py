"""`flask keys`: API keys. Skip it on a first reading."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from string import Template
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import click
from flask.cli import AppGroup

from ..cli.common import every_row, fail, inside, load, print_json, say
from ..core import context
from ..core.identity import CONSOLE
from ..crypto import keyring
from ..users import service as users
from . import queries, revocation
from . import service as keys
from .schemas import ApiKeySchema, CreateKeySchema

group = AppGroup("keys", help="API keys.")


@group.command("create")
@click.argument("owner")
@click.argument("name")
@click.option("--scope", "scopes", multiple=True, help="A scope of the key; repeatable.")
@click.option("--expires-in-days", type=int, help="1 to 3650; by default, the key does not expire.")
@inside
def create_key(owner: str, name: str, scopes: tuple[str, ...], expires_in_days: int | None) -> None:
    """Create a key for the account OWNER. Its text is printed once, and not stored."""
    wanted: dict[str, Any] = {"name": name, "scopes": list(scopes)}
    wanted |= {"expires_in_days": expires_in_days} if expires_in_days is not None else {}
    key = keys.issue(
        CONSOLE, **load(CreateKeySchema(), wanted), owner_id=users.get_by_name(owner).id
    )
    say(key.key)


@group.command("list")
@click.option(
    "--unused-since", type=click.DateTime(["%Y-%m-%d"]), help="Only keys not used since this day."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@inside
def list_keys(unused_since: datetime | None, *, as_json: bool) -> None:
    """List all keys, newest first."""
    since = unused_since and unused_since.replace(tzinfo=UTC)
    for key in every_row(queries.list_keys, owner_id="any", unused_since=since):
        if as_json:
            print_json(ApiKeySchema(), key)
        else:
            used = f"{key.last_used_at:%Y-%m-%d}" if key.last_used_at else "never used"
            say(f"{key.id}  {key.hint:<24} {key.status:<8} {used:<10}  {key.name}")


@group.command()
@click.argument("key_id", type=click.UUID)
@click.option("--cascade", is_flag=True, help="Also revoke all keys that were made with it.")
@inside
def revoke(key_id: UUID, *, cascade: bool) -> None:
    """Revoke a key permanently."""
    revocation.revoke(CONSOLE, key_id, cascade=cascade)


@group.command("check")
def check_text() -> None:
    """Find API keys in a text on standard input, such as a log or a diff. Works offline.

    Prints the line number and hint of each key with a valid checksum. Exit code 1 if there is none.
    """
    found = False
    for number, line in enumerate(sys.stdin.buffer, 1):
        for key in keyring.find_api_keys(line.decode("latin-1")):  # which decodes any bytes
            say(f"line {number}: {keyring.hint(key)}")
            found = True
    if not found:
        fail("there is no API key in that text: none with the right form and checksum.")


# No `secretGroup` or `entropy`: scanners derived from gitleaks refuse unknown members, and all of
# them take the pattern's only group as the secret.
_RULES = Template(r"""
[extend]
useDefault = true

[[rules]]
id = "$prefix-api-key"
description = "API key of $host"
regex = '''(?:^|[^0-9A-Za-z])(${prefix}_[0-9A-Za-z]{38})\b'''
keywords = ["${prefix}_"]

[[rules]]
id = "$prefix-token"
description = "Refresh token, or link from a mail, of $host"
regex = '''(?:^|[^0-9A-Za-z])(${prefix}[rpem]_[A-Za-z0-9_-]{27,38}\.[A-Za-z0-9_-]{43})\b'''
keywords = ["${prefix}r_", "${prefix}p_", "${prefix}e_", "${prefix}m_"]
""")


@group.command("scanner-rules")
@inside
def scanner_rules() -> None:
    """Print gitleaks rules (TOML) with which secret scanners find our keys, tokens and links."""
    settings = context.settings()
    host = urlsplit(settings.public_url).hostname
    click.echo(_RULES.substitute(prefix=settings.api_key_prefix, host=host).strip())
