"""The chain of audit events: sealed without gaps, and every later alteration is found."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from flask import Flask

from backend.audit.models import AuditEvent
from backend.audit_chain import service as chain
from backend.audit_chain.models import AuditChain
from backend.core.errors import Conflict
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
from .support.commands import Flasks, assert_done, flask_of
from .support.concurrency import until
from .support.databases import ON_POSTGRES, ON_SQLITE
from .support.processes import run

# --- sealing ---


def test_events_are_numbered_without_gaps_and_logged(
    service: Services, caplog: pytest.LogCaptureFixture
) -> None:
    assert_clean(service, 0)
    record_some(service)
    assert_clean(service, 0, unsealed=5)
    with caplog.at_level(logging.INFO, "backend.audit_chain.service"):
        seal(service)
    report = assert_clean(service, 5)
    [line] = caplog.records
    assert (line.getMessage(), line.sequence, line.seal) == ("audit.seal", 5, report.seal)
    rows = execute(service, "SELECT sequence, seal FROM audit_events ORDER BY sequence")
    assert [sequence for sequence, _ in rows] == [1, 2, 3, 4, 5]
    assert len({seal for _, seal in rows}) == 5
    assert (report.sequence, report.seal) == tuple(rows[-1])


def test_the_seal_of_an_event_is_computed_as_documented_on_both_databases(
    service: Services,
) -> None:
    """So that another program can verify an export, and a database can be moved."""
    key = bytes(range(32))
    with service.active():
        AuditChain.create(
            id="00000000-0000-0000-0000-000000000000",
            wrapped_key=service.keyring.encrypt(b"audit:" + key),
            mac=hmac.digest(key, b'chain[0, "", 0, ""]', hashlib.sha256).hex(),
        )
        AuditEvent.create(
            id="0192d3a4-5b6c-7d8e-9f01-23456789abcd",
            created_at=chain.datetime.fromisoformat("2026-11-23T10:00:00.120000+01:00"),
            action="login",
            outcome="success",
            target_type="user",
            target_id="0192d3a4-8888-7d8e-9f01-23456789abcd",
            ip="192.0.2.1",
            detail='{"k":"\\u00e9"}',
        )
        release(service.database)
        chain.seal()
    text = (
        '["0192d3a45b6c7d8e9f0123456789abcd","2026-11-23 09:00:00.120000+00:00","login","success",'
        'null,"user","0192d3a488887d8e9f0123456789abcd","192.0.2.1",null,"{\\"k\\":\\"\\\\u00e9\\"}",1]'
    )
    wanted = hmac.digest(key, text.encode(), hashlib.sha256).hex()
    assert execute(service, "SELECT seal FROM audit_events") == [(wanted,)]
    assert_clean(service, 1)


def test_an_event_is_sealed_by_itself_within_seconds(
    service: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.background.periodic.INTERVAL", 0.01)
    record_some(service, 1)
    until(lambda: verified(service).unsealed == 0)
    assert_clean(service, 1)


def test_an_idle_service_reads_and_writes_nothing(sealed: Services) -> None:
    before = execute(sealed, "SELECT * FROM audit_chain")
    asked: list[str] = []
    sealed.database.query_hooks.append(lambda event: asked.append(event.sql))
    seal(sealed)
    [sql] = [each for each in asked if "audit" in each]  # mail is looked for by another thread
    assert sql.startswith("SELECT")
    assert execute(sealed, "SELECT * FROM audit_chain") == before


def test_several_batches_are_sealed_at_once_and_the_rest_later(
    service: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain, "BATCH", 10)
    monkeypatch.setattr(chain, "BATCHES", 3)
    record_some(service, 55)
    seal(service)
    assert_clean(service, 30, unsealed=25)
    service.periodic_tasks.close()
    assert_clean(service, 55)


def test_concurrent_writers_and_sealers_leave_no_gap_and_no_fault(service: Services) -> None:
    stop = threading.Event()

    def keep_sealing() -> None:
        while not stop.wait(0.001):  # writers get their turn
            seal(service)

    with ThreadPoolExecutor(8) as pool:
        sealers = [pool.submit(keep_sealing) for _ in range(4)]
        writers = [pool.submit(record_some, service, 40) for _ in range(4)]
        try:
            for writer in writers:
                writer.result()
        finally:
            stop.set()
        for sealer in sealers:
            sealer.result()
    service.periodic_tasks.close()
    assert_clean(service, 160)


def test_verifying_while_others_write_and_seal_finds_no_fault(service: Services) -> None:
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(lambda: [(record_some(service), seal(service)) for _ in range(20)])
        while not writing.done():
            assert verified(service).faults == []
        writing.result()
    seal(service)
    assert_clean(service, 100)


@ON_POSTGRES  # on SQLite one writes at a time
def test_sealing_does_not_block_writers(service: Services) -> None:
    record_some(service)
    with service.active(), service.database.atomic():
        assert chain._seal_batch()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(record_some, service).result(2)
            pool.submit(seal, service).result(2)  # skips
    release(service.database)
    assert_clean(service, 5, unsealed=5)
    service.periodic_tasks.close()
    assert_clean(service, 10)


PROCESS = """
import os, signal, sys, threading
from backend.app import create_app
from backend.audit.service import record
from backend.db.database import release

