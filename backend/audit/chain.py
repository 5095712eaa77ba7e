"""The chain: sealing, verifying and pruning.

Seconds after an event is stored it is sealed: it gets the next number, and an HMAC over all its
columns and the seal before it. So whoever can write to the database, but does not know SECRET_KEY,
cannot edit, remove, add or reorder what is sealed without being found out.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import peewee as pw

from ..core import clock, context
from ..core.database import atomic, current, on_postgres
from ..core.errors import Conflict
from .models import AuditChain, AuditEvent

log = logging.getLogger(__name__)

BATCH = 1000  # events at a time
BATCHES = 20  # in one run of the chore, which others wait behind
MOST_FAULTS = 20  # that are told of in sentences

_GONE = "Audit events are sealed, but the row of their chain is gone."
_FORGED = "The row of the audit chain is not as it was sealed."
_KEY_LOST = (
    "The key of the audit chain was altered, or encrypted under a SECRET_KEY that is gone: put that"
    " one into SECRET_KEY_FALLBACKS. Until then nothing is sealed."
)


# --- sealing ---


class _Row(NamedTuple):
    """An event's columns as both databases have them alike: times as text, whatever they hold."""

    id: Any
    created_at: Any
    action: Any
    outcome: Any
    actor_id: Any
    target_type: Any
    target_id: Any
    ip: Any
    request_id: Any
    detail: Any
    sequence: Any
    seal: Any

    def sealed(self, key: bytes, before: str) -> str:
        """The seal of this row where `before` is that of the row before it."""
        columns = json.dumps(self[:-1], default=_hex, separators=(",", ":"))
        return hmac.digest(key, f"{before}{columns}".encode(), hashlib.sha256).hex()


def _hex(value: Any) -> str:
    return value.hex if isinstance(value, UUID) else repr(value)


# By hand: a row that somebody altered need not be one that the model can read.
_SELECT = f"SELECT {', '.join(_Row._fields)} FROM audit_events "  # noqa: S608 (no input)
_TIME_ON_POSTGRES = (
    "replace(to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.USAD'), 'AD', '+00:00')"
)
_IN_ORDER = "WHERE (sequence, id) > (?, ?) ORDER BY sequence, id LIMIT ?"
_UNSEALED = "WHERE sequence IS NULL ORDER BY id LIMIT ?"

_CHAIN = UUID(int=0)  # the id of the one row
_KEY_KIND = b"audit:"  # before the key, so that nothing else we encrypted can be put in its place


def seal() -> None:
    """Seal the events that are not sealed yet, unless another process is at it.

    A chore of every process. What is left goes to the next run; a quiet service writes nothing.
    Conflict if the chain cannot be gone on with.
    """
    for _ in range(BATCHES):
        if not AuditEvent.select().where(AuditEvent.sequence.is_null()).exists():
            return
        if not _seal_batch():
            break
    context.service().chores.wake()


@atomic
def _seal_batch() -> bool:
    """Seal at most BATCH events; False, and nothing is done, if another process is at it."""
    if not _alone():
        return False
    rows = _rows(_UNSEALED, BATCH)
    if not rows:
        return True
    chain, key = _open_chain()
    sealed = []
    for row in rows:
        chain.last_sequence += 1
        numbered = row._replace(sequence=chain.last_sequence)
        chain.last_seal = numbered.sealed(key, chain.last_seal)
        sealed.append((numbered.id, numbered.sequence, chain.last_seal))
    _store(sealed)
    chain.mac = _mac(chain, key)
    chain.save()
    last = {"sequence": chain.last_sequence, "seal": chain.last_seal}
    # Outside of the database, the log says how far the chain went.
    current.obj.after_commit(lambda: log.info("audit.seal", extra=last))
    return True


def _alone() -> bool:
    """True if, until the transaction ends, nobody else seals or prunes. SQLite: always so."""
    if not on_postgres():
        return True
    lock = "SELECT pg_try_advisory_xact_lock(hashtext(%s))"
    return bool(current.execute_sql(lock, (f"{__package__}:seal",)).fetchone()[0])


