"""The chain of audit events: sealing, verifying and pruning. Skip it on a first reading.

Each event is signed when it is written. Seconds later it is sealed: it gets the next number, and
its signature is replaced by an HMAC over all its columns and the previous seal. So without
SECRET_KEY, write access to the database is not enough to add an event at any time, or to edit,
remove or reorder sealed events, without being detected.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import logging
import secrets
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from .. import services
from ..audit import rows
from ..audit.models import AuditEvent
from ..audit.rows import Row
from ..core import clock, context
from ..core.errors import Conflict
from ..core.words import counted
from ..db.database import atomic, current, on_postgres
from .models import AuditChain

log = logging.getLogger(__name__)

BATCH = 1000  # events at a time
BATCHES = 20  # in one periodic run, which other tasks wait for
MOST_FAULTS = 20  # reported as sentences; more are only counted
DISORDER = timedelta(hours=1)  # allowed between clocks, and from an event's time to its commit

_GONE = "Audit events are sealed, but the row of their chain is missing."
_FORGED = "The row of the audit chain has been altered."
_KEY_LOST = (
    "The key of the audit chain was altered, or is encrypted under a SECRET_KEY that is no longer"
    " set: add that one to SECRET_KEY_FALLBACKS. Until then nothing is sealed."
)
_UNSIGNED = (
    "The database holds audit events without a valid signature. They are not sealed:"
    " `flask audit verify` lists them."
)

_LOCK = "backend.audit:seal"  # the same in all releases, which may run at the same time
_CHAIN = UUID(int=0)  # the id of the one row
_KEY_KIND = b"audit:"  # precedes the key, so no other value that we encrypt can replace it

# The label under which the chain's row is authenticated. A chain from before events were signed
# keeps the first one until it has taken in its unsigned events.
_OF_UNSIGNED, _OF_SIGNED = "chain", "chain of signed events"


# --- sealing ---


def seal() -> None:
    """Seal the events that are not sealed yet, unless another process is doing so.

    Runs periodically in every process; the next run continues where this one stops, and a quiet
    service writes nothing. Raises Conflict if the chain cannot be continued, or if an event is not
    signed; the others are sealed all the same.
    """
    if _seal_signed():
        raise Conflict("conflict", _UNSIGNED)


def _seal_signed() -> bool:
    """Seal all signed events; return True if there is an unsigned one."""
    for _ in range(BATCHES):
        if not AuditEvent.select().where(AuditEvent.sequence.is_null()).exists():
            return False
        found = _seal_batch()
        if found is None:
            break
        count, is_any_unsigned = found
        if count < BATCH:
            return is_any_unsigned
    services.current().periodic_tasks.wake()
    return False


@atomic
@rows.any_text()
def _seal_batch() -> tuple[int, bool] | None:
    """Seal at most BATCH events; return (how many, whether an unsigned one was skipped).

    Return None, having done nothing, if another process is sealing.
    """
    if not _alone():
        return None
    chain, key = _open_chain()
    found = _append(chain, key)
    if found[0]:
        _save(chain, key)
    return found


def _append(chain: AuditChain, key: bytes, *, unsigned: bool = False) -> tuple[int, bool]:
    """Number and seal at most BATCH events; include unsigned ones if `unsigned` is set."""
    sealed: list[tuple[Any, int, str]] = []
    passed_over = False
    with closing(rows.unsealed()) as unsealed:
        for row in unsealed:
            if not (row.is_signed() or (unsigned and row.seal is None)):
                passed_over = True
                continue
            chain.last_sequence += 1
            numbered = row._replace(sequence=chain.last_sequence)
            chain.last_seal = numbered.sealed(key, chain.last_seal)
            sealed.append((row.id, chain.last_sequence, chain.last_seal))
            if len(sealed) == BATCH:
                break
    if sealed:
        _store(sealed)
        last = {"sequence": chain.last_sequence, "seal": chain.last_seal}
        # The log records how far the chain went, outside the database.
        current.obj.after_commit(lambda: log.info("audit.seal", extra=last))
    return len(sealed), passed_over


def _alone() -> bool:
    """True if no other process can seal or prune until the transaction ends; always on SQLite."""
    if not on_postgres():
        return True
    lock = "SELECT pg_try_advisory_xact_lock(hashtext(%s))"
    return bool(current.execute_sql(lock, (_LOCK,)).fetchone()[0])


def _store(sealed: list[tuple[Any, int, str]]) -> None:
    """Write (id, sequence, seal) into the rows, in one statement."""
    # As one parameter, because their number is limited.
    values = json.dumps(sealed, default=rows.hex_of)
    if on_postgres():
        columns = (
            "(v->>0)::uuid AS id, (v->>1)::bigint AS sequence, v->>2 AS seal"
            " FROM jsonb_array_elements(%s) t(v)"
        )
    else:
        columns = (
            "json_extract(value, '$[0]') AS id, json_extract(value, '$[1]') AS sequence,"
            " json_extract(value, '$[2]') AS seal FROM json_each(?)"
        )
    done = current.execute_sql(
        "UPDATE audit_events SET sequence = sealed.sequence, seal = sealed.seal"  # noqa: S608
        # No second condition: SQLite would use it to find the rows.
        f" FROM (SELECT {columns}) AS sealed WHERE audit_events.id = sealed.id",
        (values,),
    )
    if done.rowcount != len(sealed):
        raise Conflict("conflict", "Audit events disappeared while they were being sealed.")


def _open_chain() -> tuple[AuditChain, bytes]:
    """Return the chain's row, creating it if there is none, and the key of the seals.

    Raises Conflict if the row was altered or removed, or if the key's SECRET_KEY is missing:
    carrying on would hide that.
    """
    chain = _stored_chain()
    if chain is None:
        if _is_anything_sealed():
            raise Conflict("conflict", _GONE)
        key = secrets.token_bytes(32)
        return AuditChain.create(id=_CHAIN, wrapped_key=_wrap(key), mac=""), key
    key, outdated = _unwrap(chain)
    if not _is_authentic(chain, key):
        raise Conflict("conflict", _FORGED)
    if outdated:
        chain.wrapped_key = _wrap(key)
    if _takes_unsigned(chain, key):
        # All of them, in this transaction: afterwards their origin would be unknown.
        while _append(chain, key, unsigned=True)[0]:
            pass
        _save(chain, key)
    return chain, key


def _stored_chain() -> AuditChain | None:
    try:
        chain: AuditChain | None = AuditChain.get_or_none(AuditChain.id == _CHAIN)
    except (ValueError, TypeError, OverflowError):  # SQLite accepts values of any type
        raise Conflict("conflict", _FORGED) from None
    numbers = (chain.start_sequence, chain.last_sequence) if chain else ()
    if not all(isinstance(number, int) for number in numbers):
        raise Conflict("conflict", _FORGED)
    return chain


def _is_anything_sealed() -> bool:
    return bool(AuditEvent.select().where(AuditEvent.sequence.is_null(False)).exists())


def _is_authentic(chain: AuditChain, key: bytes) -> bool:
    return chain.mac == _mac(chain, key) or _takes_unsigned(chain, key)


def _takes_unsigned(chain: AuditChain, key: bytes) -> bool:
    """True for a chain left by a version that did not sign events."""
    return bool(chain.mac == _mac(chain, key, _OF_UNSIGNED))


def _mac(chain: AuditChain, key: bytes, kind: str = _OF_SIGNED) -> str:
    ends = [chain.start_sequence, chain.start_seal, chain.last_sequence, chain.last_seal]
    return hmac.digest(
        key, f"{kind}{json.dumps(ends, default=repr)}".encode(), hashlib.sha256
    ).hex()


def _save(chain: AuditChain, key: bytes) -> None:
    chain.mac = _mac(chain, key)
    chain.save()


def _wrap(key: bytes) -> str:
    return services.current().keyring.encrypt(_KEY_KIND + key)


def _unwrap(chain: AuditChain) -> tuple[bytes, bool]:
    """Return (the key of the seals, whether an earlier SECRET_KEY wraps it), or raise Conflict."""
    try:
        data, outdated = services.current().keyring.decrypt(chain.wrapped_key)
    except LookupError:
        data, outdated = b"", False
    if not data.startswith(_KEY_KIND):
        raise Conflict("conflict", _KEY_LOST)
    return data.removeprefix(_KEY_KIND), outdated


# --- verifying and pruning ---


@dataclass
class Report:
    """What `verify` found. `faults` holds the first sentences; `more` counts the rest."""

    checked: int = 0
    sequence: int = 0  # of the last sealed event, with its seal: to compare with the log
    seal: str = ""
    unsealed: int = 0  # signed, so a later run seals them
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
    restored together to an earlier state. The log reveals those: it has each event, and the number
    and seal of each sealing.
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
    """A transaction that sees one state of the database and does not block writers."""
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
    chain = _stored_chain()
    if chain is None:
        if _is_anything_sealed():
            raise Conflict("conflict", _GONE)
        return None, False
    report.sequence, report.seal = chain.last_sequence, chain.last_seal
    key, _ = _unwrap(chain)
    if not _is_authentic(chain, key):
        report.fault(_FORGED)
    sequence, seal, latest = chain.start_sequence, chain.start_seal, None
    for row in rows.sealed():
        report.checked += 1
        sentence = _fault(row, key, sequence, seal) or _fault_of_time(row, latest)
        if sentence:
            report.fault(sentence)
        sequence = row.sequence if isinstance(row.sequence, int) else sequence
        seal, latest = row.seal, row.time or latest
    if (sequence, seal) != (chain.last_sequence, chain.last_seal):
        report.fault(f"The chain ends at sequence {chain.last_sequence}, the events at {sequence}.")
    return latest, _takes_unsigned(chain, key)


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
        sentence = _fault_of_time(row, latest)
        if sentence:
            report.fault(sentence)
        elif row.time:
            age = (clock.now() - row.time).total_seconds()
            report.oldest_unsealed = max(report.oldest_unsealed, age)
            latest = row.time


def _fault(row: Row, key: bytes, sequence: int, seal: str) -> str | None:
    """Return what is wrong with a row that should follow this sequence and seal, or None."""
    where = f"Sequence {row.sequence} (event {row.id})"
    if row.sequence != sequence + 1:
        return f"{where} is in the place of sequence {sequence + 1}."
    if row.seal != row.sealed(key, seal):
        return f"{where} does not match its seal: it, or the event before it, was altered."
    return None


def _fault_of_time(row: Row, latest: datetime | None) -> str | None:
    """Return what is wrong with the time of a row that follows one of `latest`, or None."""
    if row.time is None:
        return f"Event {row.id} has no valid time."
    if latest and latest - row.time > DISORDER:
        return (
            f"Event {row.id} of {row.created_at} follows one of {latest}: it was added later,"
            " or a clock was wrong."
        )
    return None


def prune(limit: int = BATCH) -> int:
    """Delete at most `limit` events older than AUDIT_RETENTION_DAYS; return how many.

    Deletes the oldest sealed events, and moves the start of the chain past them. Stops at an
    altered event. Raises Conflict if the chain cannot be continued.
    """
    days = context.settings().audit_retention_days
    before = clock.now() - timedelta(days=days)
    if not days or not AuditEvent.select().where(AuditEvent.created_at < before).exists():
        return 0
    _seal_signed()
    return _prune(before, limit)


@atomic
@rows.any_text()
def _prune(before: datetime, limit: int) -> int:
    if not _alone() or not AuditChain.select().exists():
        return 0
    chain, key = _open_chain()
    start = chain.start_sequence
    with closing(rows.sealed()) as sealed:
        for row in itertools.islice(sealed, limit):
            sentence = _fault(row, key, chain.start_sequence, chain.start_seal)
            if sentence:
                log.error("audit pruning stopped: %s", sentence)
                break
            if row.created_at >= before.isoformat(" ", "microseconds"):
                break
            chain.start_sequence, chain.start_seal = row.sequence, row.seal
    if chain.start_sequence > start:
        AuditEvent.delete().where(AuditEvent.sequence <= chain.start_sequence).execute()
        _save(chain, key)
    return int(chain.start_sequence - start)


def warnings() -> list[str]:
    """Return a sentence if the chain depends on an earlier SECRET_KEY, for `flask doctor`."""
    try:
        chain = _stored_chain()
        outdated = chain is not None and _unwrap(chain)[1]
    except Conflict as refusal:
        return [refusal.detail]
    if outdated:
        return ["The audit chain still needs SECRET_KEY_FALLBACKS until the next event is sealed."]
    return []
