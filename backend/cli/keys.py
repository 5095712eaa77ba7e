"""`flask keys`: API keys. Skip it on a first reading."""

from __future__ import annotations

import codecs
import functools
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from string import Template
from typing import Any, BinaryIO
from urllib.parse import urlsplit
from uuid import UUID

import click
import peewee as pw
from flask.cli import AppGroup
from marshmallow import ValidationError

from ..api_keys import importer
from ..api_keys import service as keys
from ..api_keys.importer import Draft
from ..api_keys.schemas import ApiKeySchema, CreateKeySchema, ImportKeySchema
from ..core import context
from ..core.errors import Conflict, Failure
from ..core.identity import CONSOLE
from ..core.words import counted
from ..crypto import keyring
from ..web import parsing
from .common import (
    every_row,
    fail,
    inside,
    load,
    print_json,
    say,
    sentences,
    user_called,
)

group = AppGroup("keys", help="API keys.")

MOST_FAULTS = 20  # reported in sentences at most
REST = 0.02  # seconds between two batches of an import: waiting writers try SQLite every 0.01


@group.command("create")
@click.argument("owner")
@click.argument("name")
@click.option("--scope", "scopes", multiple=True, help="What the key may do; repeatable.")
@click.option("--expires-in-days", type=int, help="1 to 3650; without it the key does not expire.")
@inside
def create_key(owner: str, name: str, scopes: tuple[str, ...], expires_in_days: int | None) -> None:
    """Create a key for the account OWNER. Its text is printed only this once."""
    wanted: dict[str, Any] = {"name": name, "scopes": list(scopes)}
    wanted |= {"expires_in_days": expires_in_days} if expires_in_days is not None else {}
    key = keys.issue(CONSOLE, **load(CreateKeySchema(), wanted), owner_id=user_called(owner).id)
    say(key.key)


@group.command("list")
@click.option("--unused-since", type=click.DateTime(["%Y-%m-%d"]), help="Not used since that day.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@inside
def list_keys(unused_since: datetime | None, *, as_json: bool) -> None:
    """List all keys, newest first."""
    since = unused_since and unused_since.replace(tzinfo=UTC)
    for key in every_row(keys.list_keys, owner_id="any", unused_since=since):
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
    keys.revoke(CONSOLE, key_id, cascade=cascade)


@group.command("check")
def check_text() -> None:
    """Find API keys in a text on standard input, such as a log or a diff. Works offline.

    Prints line and hint of each key whose checksum is right. Exit code 1 if there is none.
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
    """Print rules in gitleaks' TOML for secret scanners to find our keys, tokens and links."""
    settings = context.settings()
    host = urlsplit(settings.public_url).hostname
    click.echo(_RULES.substitute(prefix=settings.api_key_prefix, host=host).strip())


@group.command("import")
@click.argument("file", type=click.File("rb"))
@click.option("--skip-existing", is_flag=True, help="Skip keys that exist already.")
@inside
def import_keys(file: BinaryIO, *, skip_existing: bool) -> None:
    """Import keys of another system by their digests: one JSON object per line.

    All lines are checked first: if one is invalid, no key is imported. Keys are stored in order, a
    few at a time, so that other writers get their turn. If this is interrupted, the keys stored so
    far stay; --skip-existing imports the rest.
    """
    drafts, refused = _read(file)
    refused |= importer.refusals(drafts)
    _tell(refused, skip_existing)
    wanted = [(number, each) for number, each in drafts.items() if number not in refused]
    imported = 0
    try:
        for some in pw.chunked(wanted, importer.BATCH):
            late = importer.adopt(CONSOLE, dict(some))
            imported += len(some) - len(late)
            refused |= late
            time.sleep(REST)
    finally:  # interrupted or not
        passed = sum(map(_is_there, refused.values())) if skip_existing else 0
        there = f", {passed} {'was' if passed == 1 else 'were'} there already" if passed else ""
        say(f"{counted(imported, 'key')} imported{there}.")
    _tell(refused, skip_existing)


def _read(file: BinaryIO) -> tuple[dict[int, Draft], dict[int, ValidationError | Failure]]:
    """Return (drafts, refusals), each by line number."""
    drafts: dict[int, Draft] = {}
    refused: dict[int, ValidationError | Failure] = {}
    schema, owner_called = ImportKeySchema(), functools.cache(user_called)
    for number, line in enumerate(file, 1):
        text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        try:
            if text.strip():
                wanted = load(schema, _object(text))
                owner = owner_called(wanted.pop("owner"))
                drafts[number] = importer.draft(CONSOLE, owner, **wanted)
        except (ValidationError, Failure) as refusal:
            refused[number] = refusal
    return drafts, refused


def _object(line: bytes) -> dict[str, Any]:
    try:
        given = parsing.parse_json(line)
    except Failure:
        given = None
    if not isinstance(given, dict):
        raise Failure("malformed_json", "that is not a JSON object.")
    return given


def _tell(refused: Mapping[int, ValidationError | Failure], skip_existing: bool) -> None:
    """Report the faults and end the command, if there are any."""
    faults = [
        f"line {number}: {sentence}"
        for number, refusal in sorted(refused.items())
        for sentence in sentences(refusal)
        if not (skip_existing and _is_there(refusal))
    ]
    if faults:
        more = len(faults) - MOST_FAULTS
        fail(*faults[:MOST_FAULTS], *([f"and {more} more."] if more > 0 else []))


def _is_there(refusal: ValidationError | Failure) -> bool:
    return isinstance(refusal, Conflict) and refusal.code == "conflict"
