"""`flask keys import`. Skip it on a first reading."""

from __future__ import annotations

import codecs
import functools
import time
from collections.abc import Mapping
from typing import Any, BinaryIO

import click
import peewee as pw
from marshmallow import ValidationError

from ..api_keys.commands import group
from ..cli.common import fail, inside, load, say, sentences
from ..core.errors import Conflict, Failure
from ..core.identity import CONSOLE
from ..core.words import counted
from ..users import service as users
from ..web import parsing
from . import service
from .schemas import ImportKeySchema
from .service import Draft

MOST_FAULTS = 20  # reported
PAUSE = 0.02  # seconds between batches: other writers on SQLite retry every 0.01


@group.command("import")
@click.argument("file", type=click.File("rb"))
@click.option("--skip-existing", is_flag=True, help="Skip keys that already exist.")
@inside
def import_keys(file: BinaryIO, *, skip_existing: bool) -> None:
    """Import keys from another system by their digests: one JSON object per line.

    All lines are checked first: if one is invalid, no key is imported. Keys are stored in order, a
    few at a time, so that other writers get their turn. If the import is interrupted, the keys
    stored so far remain; run it again with --skip-existing to import the rest.
    """
    drafts, refused = _read(file)
    refused |= service.refusals(drafts)
    _report(refused, skip_existing)
    wanted = [(number, each) for number, each in drafts.items() if number not in refused]
    imported = 0
    try:
        for some in pw.chunked(wanted, service.BATCH):
            refused_now = service.store(CONSOLE, dict(some))
            imported += len(some) - len(refused_now)
            refused |= refused_now
            time.sleep(PAUSE)
    finally:  # interrupted or not
        skipped = sum(map(_is_existing, refused.values())) if skip_existing else 0
        existing = f", {skipped} already existed" if skipped else ""
        say(f"{counted(imported, 'key')} imported{existing}.")
    _report(refused, skip_existing)


def _read(file: BinaryIO) -> tuple[dict[int, Draft], dict[int, ValidationError | Failure]]:
    """Return (drafts, refusals), each by line number."""
    drafts: dict[int, Draft] = {}
    refused: dict[int, ValidationError | Failure] = {}
    schema, owner_called = ImportKeySchema(), functools.cache(users.get_by_name)
    for number, line in enumerate(file, 1):
        text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        try:
            if text.strip():
                wanted = load(schema, _object(text))
                owner = owner_called(wanted.pop("owner"))
                drafts[number] = service.draft(CONSOLE, owner, **wanted)
        except (ValidationError, Failure) as refusal:
            refused[number] = refusal
    return drafts, refused


def _object(line: bytes) -> dict[str, Any]:
    try:
        given = parsing.parse_json(line)
    except Failure:
        given = None
    if not isinstance(given, dict):
        raise Failure("malformed_json", "this is not a JSON object.")
    return given


def _report(refused: Mapping[int, ValidationError | Failure], skip_existing: bool) -> None:
    """Report the faults and end the command if there are any."""
    faults = [
        f"line {number}: {sentence}"
        for number, refusal in sorted(refused.items())
        for sentence in sentences(refusal)
        if not (skip_existing and _is_existing(refusal))
    ]
    if faults:
        more = len(faults) - MOST_FAULTS
        fail(*faults[:MOST_FAULTS], *([f"and {more} more."] if more > 0 else []))


def _is_existing(refusal: ValidationError | Failure) -> bool:
    return isinstance(refusal, Conflict) and refusal.code == "conflict"
