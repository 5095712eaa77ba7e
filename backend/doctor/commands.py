"""`flask doctor`. Skip it on a first reading."""

from __future__ import annotations

import click
from flask.cli import with_appcontext

from .. import services
from ..cli.common import fail, inside, say
from ..core.words import counted
from . import service as installation


@click.command("doctor")
@with_appcontext
@inside
def doctor() -> None:
    """Report errors and risks, and how to fix them. Exit code 1 if anything is fatal."""
    service = services.current()
    fatal, warnings = installation.findings(service.settings, service.database)
    if not fatal:
        warnings += _about_secrets()
        for subject in service.subjects:
            for more in subject.warnings:
                warnings += more()
    warnings += installation.servers(service)
    for sentence in warnings:
        say(f"warning: {sentence}")
    if fatal:
        fail(*fatal, word="fatal")
    say(f"{counted(len(warnings), 'warning')}, nothing fatal.")


def _about_secrets() -> list[str]:
    """Return warnings about things that need an earlier SECRET_KEY, or one that is gone."""
    service = services.current()
    used = {
        thing: count()
        for subject in service.subjects
        for thing, count in subject.secrets_in_use.items()
    }
    current, *earlier = service.keyring.secret_ids
    result = []
    for number, secret_id in enumerate(earlier, 1):
        needed = [counted(ids[secret_id], thing) for thing, ids in used.items() if secret_id in ids]
        if needed:
            result.append(
                f"SECRET_KEY_FALLBACKS: number {number} is still needed by {', '.join(needed)};"
                " each moves to SECRET_KEY when it is used."
            )
    known = {current, *earlier, None}
    for thing, ids in used.items():
        lost = sum(count for secret_id, count in ids.items() if secret_id not in known)
        if lost:
            result.append(
                f"{counted(lost, thing)} cannot be used without a SECRET_KEY that is no longer"
                " set. If you still have it, add it to SECRET_KEY_FALLBACKS."
            )
    return result
