"""Helpers for commands: run inside the service, report errors as sentences, read input.

Skip it on a first reading.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any, NoReturn
from uuid import UUID

import click
from flask import current_app
from marshmallow import Schema, ValidationError

from ..core.errors import Failure
from ..core.identity import CONSOLE
from ..core.logs import printable
from ..db import migrations
from ..db.database import release
from ..db.errors import explain, is_unavailable
from ..services import Services
from ..web import parsing


def say(line: object, *, err: bool = False) -> None:
    """Print one line, so that names chosen by users cannot break it or control the terminal."""
    click.echo(printable(str(line)), err=err)


def fail(*sentences: str, word: str = "Error") -> NoReturn:
    """Print these sentences to stderr and exit with code 1."""
    for sentence in sentences:
        say(f"{word}: {sentence}", err=True)
    sys.exit(1)


def inside(command: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command so that it runs inside the service and reports refusals as sentences."""

    @functools.wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        service: Services = current_app.extensions["backend"]
        with service.active():
            try:
                command(*args, **kwargs)
            except (ValidationError, Failure) as refusal:
                fail(*sentences(refusal))
            except migrations.MigrationError as refusal:
                fail(str(refusal))
            except Exception as error:
                if not is_unavailable(error):
                    raise
                fail(explain(error))
            finally:
                release(service.database)

    return wrapper


def sentences(refusal: ValidationError | Failure) -> list[str]:
    """Return one sentence for each fault that the refusal names."""
    if isinstance(refusal, ValidationError):
        faults: Any = refusal.normalized_messages()
    else:
        faults = (refusal.errors or {}).get("json", {})
    named = [f"{name}: {text}" for name, found in faults.items() for text in parsing.flat(found)]
    return named or [str(refusal)]


def load(schema: Schema, given: dict[str, Any]) -> dict[str, Any]:
    """Load the input with the schema, after the same checks as over HTTP."""
    parsing.require_printable(given)
    return schema.load(given)


def read_password(*, stdin: bool) -> str:
    """Read a password from standard input, or ask for it twice on the terminal."""
    if stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    elif sys.stdin.isatty():
        password = str(click.prompt("Password", hide_input=True, confirmation_prompt=True))
    else:
        fail("there is no terminal to ask for a password; use --password-stdin.")
    parsing.require_printable({"password": password})
    return password


def every_row(listing: Callable[..., Any], **filters: Any) -> Iterator[Any]:
    """Yield all rows that `listing` returns page by page."""
    cursor: UUID | None = None
    while True:
        rows, cursor = listing(CONSOLE, limit=100, cursor=cursor, **filters)
        yield from rows
        if cursor is None:
            return


def print_json(schema: Schema, row: Any) -> None:
    """Print the row as one JSON object, as the API would return it."""
    say(json.dumps(schema.dump(row)))
