"""Audit events are signed when they are written: none can be added or edited later."""

from __future__ import annotations

import logging
from collections.abc import Callable
from uuid import UUID

import pytest
from flask import Flask

from backend.audit.models import AuditEvent
from backend.audit_chain import chain_row
from backend.audit_chain import service as chain
from backend.db.database import release
from backend.services import Services

from .support.apps import service_of
from .support.audit import (
    COLUMNS,
    NEXT_SECRET,
    OTHER_ID,
    OTHER_SEAL,
    SECRET,
    assert_clean,
    execute,
    prune,
    record_some,
    seal,
    verified,
)
from .support.commands import flask_of
from .support.databases import ON_SQLITE

COPIED = (
    "INSERT INTO audit_events (id, created_at, action, outcome, actor_id, target_type, target_id,"
    " ip, request_id, detail, sequence, seal) SELECT {id}, created_at, action, outcome, actor_id,"
    " target_type, target_id, ip, request_id, detail, NULL, {seal} FROM audit_events"
    " WHERE sequence = 3"
)
INSERTED = (
    "INSERT INTO audit_events (id, created_at, action, outcome, detail, sequence, seal)"
    " VALUES ({id}, {created_at}, 'login', 'success', '{{}}', {sequence}, {seal})"
)


def inserted(**values: str) -> str:
    """A statement that adds an event, with this SQL instead of the usual values."""
    usual = {"id": f"'{OTHER_ID}'", "sequence": "NULL", "seal": "NULL"}
    return INSERTED.format(**usual | {"created_at": COLUMNS["created_at"]} | values)


def has_sequence(service: Services, event_id: str = OTHER_ID) -> bool:
    """True if the event has its place in the chain."""
    [(sequence,)] = execute(
        service,
        f"SELECT sequence FROM audit_events WHERE id = '{event_id}'",
    )
    return sequence is not None


# --- events added from outside ---


@pytest.mark.parametrize(
    "statement",
    [
        inserted(),
        inserted(seal="''"),
        inserted(seal=f"'{OTHER_SEAL}'"),
        inserted(id="'ffffffff-ffff-7fff-bfff-ffffffffffff'"),
        inserted(created_at="'2999-01-01 00:00:00.000000+00:00'"),
        COPIED.format(id=f"'{OTHER_ID}'", seal="NULL"),
        COPIED.format(id=f"'{OTHER_ID}'", seal="seal"),
    ],
    ids=["plain", "empty", "zeros", "last id", "future", "copy", "copy with its seal"],
)
def test_an_inserted_event_is_never_sealed_and_always_found(
    sealed: Services, caplog: pytest.LogCaptureFixture, statement: str
) -> None:
    execute(sealed, statement)
    before = verified(sealed)
    assert "signature is not valid" in before.faults[0]
    assert (len(before.faults), before.unsealed, before.unsigned) == (1, 0, 1)
    for _ in range(3):
        record_some(sealed, 1)
        seal(sealed)
    [line] = [line for line in caplog.records if line.levelname == "ERROR"]
    assert "without a valid signature" in line.getMessage()
    report = verified(sealed)
    assert (report.checked, report.unsealed, report.faults) == (8, 0, before.faults)


def test_a_copied_signature_does_not_sign_another_event(service: Services) -> None:
    record_some(service)
    columns = ", ".join(name for name in COLUMNS if name != "id")
    execute(
        service,
        f"INSERT INTO audit_events (id, {columns}) SELECT '{OTHER_ID}', {columns}"
        " FROM audit_events ORDER BY id LIMIT 1",
    )
    seal(service)
    report = verified(service)
    assert (report.checked, report.unsigned, len(report.faults)) == (5, 1, 1)
    assert not has_sequence(service)


@pytest.mark.parametrize("name", [name for name in COLUMNS if name != "sequence"])
def test_an_event_that_was_edited_before_it_was_sealed_is_found(
    service: Services, name: str
) -> None:
    record_some(service, 3)
    execute(
        service,
        f"UPDATE audit_events SET {name} = {COLUMNS[name]} WHERE id ="
        " (SELECT id FROM audit_events ORDER BY id LIMIT 1)",
    )
    for _ in range(2):
        report = verified(service)
        assert (len(report.faults), report.unsigned) == (1, 1)
        seal(service)
    assert report.checked == 2


def test_an_event_that_was_numbered_before_it_was_sealed_is_found(service: Services) -> None:
    record_some(service)
    fourth = "SELECT id FROM audit_events ORDER BY id LIMIT 1 OFFSET 3"
    execute(service, f"UPDATE audit_events SET sequence = 1 WHERE id = ({fourth})")
    for _ in range(2):
        assert verified(service).faults
        seal(service)


ABSURD = {
    "sqlite": ("-1e300", "1e300", "-9e999", "3.5", "'abc'", "x'03'", "x'ff'", str(-(2**63))),
    "postgresql": (str(-(2**63)), str(2**63 - 1), "0", "-1"),
}


