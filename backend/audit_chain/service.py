"""The chain of audit events: sealing and pruning it. Skip it on a first reading.

Each event is signed when it is written. Seconds later it is sealed: it gets the next number, and
its signature is replaced by an HMAC over all its columns and the previous seal. An attacker who can
write to the database, but does not know SECRET_KEY, cannot add events, or edit, remove or reorder
sealed events, without being detected.
"""

from __future__ import annotations

import itertools
import json
import logging
import secrets
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any

from .. import services
from ..audit import rows
from ..audit.models import AuditEvent
from ..core import clock, context
from ..core.errors import Conflict
from ..db.database import atomic, current, on_postgres
from . import chain_row, verification
from .models import AuditChain

log = logging.getLogger(__name__)

BATCH = 1000  # events at a time
BATCHES = 20  # in one periodic run, since other tasks wait for it
_UNSIGNED = (
    "The database holds audit events without a valid signature. They are not sealed:"
    " `flask audit verify` lists them."
)

_LOCK = "backend.audit:seal"  # the same in all releases, which may run at the same time


def seal() -> None:
    """Seal the events that are not sealed yet, unless another process is doing so.

    Runs periodically in every process; the next run continues where this one stops, and an idle
    service writes nothing. Raises Conflict if the chain cannot be continued, or, after sealing the
    others, if an event is not signed.
    """
    if _seal_signed():
        raise Conflict("conflict", _UNSIGNED)


def _seal_signed() -> bool:
    """Seal all signed events; return whether there is an unsigned one."""
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

    Does nothing and returns None if another process is sealing.
    """
    if not _try_lock():
        return None
    chain, key = _open_chain()
    found = _append(chain, key)
    if found[0]:
        chain_row.save(chain, key)
    return found


def _append(chain: AuditChain, key: bytes, *, unsigned: bool = False) -> tuple[int, bool]:
    """Number and seal at most BATCH events; include unsigned ones if `unsigned` is set."""
    sealed: list[tuple[Any, int, str]] = []
    skipped = False
    with closing(rows.unsealed()) as unsealed:
        for row in unsealed:
            if not (row.is_signed() or (unsigned and row.seal is None)):
                skipped = True
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
        # Logged, so that the end of the chain is also known outside the database.
        current.obj.after_commit(lambda: log.info("audit.seal", extra=last))
    return len(sealed), skipped


def _try_lock() -> bool:
    """Keep other processes from sealing and pruning until the transaction ends.

    Returns False if another process is doing either, which cannot happen on SQLite.
    """
    if not on_postgres():
        return True
    lock = "SELECT pg_try_advisory_xact_lock(hashtext(%s))"
    return bool(current.execute_sql(lock, (_LOCK,)).fetchone()[0])


def _store(sealed: list[tuple[Any, int, str]]) -> None:
    """Write (id, sequence, seal) into the rows, in one statement."""
    # In one parameter, because the number of parameters is limited.
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
        # With a second condition, SQLite would use that one to find the rows.
        f" FROM (SELECT {columns}) AS sealed WHERE audit_events.id = sealed.id",
        (values,),
    )
    if done.rowcount != len(sealed):
        raise Conflict("conflict", "Audit events disappeared while they were being sealed.")


def _open_chain() -> tuple[AuditChain, bytes]:
    """Return the chain's row, creating it if there is none, and the key of the seals.

    Raises Conflict if the row was altered or removed, since going on would hide that, or if the
    key's SECRET_KEY is missing.
    """
    chain = chain_row.stored()
    if chain is None:
        if chain_row.is_anything_sealed():
            raise Conflict("conflict", chain_row.GONE)
        key = secrets.token_bytes(32)
        return AuditChain.create(id=chain_row.CHAIN, wrapped_key=chain_row.wrap(key), mac=""), key
    key, outdated = chain_row.unwrap(chain)
    if not chain_row.is_authentic(chain, key):
        raise Conflict("conflict", chain_row.FORGED)
    if outdated:
        chain.wrapped_key = chain_row.wrap(key)
    if chain_row.takes_unsigned(chain, key):
        # All of them in this transaction: later, nothing would distinguish them from forged ones.
        while _append(chain, key, unsigned=True)[0]:
            pass
        chain_row.save(chain, key)
    return chain, key


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
    if not _try_lock() or not AuditChain.select().exists():
        return 0
    chain, key = _open_chain()
    start = chain.start_sequence
    with closing(rows.sealed()) as sealed:
        for row in itertools.islice(sealed, limit):
            sentence = verification.fault(row, key, chain.start_sequence, chain.start_seal)
            if sentence:
                log.error("audit pruning stopped: %s", sentence)
                break
            if row.created_at >= before.isoformat(" ", "microseconds"):
                break
            chain.start_sequence, chain.start_seal = row.sequence, row.seal
    if chain.start_sequence > start:
        AuditEvent.delete().where(AuditEvent.sequence <= chain.start_sequence).execute()
        chain_row.save(chain, key)
    return int(chain.start_sequence - start)


def warnings() -> list[str]:
    """Return a warning for `flask doctor` if the chain is broken or needs an earlier SECRET_KEY."""
    try:
        chain = chain_row.stored()
        outdated = chain is not None and chain_row.unwrap(chain)[1]
    except Conflict as refusal:
        return [refusal.detail]
    if outdated:
        return ["The audit chain still needs SECRET_KEY_FALLBACKS until the next event is sealed."]
    return []
