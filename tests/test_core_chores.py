"""Chores: run when there is a reason, beside each other, and to the end when a process ends."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import peewee as pw
import pytest
from flask import Flask

from backend.background import periodic
from backend.background.periodic import PeriodicTasks

from .support.apps import service_of
from .support.concurrency import until
from .support.people import Person, by_key
from .support.processes import run


class Chore:
    """A chore that counts, and fails as long as `fault` is set."""

    def __init__(self) -> None:
        self.fault: Exception | None = None
        self.done = 0

    def __call__(self) -> None:
        if self.fault:
            raise self.fault
        self.done += 1


@pytest.fixture
def chore() -> Chore:
    return Chore()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chores are run as soon as there is a reason."""
    monkeypatch.setattr(periodic, "INTERVAL", 0.01)


@pytest.fixture
def made(chore: Chore) -> Iterator[PeriodicTasks]:
    """Chores with that one chore, closed at the end."""
    made = PeriodicTasks(chore)
    yield made
    made.close()


def test_chores_are_run_without_being_asked_but_not_without_a_reason(
    at_once: None, made: PeriodicTasks, chore: Chore
) -> None:
    before = threading.active_count()
    made.wake()
    assert threading.active_count() == before + 1
    until(lambda: chore.done == 1)
    deadline = time.monotonic() + 0.1
    while time.monotonic() < deadline:
        assert chore.done == 1
    made.wake()
    until(lambda: chore.done == 2)


def test_what_is_left_is_done_when_they_are_closed(chore: Chore) -> None:
    made = PeriodicTasks(chore)
    made.wake()
    made.close()
    assert chore.done == 1
    made.close()
    assert chore.done == 1


def test_a_chore_that_fails_keeps_none_from_being_done(
    chore: Chore, caplog: pytest.LogCaptureFixture
) -> None:
    broken = Chore()
    broken.fault = ValueError("a bug")
    made = PeriodicTasks(broken, chore)
    with caplog.at_level(logging.DEBUG, "backend"):
        for _ in range(3):
            made.run()
    assert chore.done == 3
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    broken.fault = None
    made.run()
    assert (broken.done, chore.done) == (1, 4)


def test_a_chore_is_tried_again_while_the_database_is_down_and_that_is_told_once(
    at_once: None, made: PeriodicTasks, chore: Chore, caplog: pytest.LogCaptureFixture
) -> None:
    chore.fault = pw.OperationalError("down")
    with caplog.at_level(logging.DEBUG, "backend"):
        made.wake()
        until(lambda: caplog.records)
        chore.fault = None
        until(lambda: chore.done == 1)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_closing_does_not_wait_for_a_database_that_is_down(chore: Chore) -> None:
    chore.fault = pw.OperationalError("down")
    made = PeriodicTasks(chore)
    made.wake()
    started = time.monotonic()
    made.close()
    assert time.monotonic() - started < 1


def test_a_chore_that_was_not_alone_is_tried_again_until_it_is_done() -> None:
    """As sealing does while another process is at it."""
    tries: list[int] = []

    def chore() -> None:
        tries.append(1)
        if len(tries) < 3:
            made.wake()

    made = PeriodicTasks(chore)
    made.wake()
    made.close()
    assert len(tries) == 3


def test_chores_that_never_end_do_not_keep_a_process_from_ending(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(periodic, "CLOSING_SECONDS", 0.1)
    made = PeriodicTasks(lambda: made.wake())
    made.wake()
    made.close()


SCRIPT = """
import os
from backend.background.periodic import PeriodicTasks

parent = os.getpid()
periodic = PeriodicTasks(lambda: print("parent" if os.getpid() == parent else "child", flush=True))
periodic.wake()
"""


@pytest.mark.slow
def test_what_is_left_is_done_when_the_process_ends(tree: Path) -> None:
    assert run(tree, "python", "-c", SCRIPT).stdout == "parent\n"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_process_that_forked_off_does_its_own(tree: Path) -> None:
    fork = "if os.fork() == 0:\n    periodic.wake()\nelse:\n    os.wait()\n"
    done = run(tree, "python", "-c", SCRIPT + fork)
    assert done.stdout == "child\nparent\n", done.stderr


def test_the_service_runs_its_chores_and_gives_the_connection_back(
    app: Flask, alice: Person
) -> None:
    key = alice.new_key()
    alice.client.get("/v1/auth/me", headers=by_key(key["key"]))
    service = service_of(app)
    service.periodic_tasks.run()
    assert service.database.is_closed()
    assert alice.get(f"/v1/api-keys/{key['id']}").json["last_used_at"]