def test_an_event_with_an_absurd_sequence_is_read_and_found(
    sealed: Services, template: str
) -> None:
    nothing = "'00000000-0000-0000-0000-000000000000'"
    for sequence in ABSURD[template.partition(":")[0]]:
        for event_id in (nothing, nothing.replace("-", ""), f"'{OTHER_ID}'"):
            execute(sealed, inserted(id=event_id, sequence=sequence, seal=f"'{OTHER_SEAL}'"))
            assert verified(sealed).faults, sequence
            execute(sealed, "DELETE FROM audit_events WHERE target_id IS NULL")
            assert_clean(sealed, 5)


@ON_SQLITE
@pytest.mark.parametrize(
    "values",
    [
        {"id": "x'00ff'"},
        {"id": "CAST(x'ff' AS TEXT)"},
        {"created_at": "CAST(x'ff' AS TEXT)"},
        {"created_at": "x'ff'"},
        {"created_at": "5"},
        {"seal": "CAST(x'ff' AS TEXT)"},
        {"seal": "x'ff'"},
        {"seal": "1.5"},
        {"sequence": "70", "created_at": "'2026-01-01'"},
        {"sequence": "CAST(x'ff' AS TEXT)"},
    ],
)
def test_values_of_other_types_are_found_and_stop_nothing(
    sealed: Services, values: dict[str, str]
) -> None:
    execute(sealed, inserted(**values))
    assert verified(sealed).faults
    record_some(sealed, 2)
    seal(sealed)
    report = verified(sealed)
    assert len(report.faults) >= 1
    assert report.unsealed == 0
    execute(sealed, "DELETE FROM audit_events WHERE target_id IS NULL")


@ON_SQLITE
@pytest.mark.parametrize(
    "assignment",
    [
        "last_sequence = 'abc'",
        "last_sequence = 9e999",
        "start_sequence = x'ff'",
        "created_at = 'yesterday'",
        "mac = CAST(x'ff' AS TEXT)",
        "last_seal = x'ff'",
        "wrapped_key = CAST(x'ff' AS TEXT)",
        "wrapped_key = 7",
    ],
)
def test_a_chain_with_values_of_other_types_is_found(sealed: Services, assignment: str) -> None:
    execute(sealed, f"UPDATE audit_chain SET {assignment}")
    record_some(sealed, 1)
    seal(sealed)
    report = verified(sealed)
    assert report.faults
    assert report.unsealed == 1


@ON_SQLITE
def test_an_index_that_leaves_events_out_does_not_hide_them(sealed: Services) -> None:
    """Anyone who can write to an SQLite file can also change its schema."""
    index = "audit_events_sequence"
    [(genuine,)] = execute(sealed, f"SELECT sql FROM sqlite_schema WHERE name = '{index}'")
    execute(
        sealed,
        f"DROP INDEX {index}",
        f"{genuine} WHERE id <> '{OTHER_ID}'",
        inserted(),
        "PRAGMA writable_schema = 1",
        f"UPDATE sqlite_schema SET sql = '{genuine}' WHERE name = '{index}'",
        "PRAGMA writable_schema = RESET",
    )
    sealed.database.close_all()
    [sentence] = verified(sealed).faults
    assert sentence.startswith("Only 5 of 6 events could be checked")


# --- the order of time ---


def test_an_event_that_was_held_back_and_inserted_later_is_found(
    sealed: Services, travel: Callable[..., None]
) -> None:
    """Its signature is genuine: it was taken out before it was sealed."""
    record_some(sealed, 1)
    columns = ", ".join(COLUMNS)
    execute(
        sealed,
        f"CREATE TABLE kept AS SELECT {columns} FROM audit_events WHERE sequence IS NULL",
        "DELETE FROM audit_events WHERE sequence IS NULL",
    )
    travel(hours=2)
    record_some(sealed, 1)
    seal(sealed)
    assert_clean(sealed, 6)
    execute(
        sealed,
        f"INSERT INTO audit_events ({columns}) SELECT {columns} FROM kept",
        "DROP TABLE kept",
    )
    for _ in range(2):
        [sentence] = verified(sealed).faults
        assert "was added later, or a clock was wrong" in sentence
        seal(sealed)


def test_clocks_may_differ_by_minutes(sealed: Services, travel: Callable[..., None]) -> None:
    travel(minutes=-50)
    record_some(sealed, 1)
    assert_clean(sealed, 5, unsealed=1)
    seal(sealed)
    travel(minutes=50)
    record_some(sealed, 1)
    seal(sealed)
    assert_clean(sealed, 7)


# --- events from before there were signatures ---


@pytest.fixture
def upgraded(sealed: Services, monkeypatch: pytest.MonkeyPatch) -> Services:
    """The service after a version that did not sign: five events are sealed, thirty wait."""
    monkeypatch.setattr(chain, "BATCH", 10)
    record_some(sealed, 30)
    with sealed.active(), sealed.database.atomic():
        row, key = chain._open_chain()
        row.mac = chain_row._mac(row, key, chain_row._OF_UNSIGNED)
        row.save()
        AuditEvent.update(seal=None).where(AuditEvent.sequence.is_null()).execute()
    release(sealed.database)
    return sealed


