"""`flask audit verify`. Skip it on a first reading."""

from __future__ import annotations

from ..audit.commands import group
from ..cli.common import fail, inside, say
from ..core.words import counted
from . import verification


@group.command()
@inside
def verify() -> None:
    """Check every event against its seal or signature. Exit code 1 if any was altered or added."""
    report = verification.verify()
    say(f"{counted(report.checked, 'sealed event')}, up to sequence {report.sequence}")
    say(f"seal {report.seal or 'none'}   (compare with the newest audit.seal in the log)")
    say(f"{report.unsealed} not sealed yet, the oldest for {report.oldest_unsealed:.0f} s")
    if report.faults:
        more = [f"and {report.more} more."] if report.more else []
        fail(*report.faults, *more)