def _rows(condition: str, *parameters: object) -> list[_Row]:
    statement = _SELECT + condition
    if on_postgres():
        statement = statement.replace("created_at", _TIME_ON_POSTGRES, 1).replace("?", "%s")
    return [_Row(*row) for row in current.execute_sql(statement, parameters).fetchall()]


def _store(sealed: list[tuple[Any, int, str]]) -> None:
    """Write (id, sequence, seal) into the rows, in one statement."""
    rows = json.dumps(sealed, default=_hex)  # as one parameter: there is a limit to their number
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
        # No second condition: SQLite would look for the rows by that.
        f" FROM (SELECT {columns}) AS sealed WHERE audit_events.id = sealed.id",
        (rows,),
    )
    if done.rowcount != len(sealed):
        raise Conflict("conflict", "Audit events vanished while they were being sealed.")


def _open_chain() -> tuple[AuditChain, bytes]:
    """The chain's row, made if there is none yet, and the key of the seals.

    Conflict if somebody has altered or removed the row, or the key's SECRET_KEY is gone: going on
    would hide that.
    """
    chain = AuditChain.get_or_none(AuditChain.id == _CHAIN)
    if chain is None:
        if _is_anything_sealed():
            raise Conflict("conflict", _GONE)
        key = secrets.token_bytes(32)
        return AuditChain.create(id=_CHAIN, wrapped_key=_wrap(key), mac=""), key
    key, outdated = _unwrap(chain)
    if chain.mac != _mac(chain, key):
        raise Conflict("conflict", _FORGED)
    if outdated:
        chain.wrapped_key = _wrap(key)
    return chain, key


def _is_anything_sealed() -> bool:
    sealed = AuditEvent.sequence.is_null(False) | AuditEvent.seal.is_null(False)
    return bool(AuditEvent.select().where(sealed).exists())


def _mac(chain: AuditChain, key: bytes) -> str:
    ends = [chain.start_sequence, chain.start_seal, chain.last_sequence, chain.last_seal]
    return hmac.digest(key, f"chain{json.dumps(ends)}".encode(), hashlib.sha256).hex()


def _wrap(key: bytes) -> str:
    return context.service().keyring.encrypt(_KEY_KIND + key)


def _unwrap(chain: AuditChain) -> tuple[bytes, bool]:
    """(the key of the seals, whether it is wrapped under an earlier SECRET_KEY), else Conflict."""
    try:
        data, outdated = context.service().keyring.decrypt(chain.wrapped_key)
    except LookupError:
        data, outdated = b"", False
    if not data.startswith(_KEY_KIND):
        raise Conflict("conflict", _KEY_LOST)
    return data.removeprefix(_KEY_KIND), outdated


# --- verifying and pruning ---


@dataclass
class Report:
    """What `verify` found. `faults` are sentences, the first ones; `more` counts the others."""

    checked: int = 0
    sequence: int = 0  # of the last sealed event, and its seal: to compare with the log
    seal: str = ""
    unsealed: int = 0
    oldest_unsealed: float = 0  # age in seconds
    faults: list[str] = field(default_factory=list)
    more: int = 0

    def fault(self, sentence: str) -> None:
        """Add a fault."""
        if len(self.faults) < MOST_FAULTS:
            self.faults.append(sentence)
        else:
            self.more += 1


def verify() -> Report:
    """Hold each sealed event, and the row of the chain, against the seals.

    Finds what was edited, removed, added or reordered since it was sealed. It does not find that
    events and chain were set back together to what they were before: the log does, which has the
    number and the seal of each sealing.
    """
    report = Report()
    with _snapshot():
        _count_unsealed(report)
        chain = AuditChain.get_or_none(AuditChain.id == _CHAIN)
        if chain is not None:
            _verify_chain(report, chain)
        elif _is_anything_sealed():
            report.fault(_GONE)
    return report


