"""`flask keys`: API keys."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from string import Template
from typing import Any, BinaryIO
from urllib.parse import urlsplit
from uuid import UUID

import click
from flask.cli import AppGroup
from marshmallow import ValidationError

from ..api_keys import service as keys
from ..api_keys.schemas import ApiKeySchema, CreateKeySchema, ImportKeySchema
from ..core import context, tokens
from ..core.database import atomic
from ..core.errors import Failure
from ..core.identity import CONSOLE
from ..web import admission
from .common import every_row, fail, inside, load, print_json, sentences, user_called

group = AppGroup("keys", help="API keys.")

MOST_FAULTS = 20  # that are told of in sentences


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
def check_text() -> None:
    """Find API keys in a text on standard input, such as a log or a diff. Asks nobody.

    Prints line and hint of each whose checksum is right. Exit code 1 if there is none.
    """
    found = False
    for number, line in enumerate(sys.stdin.buffer, 1):
        for key in tokens.find_api_keys(line.decode("latin-1")):  # which all bytes are; keys: ASCII
            click.echo(f"line {number}: {tokens.hint(key)}")
            found = True
    if not found:
        fail("there is no API key in that text: none of the right form and checksum.")


_RULES = Template(r"""
[[rules]]
id = "$prefix-api-key"
description = "API key of $host"
regex = '''(?:^|[^0-9A-Za-z])(${prefix}_[0-9A-Za-z]{38})\b'''
secretGroup = 1
entropy = 3
keywords = ["${prefix}_"]

[[rules]]
id = "$prefix-token"
description = "Refresh token, or link from a mail, of $host"
regex = '''(?:^|[^0-9A-Za-z])(${prefix}[rpem]_[A-Za-z0-9_-]{27,38}\.[A-Za-z0-9_-]{43})\b'''
secretGroup = 1
entropy = 3
keywords = ["${prefix}r_", "${prefix}p_", "${prefix}e_", "${prefix}m_"]
""")


@group.command("scanner-rules")
@inside
def scanner_rules() -> None:
    """Print rules by which a secret scanner finds our keys, tokens and links: gitleaks' TOML."""
    settings = context.settings()
    host = urlsplit(settings.public_url).hostname
    click.echo(_RULES.substitute(prefix=settings.api_key_prefix, host=host).strip())


@group.command("import")
@click.argument("file", type=click.File("rb"))
@inside
def import_keys(file: BinaryIO) -> None:
    """Take over keys of another system by their digests: a JSON object a line. All, or none."""
    wanted: dict[int, dict[str, Any]] = {}
    faults: list[str] = []
    for number, line in enumerate(file, 1):
        try:
            if line.strip():
                wanted[number] = _wanted(line)
        except (ValidationError, Failure) as refusal:
            faults += [f"line {number}: {sentence}" for sentence in sentences(refusal)]
    if faults:
        more = len(faults) - MOST_FAULTS
        fail(*faults[:MOST_FAULTS], *([f"and {more} more."] if more > 0 else []))
    _adopt(wanted)
    click.echo(f"{len(wanted)} keys imported.")


def _wanted(line: bytes) -> dict[str, Any]:
    try:
        given = admission.parse_json(line)
    except Failure:
        given = None
    if not isinstance(given, dict):
        raise Failure("malformed_json", "that is not a JSON object.")
    wanted = load(ImportKeySchema, given)
    wanted["owner_id"] = user_called(wanted.pop("owner")).id
    return wanted


@atomic
def _adopt(wanted: dict[int, dict[str, Any]]) -> None:
    for number, each in wanted.items():
        try:
            keys.adopt(CONSOLE, **each)
        except Failure as refusal:
            fail(*[f"line {number}: {sentence}" for sentence in sentences(refusal)])