def test_unsigned_events_of_an_earlier_version_are_sealed_once_and_later_ones_are_not(
    upgraded: Services,
) -> None:
    assert_clean(upgraded, 5, unsealed=30)
    seals = execute(upgraded, "SELECT seal FROM audit_events WHERE sequence <= 5 ORDER BY id")
    record_some(upgraded, 1)
    seal(upgraded)
    assert assert_clean(upgraded, 36).sequence == 36
    assert (
        execute(upgraded, "SELECT seal FROM audit_events WHERE sequence <= 5 ORDER BY id") == seals
    )
    execute(upgraded, inserted())
    for _ in range(2):
        record_some(upgraded, 1)
        seal(upgraded)
        assert len(verified(upgraded).faults) == 1
    assert not has_sequence(upgraded)


def test_pruning_includes_events_of_an_earlier_version(
    upgraded: Services, travel: Callable[..., None]
) -> None:
    travel(days=400)
    assert prune(upgraded) == 35
    assert_clean(upgraded, 0)
    execute(upgraded, inserted())
    assert len(verified(upgraded).faults) == 1


def test_a_backdated_event_that_an_earlier_version_sealed_is_found(
    upgraded: Services,
) -> None:
    """That version sealed whatever was there."""
    execute(upgraded, inserted(id="'ffffffff-ffff-7fff-bfff-ffffffffffff'"))
    record_some(upgraded, 1)
    seal(upgraded)
    report = verified(upgraded)
    assert (report.checked, report.unsigned) == (37, 0)
    [sentence] = report.faults
    assert sentence.startswith("Event ffffffff")
    assert "was added later" in sentence


def test_without_a_chain_unsigned_events_are_not_sealed(service: Services) -> None:
    execute(service, inserted())
    record_some(service, 2)
    seal(service)
    report = verified(service)
    assert (report.checked, report.unsigned, len(report.faults)) == (2, 1, 1)


def test_history_cannot_be_rewritten_by_removing_all_seals(sealed: Services) -> None:
    execute(
        sealed, "DELETE FROM audit_chain", "UPDATE audit_events SET sequence = NULL, seal = NULL"
    )
    record_some(sealed, 1)
    seal(sealed)
    report = verified(sealed)
    assert (report.checked, len(report.faults)) == (1, 5)


# --- the secret ---


def test_an_event_signed_under_an_earlier_secret_is_sealed_while_that_is_a_fallback(
    service: Services, with_secret: Callable[..., Flask]
) -> None:
    record_some(service, 2)
    renewed = service_of(with_secret(NEXT_SECRET, fallbacks=SECRET))
    assert_clean(renewed, 0, unsealed=2)
    record_some(renewed, 1)
    seal(renewed)
    assert_clean(renewed, 3)
    assert_clean(service_of(with_secret(NEXT_SECRET)), 3)


def test_an_instance_without_the_secret_of_an_event_leaves_it_to_one_that_has_it(
    service: Services, with_secret: Callable[..., Flask]
) -> None:
    renewed = service_of(with_secret(NEXT_SECRET, fallbacks=SECRET))
    record_some(renewed, 2)
    record_some(service, 2)
    seal(service)
    report = verified(service)
    assert (report.checked, report.unsigned) == (2, 2)
    seal(renewed)
    assert_clean(renewed, 4)


# --- what is found by other means ---


def test_an_event_that_was_removed_before_it_was_sealed_is_only_in_the_log(
    service: Services, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "backend.audit"):
        record_some(service, 3)
    execute(service, "DELETE FROM audit_events WHERE action = 'logout'")
    seal(service)
    assert_clean(service, 2)
    logged = {str(line.event_id) for line in caplog.records if hasattr(line, "event_id")}
    there = {
        str(UUID(str(event_id))) for (event_id,) in execute(service, "SELECT id FROM audit_events")
    }
    assert (len(logged), len(there), len(logged - there)) == (3, 2, 1)


def test_an_unsigned_event_does_not_keep_others_from_being_pruned(
    sealed: Services, travel: Callable[..., None]
) -> None:
    execute(sealed, inserted())
    travel(days=400)
    assert prune(sealed) == 5
    report = verified(sealed)
    assert (report.checked, report.unsigned, len(report.faults)) == (0, 1, 1)


def test_the_server_keeps_an_inserted_event_however_old_it_claims_to_be(
    sealed: Services, travel: Callable[..., None]
) -> None:
    execute(sealed, inserted())
    travel(days=400)
    sealed.periodic_tasks.run()
    assert verified(sealed).unsigned == 1


def test_audit_verify_fails_and_names_an_inserted_event(
    make_app: Callable[..., Flask],
) -> None:
    app = make_app()
    service = service_of(app)
    record_some(service)
    execute(service, inserted())
    seal(service)
    done = flask_of(app)("audit", "verify")
    assert done.exit_code == 1
    assert OTHER_ID in done.stderr.replace("-", "")
    assert "its signature is not valid" in done.stderr