@contextmanager
def _snapshot() -> Iterator[None]:
    """A transaction that sees one state of the database and keeps nobody from writing."""
    if on_postgres():
        with current.obj.atomic():
            current.execute_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield
    else:
        with current.obj.atomic("DEFERRED"):
            yield


def _count_unsealed(report: Report) -> None:
    unsealed = AuditEvent.select(pw.fn.COUNT(AuditEvent.id), pw.fn.MIN(AuditEvent.created_at))
    report.unsealed, oldest = unsealed.where(AuditEvent.sequence.is_null()).scalar(as_tuple=True)
    if oldest is not None:
        report.oldest_unsealed = (clock.now() - oldest).total_seconds()


def _verify_chain(report: Report, chain: AuditChain) -> None:
    report.sequence, report.seal = chain.last_sequence, chain.last_seal
    try:
        key, _ = _unwrap(chain)
    except Conflict as refusal:
        report.fault(refusal.detail)
        return
    if chain.mac != _mac(chain, key):
        report.fault(_FORGED)
    sequence, seal = chain.start_sequence, chain.start_seal
    for row in _sealed_rows():
        report.checked += 1
        sentence = _fault(row, key, sequence, seal)
        if sentence:
            report.fault(sentence)
        sequence = row.sequence if isinstance(row.sequence, int) else sequence
        seal = row.seal
    if (sequence, seal) != (chain.last_sequence, chain.last_seal):
        report.fault(f"The chain ends with sequence {chain.last_sequence}, the events {sequence}.")


def _sealed_rows() -> Iterator[_Row]:
    """All rows that have a sequence, in its order, a batch of them in memory at a time."""
    sequence, row_id = -(2**63), UUID(int=0).hex
    while batch := _rows(_IN_ORDER, sequence, row_id, BATCH):
        yield from batch
        sequence, row_id = batch[-1].sequence, batch[-1].id


def _fault(row: _Row, key: bytes, sequence: int, seal: str) -> str | None:
    """What is wrong with a row that should follow the one with this sequence and seal, if any."""
    where = f"Sequence {row.sequence} (event {row.id})"
    if row.sequence != sequence + 1:
        return f"{where} stands where {sequence + 1} should."
    if row.seal != row.sealed(key, seal):
        return f"{where} is not as it was sealed, or what stood before it was altered."
    return None


def prune(limit: int = BATCH) -> int:
    """Delete at most `limit` events older than AUDIT_RETENTION_DAYS; returns how many it were.

    They are the oldest that are sealed, and the chain begins after them then. It stops at an event
    that was altered. Conflict if the chain cannot be gone on with.
    """
    days = context.settings().audit_retention_days
    before = clock.now() - timedelta(days=days)
    if not days or not AuditEvent.select().where(AuditEvent.created_at < before).exists():
        return 0
    seal()
    return _prune(before, limit)


@atomic
def _prune(before: datetime, limit: int) -> int:
    if not _alone() or not AuditChain.select().exists():
        return 0
    chain, key = _open_chain()
    start = chain.start_sequence
    for row in itertools.islice(_sealed_rows(), limit):
        sentence = _fault(row, key, chain.start_sequence, chain.start_seal)
        if sentence:
            log.error("pruning stops: %s", sentence)
            break
        if row.created_at >= before.isoformat(" ", "microseconds"):
            break
        chain.start_sequence, chain.start_seal = row.sequence, row.seal
    if chain.start_sequence > start:
        AuditEvent.delete().where(AuditEvent.sequence <= chain.start_sequence).execute()
        chain.mac = _mac(chain, key)
        chain.save()
    return int(chain.start_sequence - start)


def doubts() -> list[str]:
    """Sentences about a chain that depends on an earlier SECRET_KEY, for `flask doctor`."""
    chain = AuditChain.get_or_none(AuditChain.id == _CHAIN)
    if chain is None:
        return []
    try:
        _, outdated = _unwrap(chain)
    except Conflict as refusal:
        return [refusal.detail]
    if outdated:
        return ["The audit chain still needs SECRET_KEY_FALLBACKS, until the next event is sealed."]
    return []
