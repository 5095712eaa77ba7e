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

MOST_FAULTS = 20  # reported in sentences at most
REST = 0.02  # seconds between two batches of an import: waiting writers try SQLite every 0.01


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
    refused |= service.refusals(drafts)
    _report(refused, skip_existing)
    wanted = [(number, each) for number, each in drafts.items() if number not in refused]
    imported = 0
    try:
        for some in pw.chunked(wanted, service.BATCH):
            late = service.adopt(CONSOLE, dict(some))
            imported += len(some) - len(late)
            refused |= late
            time.sleep(REST)
    finally:  # interrupted or not
        passed = sum(map(_is_there, refused.values())) if skip_existing else 0
        there = f", {passed} {'was' if passed == 1 else 'were'} there already" if passed else ""
        say(f"{counted(imported, 'key')} imported{there}.")
    _report(refused, skip_existing)


def _read(file: BinaryIO) -> tuple[dict[int, Draft], dict[int, ValidationError | Failure]]:
    """Return (drafts, refusals), each by line number."""
    drafts: dict[int, Draft] = {}
    refused: dict[int, ValidationError | Failure] = {}
    schema, owner_called = ImportKeySchema(), functools.cache(users.called)
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
        raise Failure("malformed_json", "that is not a JSON object.")
    return given


def _report(refused: Mapping[int, ValidationError | Failure], skip_existing: bool) -> None:
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
