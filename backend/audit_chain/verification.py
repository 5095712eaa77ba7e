"""Check every event against seals and signatures. Skip it on a first reading."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from ..audit import rows
from ..audit.rows import Row
from ..core import clock
from ..core.errors import Conflict
from ..core.words import counted
from ..db.database import current, on_postgres
from . import chain_row

MOST_FAULTS = 20  # reported as sentences; more are only counted
DISORDER = timedelta(hours=1)  # allowed: clocks differ, and events are committed after their time


@dataclass
class Report:
    """The result of `verify`. `faults` holds the first sentences, and `more` counts the rest."""

    checked: int = 0
    sequence: int = 0  # of the last sealed event; it and the seal can be compared with the log
    seal: str = ""
    unsealed: int = 0  # signed, and will be sealed by a later run
    oldest_unsealed: float = 0  # age in seconds
    unsigned: int = 0  # never sealed
    faults: list[str] = field(default_factory=list)
    more: int = 0

    def fault(self, sentence: str) -> None:
        """Add a fault."""
        if len(self.faults) < MOST_FAULTS:
            self.faults.append(sentence)
        else:
            self.more += 1


def verify() -> Report:
    """Check every event, and the row of the chain, against seals and signatures.

    Detects events added at any time, and events edited, removed or reordered after they were
    sealed. Does not detect that an event was removed before that, or that events and chain were
    restored together to an earlier state. The log reveals both: it contains every event, and the
    last number and seal of every batch.
    """
    report = Report()
    with _snapshot(), rows.any_text():
        try:
            latest, takes_unsigned = _verify_chain(report)
        except Conflict as refusal:
            report.fault(refusal.detail)
            _verify_unsealed(report, None, takes_unsigned=False)
        else:
            _verify_unsealed(report, latest, takes_unsigned=takes_unsigned)
            read, there = report.checked + report.unsealed + report.unsigned, rows.count()
            if read != there:
                report.fault(
                    f"Only {read} of {counted(there, 'event')} could be checked: an index leaves"
                    " the others out."
                )
    return report


@contextmanager
def _snapshot() -> Iterator[None]:
    """Open a transaction that sees one state of the database and does not block writers."""
    if on_postgres():
        with current.obj.atomic():
            current.execute_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield
    else:
        with current.obj.atomic("DEFERRED"):
            yield


def _verify_chain(report: Report) -> tuple[datetime | None, bool]:
    """Check sealed events; return (time of the last, whether the chain takes unsigned ones).

    Raises Conflict if there is no chain or no key to check against.
    """
    chain = chain_row.stored()
    if chain is None:
        if chain_row.is_anything_sealed():
            raise Conflict("conflict", chain_row.GONE)
        return None, False
    report.sequence, report.seal = chain.last_sequence, chain.last_seal
    key, _ = chain_row.unwrap(chain)
    if not chain_row.is_authentic(chain, key):
        report.fault(chain_row.FORGED)
    sequence, seal, latest = chain.start_sequence, chain.start_seal, None
    for row in rows.sealed():
        report.checked += 1
        sentence = fault(row, key, sequence, seal) or _time_fault(row, latest)
        if sentence:
            report.fault(sentence)
        sequence = row.sequence if isinstance(row.sequence, int) else sequence
        seal, latest = row.seal, row.time or latest
    if (sequence, seal) != (chain.last_sequence, chain.last_seal):
        report.fault(f"The chain ends at sequence {chain.last_sequence}, the events at {sequence}.")
    return latest, chain_row.takes_unsigned(chain, key)


def _verify_unsealed(report: Report, latest: datetime | None, *, takes_unsigned: bool) -> None:
    """Check the events that are not sealed yet; `latest` is the time of the last sealed one."""
    for row in rows.unsealed():
        if not (row.is_signed() or (takes_unsigned and row.seal is None)):
            report.unsigned += 1
            report.fault(
                f"Event {row.id} is not sealed, and its signature is not valid: it was added or"
                " edited directly in the database."
            )
            continue
        report.unsealed += 1
        sentence = _time_fault(row, latest)
        if sentence:
            report.fault(sentence)
        elif row.time:
            age = (clock.now() - row.time).total_seconds()
            report.oldest_unsealed = max(report.oldest_unsealed, age)
            latest = row.time


def fault(row: Row, key: bytes, sequence: int, seal: str) -> str | None:
    """Return what is wrong with a row that should follow this sequence and seal, or None."""
    where = f"Sequence {row.sequence} (event {row.id})"
    if row.sequence != sequence + 1:
        return f"{where} follows sequence {sequence}."
    if row.seal != row.sealed(key, seal):
        return f"{where} does not match its seal: it, or the event before it, was altered."
    return None


def _time_fault(row: Row, latest: datetime | None) -> str | None:
    """Return what is wrong with the time of a row after one at `latest`, or None."""
    if row.time is None:
        return f"Event {row.id} has no valid time."
    if latest and latest - row.time > DISORDER:
        return (
            f"Event {row.id}, dated {row.created_at}, follows one dated {latest}: it was added"
            " later, or a clock was wrong."
        )
    return None