service = create_app().extensions["backend"]
count, end = int(sys.argv[1]), sys.argv[2]

def write():
    with service.active():
        for number in range(count):
            record(None, "login", number=number)
            release(service.database)

threads = [threading.Thread(target=write) for _ in range(2)]
for thread in threads:
    thread.start()
while any(thread.is_alive() for thread in threads):
    if end == "exit":
        service.periodic_tasks.run()
for thread in threads:
    thread.join()
if end == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
"""


def process(tree: Path, service: Services, count: int, end: str) -> int:
    """The exit code of a process that records events from two threads, and seals them."""
    url = service.settings.database_url
    script = ("-c", PROCESS, str(count), end)
    done = run(tree, "python", *script, database_url=url, secret_key=SECRET)
    assert done.stderr == ""
    return done.returncode


@pytest.mark.slow
def test_concurrent_processes_leave_no_gap_and_no_fault(service: Services, tree: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        ended = [pool.submit(process, tree, service, 50, "exit") for _ in range(2)]
        assert [each.result() for each in ended] == [0, 0]
    assert_clean(service, 200)


@pytest.mark.slow
def test_events_of_a_killed_process_are_sealed_by_another_with_its_next_event(
    service: Services, tree: Path
) -> None:
    assert process(tree, service, 5, "kill") == -signal.SIGKILL
    assert_clean(service, 0, unsealed=10)
    assert process(tree, service, 1, "end") == 0
    assert_clean(service, 12)


# --- tampering ---


def edit(assignment: str, sequence: int) -> str:
    return f"UPDATE audit_events SET {assignment} WHERE sequence = {sequence}"


def delete(condition: str) -> str:
    return f"DELETE FROM audit_events WHERE {condition}"


def chained(assignment: str) -> str:
    return f"UPDATE audit_chain SET {assignment}"


def insert(sequence: int) -> str:
    return (
        "INSERT INTO audit_events (id, created_at, action, outcome, detail, sequence, seal) VALUES"
        f" ('{OTHER_ID}', {COLUMNS['created_at']}, 'login', 'success', '{{}}', {sequence},"
        f" '{OTHER_SEAL}')"
    )


def swap(column: str, one: int, two: int) -> str:
    other = f"SELECT o.{column} FROM audit_events o WHERE o.sequence = {one + two}"
    return (
        f"UPDATE audit_events SET {column} = ({other} - audit_events.sequence)"
        f" WHERE sequence IN ({one}, {two})"
    )


def tampering(first: int) -> dict[str, list[str]]:
    """What an attacker might do to five sealed events, the first of which has this number."""
    second, third, fourth, last = range(first + 1, first + 5)
    unseal = "UPDATE audit_events SET sequence = NULL"
    return {
        **{f"edit {name}": [edit(f"{name} = {to}", third)] for name, to in COLUMNS.items()},
        "edit the detail's blanks": [edit("detail = '{\"number\":2}'", third)],
        "edit the first": [edit("outcome = 'failure'", first)],
        "edit the last": [edit("outcome = 'failure'", last)],
        "delete the first": [delete(f"sequence = {first}")],
        "delete one in the middle": [delete(f"sequence = {third}")],
        "delete the last": [delete(f"sequence = {last}")],
        "delete all": [delete("sequence > 0")],
        "insert after the last": [insert(last + 1)],
        "insert before the first": [insert(first - 1)],
        "insert far before the first": [insert(-(2**63))],
        "insert between two": [
            f"UPDATE audit_events SET sequence = sequence + 100 WHERE sequence >= {third}",
            f"UPDATE audit_events SET sequence = sequence - 99 WHERE sequence >= {third}",
            insert(third),
        ],
        "close the gap": [
            delete(f"sequence = {third}"),
            edit(f"sequence = {third}", fourth),
            edit(f"sequence = {fourth}", last),
            chained(f"last_sequence = {fourth}"),
        ],
        "swap what two tell": [
            swap(name, second, third) for name in ("action", "detail", "target_id")
        ],
        "swap seals": [swap("seal", second, third)],
        "swap sequences": [
            edit("sequence = -1", second),
            edit(f"sequence = {second}", third),
            edit(f"sequence = {third}", -1),
        ],
        "take back one sealing": [edit("sequence = NULL, seal = NULL", third)],
        "take back the last sealing": [edit("sequence = NULL, seal = NULL", last)],
        "take back all sealing": [f"{unseal}, seal = NULL"],
        "take back a seal": [edit("seal = NULL", third)],
        "delete the chain": ["DELETE FROM audit_chain"],
        "delete the chain and the numbers": ["DELETE FROM audit_chain", unseal],
        "edit the start": [chained(f"start_sequence = {first}")],
        "prune by hand": [delete(f"sequence = {first}"), chained(f"start_sequence = {first}")],
        "truncate": [
            delete(f"sequence > {third}"),
            chained(f"last_sequence = {third}"),
            chained(f"last_seal = (SELECT seal FROM audit_events WHERE sequence = {third})"),
        ],
        "edit the end": [chained(f"last_seal = '{OTHER_SEAL}'")],
        "edit the mac": [chained(f"mac = '{OTHER_SEAL}'")],
        "edit the key": [chained("wrapped_key = 'x'")],
        "spoil the key": [chained("wrapped_key = '\u00e9'")],
    }


@pytest.mark.parametrize("pruned", [0, 5])
@pytest.mark.parametrize("what", tampering(1))
def test_every_alteration_is_found_now_and_after_more_events_are_sealed(
    service: Services, travel: Callable[..., None], what: str, pruned: int
) -> None:
    record_some(service, pruned)
    travel(days=400)
    record_some(service)
    assert prune(service) == pruned
    seal(service)
    assert_clean(service, 5)
    execute(service, *tampering(pruned + 1)[what])
    assert verified(service).faults
    record_some(service)
    seal(service)
    assert verified(service).faults


def test_a_duplicate_number_is_found(sealed: Services) -> None:
    """Anyone who can add rows can also drop the index that keeps numbers unique."""
    index = "audit_events_sequence"
    execute(sealed, f"DROP INDEX {index}")
    for after in range(6):
        execute(sealed, insert(after))
        assert verified(sealed).faults
        execute(sealed, "DELETE FROM audit_events WHERE target_id IS NULL")
        assert_clean(sealed, 5)
    execute(sealed, f"CREATE UNIQUE INDEX {index} ON audit_events (sequence)")


def test_faults_name_the_event_and_the_first_twenty_are_reported(service: Services) -> None:
    record_some(service, 30)
    seal(service)
    execute(service, "UPDATE audit_events SET ip = '192.0.2.1' WHERE sequence = 7")
    [sentence] = verified(service).faults
    [(name,)] = execute(service, "SELECT id FROM audit_events WHERE sequence = 7")
    assert sentence.startswith(f"Sequence 7 (event {name}) does not match its seal")
    execute(service, "UPDATE audit_events SET ip = '192.0.2.1'")
    report = verified(service)
    assert (len(report.faults), report.more, report.checked) == (20, 10, 30)


@ON_SQLITE
def test_an_invalid_time_is_found(sealed: Services) -> None:
    execute(sealed, edit("created_at = 'yesterday'", 3))
    assert verified(sealed).faults


@ON_POSTGRES
def test_unreadable_times_are_found(sealed: Services) -> None:
    [(at,)] = execute(sealed, "SELECT created_at::text FROM audit_events WHERE sequence = 3")
    for time in ("infinity", "-infinity", f"{at} BC"):
        execute(sealed, edit(f"created_at = '{time}'", 3))
        assert len(verified(sealed).faults) == 1
    execute(sealed, edit(f"created_at = '{at}'", 3))
    assert_clean(sealed, 5)


def test_the_key_cannot_be_replaced_by_another_encrypted_value(sealed: Services) -> None:
    """Such as the secret of a second factor, which its user knows."""
    known = sealed.keyring.encrypt(b"x" * 32)
    execute(sealed, f"UPDATE audit_chain SET wrapped_key = '{known}'")
    assert re.search("key .* altered", verified(sealed).faults[0])


# --- pruning ---


@pytest.fixture
def aged(sealed: Services, travel: Callable[..., None]) -> Services:
    """The service, with five events that are too old and five that are not yet."""
    travel(days=200)
    record_some(sealed)
    travel(days=200)
    return sealed


def test_pruning_removes_old_events_and_the_rest_still_verifies(aged: Services) -> None:
    assert prune(aged) == 5
    assert_clean(aged, 5)
    assert prune(aged) == 0
    record_some(aged)
    seal(aged)
    report = assert_clean(aged, 10)
    assert report.sequence == 15


def test_pruning_continues_where_its_limit_stopped_it(aged: Services) -> None:
    assert [prune(aged, limit=2) for _ in range(4)] == [2, 2, 1, 0]
    assert_clean(aged, 5)


def test_pruning_can_remove_all_events_and_the_chain_continues(
    aged: Services, travel: Callable[..., None]
) -> None:
    travel(days=400)
    assert prune(aged) == 10
    assert_clean(aged, 0)
    record_some(aged)
    seal(aged)
    assert assert_clean(aged, 5).sequence == 15


def test_nothing_is_ever_pruned_if_the_setting_says_so(
    make_app: Callable[..., Flask], aged: Services
) -> None:
    app = make_app(
        database_url=aged.settings.database_url, secret_key=SECRET, audit_retention_days=0
    )
    assert prune(service_of(app)) == 0
    seal(aged)
    assert_clean(aged, 10)


def test_pruning_removes_no_evidence(aged: Services, caplog: pytest.LogCaptureFixture) -> None:
    seal(aged)
    execute(aged, edit("outcome = 'failure'", 3))
    assert prune(aged) == 2
    assert "Sequence 3 " in caplog.text
    assert prune(aged) == 0
    assert len(verified(aged).faults) == 1


def test_pruning_refuses_a_chain_that_was_altered(aged: Services) -> None:
    seal(aged)
    execute(aged, *tampering(1)["truncate"])
    with pytest.raises(Conflict, match="row of the audit chain has been altered"):
        prune(aged)


# --- the secret ---


def test_a_new_secret_changes_no_seal_and_the_old_one_can_be_dropped_after_the_next_event(
    sealed: Services, with_secret: Callable[..., Flask]
) -> None:
    seals = execute(sealed, "SELECT sequence, seal FROM audit_events ORDER BY sequence")
    app = with_secret(NEXT_SECRET, fallbacks=SECRET)
    renewed = service_of(app)
    assert_clean(renewed, 5)
    assert "still needs SECRET_KEY_FALLBACKS" in doubts(app)
    record_some(renewed, 1)
    seal(renewed)
    assert doubts(app) == ""
    alone = service_of(with_secret(NEXT_SECRET))
    assert_clean(alone, 6)
    assert execute(alone, "SELECT sequence, seal FROM audit_events ORDER BY sequence")[:5] == seals


def doubts(app: Flask) -> str:
    """What `flask doctor` says about the chain."""
    lines = flask_of(app)("doctor").stdout.splitlines()
    return "".join(line for line in lines if "audit chain" in line)


def test_without_the_secret_nothing_is_sealed_and_the_service_runs_and_says_so(
    sealed: Services, with_secret: Callable[..., Flask], caplog: pytest.LogCaptureFixture
) -> None:
    app = with_secret(NEXT_SECRET)
    lost = service_of(app)
    for _ in range(3):
        record_some(lost, 1)
        seal(lost)
    [line] = [line for line in caplog.records if line.levelname == "ERROR"]
    assert "SECRET_KEY that is no longer set" in line.getMessage()
    report = verified(lost)
    assert report.unsealed == 3
    assert "SECRET_KEY_FALLBACKS" in report.faults[0]
    assert "SECRET_KEY_FALLBACKS" in doubts(app)
    found = service_of(with_secret(NEXT_SECRET, fallbacks=SECRET))
    record_some(found, 1)
    seal(found)
    assert_clean(found, 9)


# --- the command ---


def test_audit_verify_reports_the_end_of_the_chain_and_unsealed_events(
    make_app: Callable[..., Flask], travel: Callable[..., None]
) -> None:
    app = make_app()
    service = service_of(app)
    flask: Flasks = flask_of(app)
    assert_done(
        flask("audit", "verify"),
        "0 sealed events, up to sequence 0",
        "seal none   (compare with the newest audit.seal in the log)",
        "0 not sealed yet, the oldest for 0 s",
    )
    record_some(service)
    seal(service)
    record_some(service, 2)
    travel(seconds=60)
    seal_of_last = verified(service).seal
    done = flask("audit", "verify").stdout.splitlines()
    assert done[:2] == [
        "5 sealed events, up to sequence 5",
        f"seal {seal_of_last}   (compare with the newest audit.seal in the log)",
    ]
    assert re.fullmatch(r"2 not sealed yet, the oldest for 6\d s", done[2])


def test_commands_use_the_singular_for_one_thing(
    make_app: Callable[..., Flask], travel: Callable[..., None]
) -> None:
    app = make_app()
    flask: Flasks = flask_of(app)
    record_some(service_of(app), 1)
    seal(service_of(app))
    assert flask("audit", "verify").stdout.startswith("1 sealed event, up to sequence 1\n")
    travel(days=400)
    assert_done(flask("prune"), "1 row deleted.")
    assert_done(flask("prune"), "0 rows deleted.")


@pytest.mark.slow
def test_events_of_several_processes_are_listed_exported_and_verified_by_another(
    service: Services, with_secret: Callable[..., Flask], tree: Path
) -> None:
    assert process(tree, service, 3, "end") == 0
    url, flask = service.settings.database_url, flask_of(with_secret(SECRET))
    verify = ("--app", "wsgi", "audit", "verify")
    done = run(tree, "flask", *verify, database_url=url, secret_key=SECRET)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("6 sealed events, up to sequence 6\n")
    rows = [json.loads(line) for line in flask("audit", "export").stdout.splitlines()]
    assert sorted(row["sequence"] for row in rows) == [1, 2, 3, 4, 5, 6]
    assert len(flask("audit", "list").stdout.splitlines()) == 6
    execute(service, edit("outcome = 'failure'", 3), "DELETE FROM audit_events WHERE sequence = 5")
    result = flask("audit", "verify")
    assert result.exit_code == 1
    assert re.fullmatch(
        r"Error: Sequence 3 .+ does not match its seal.+\n"
        r"Error: Sequence 6 .+ follows sequence 4\.\n",
        result.stderr,
    )
    assert "sequence 6" in result.stdout
