"""Jobs: done after the request, in order, as part of it, and in bounded time at the end."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from backend import services
from backend.background import task_queue
from backend.core import context
from backend.users.models import User
from backend.web.access import public

from .support.apps import client_of, service_of
from .support.concurrency import until
from .support.processes import run


def threads() -> set[threading.Thread]:
    """The threads that do jobs."""
    return {thread for thread in threading.enumerate() if thread.name == "tasks"}


@pytest.fixture
def each() -> Iterator[task_queue.TaskQueue]:
    """Jobs of no service."""
    each = task_queue.TaskQueue()
    yield each
    each.close()


@pytest.fixture
def shuffled_tasks() -> Iterator[task_queue.ShuffledTasks]:
    """Look-ups of no service."""
    shuffled_tasks = task_queue.ShuffledTasks()
    yield shuffled_tasks
    shuffled_tasks.close()


def test_jobs_are_done_one_after_another_in_another_thread(each: task_queue.TaskQueue) -> None:
    done: list[int] = []
    inside: list[threading.Thread] = []

    def job(number: int) -> Callable[[], None]:
        return lambda: (done.append(number), inside.append(threading.current_thread()))[0]

    for number in range(100):
        each.submit(job(number))
    assert each.join(10)
    assert done == list(range(100))
    assert len(set(inside)) == 1
    assert threading.current_thread() not in inside


def test_nobody_waits_for_a_job(each: task_queue.TaskQueue) -> None:
    go = threading.Event()
    each.submit(go.wait)  # type: ignore[arg-type]
    each.submit(lambda: None)
    assert not each.join(0.01)
    go.set()
    assert each.join(10)


def test_a_job_runs_as_part_of_the_request_that_submitted_it(
    make_bare_app: Callable[..., Flask],
) -> None:
    seen: list[tuple[str, str, str]] = []

    def look() -> None:
        call = context.call.get()
        assert call is not None
        seen.append((call.request_id, call.address, context.settings().jwt_issuer))

    @public
    def submit() -> str:
        services.current().tasks.submit(look)
        return "submitted"

    for name in ("first", "second"):
        app = make_bare_app(jwt_issuer=name)
        app.add_url_rule("/submit", view_func=submit)
        client_of(app).get("/submit", headers={"X-Request-ID": f"{name}-request"})
        assert service_of(app).tasks.join(10)
        service_of(app).tasks.close()
    assert seen == [
        ("first-request", "127.0.0.1", "first"),
        ("second-request", "127.0.0.1", "second"),
    ]


def test_a_job_that_fails_is_logged_and_the_next_is_done(
    each: task_queue.TaskQueue, caplog: pytest.LogCaptureFixture
) -> None:
    done = threading.Event()
    each.submit(lambda: [][0])
    each.submit(done.set)
    assert each.join(10)
    assert done.is_set()
    [record] = caplog.records
    assert (record.levelno, record.exc_info is not None) == (logging.ERROR, True)


def test_a_job_gives_its_connection_back_in_whatever_state(app: Flask, client: FlaskClient) -> None:
    service = service_of(app)
    counts: list[int] = []

    def leave_a_transaction_open() -> None:
        service.database.session_start()
        User.update(username="x").execute()

    def fail() -> None:
        counts.append(User.select().count())
        raise RuntimeError

    with service.active():
        service.tasks.submit(leave_a_transaction_open)
        service.tasks.submit(fail)
        service.tasks.submit(lambda: counts.append(User.select().count()))
    assert service.tasks.join(10)
    assert counts == [0, 0]
    assert not service.database._in_use


def test_beyond_a_thousand_that_wait_jobs_are_dropped_and_logged(
    each: task_queue.TaskQueue, caplog: pytest.LogCaptureFixture
) -> None:
    began, go = threading.Event(), threading.Event()
    done: list[int] = []
    each.submit(lambda: (began.set(), go.wait())[0])
    began.wait(10)
    for number in range(task_queue.MOST + 2):
        each.submit(lambda number=number: done.append(number))  # type: ignore[misc]
    assert len(caplog.records) == 2
    go.set()
    assert each.join(10)
    assert done == list(range(task_queue.MOST))


def test_shuffled_tasks_wait_for_others_and_are_done_in_random_order(
    shuffled_tasks: task_queue.ShuffledTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_queue, "TICK_SECONDS", (60, 60))
    done: list[int] = []
    for number in range(100):
        shuffled_tasks.submit(lambda number=number: done.append(number))  # type: ignore[misc]
    assert task_queue.BackgroundThread.join(shuffled_tasks, 0.05) is False
    assert done == []
    assert shuffled_tasks.join(10)
    assert sorted(done) == list(range(100))
    assert done != sorted(done)


def test_shuffled_tasks_are_done_by_themselves_after_a_random_time(
    shuffled_tasks: task_queue.ShuffledTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert task_queue.TICK_SECONDS[0] < task_queue.TICK_SECONDS[1]
    monkeypatch.setattr(task_queue, "TICK_SECONDS", (0.01, 0.02))
    for _ in range(2):
        done = threading.Event()
        shuffled_tasks.submit(done.set)
        assert done.wait(10)


def test_shuffled_tasks_beyond_a_thousand_are_dropped_and_logged_in_one_line(
    shuffled_tasks: task_queue.ShuffledTasks, caplog: pytest.LogCaptureFixture
) -> None:
    done: list[int] = []
    for number in range(task_queue.MOST + 300):
        shuffled_tasks.submit(lambda number=number: done.append(number))  # type: ignore[misc]
    assert shuffled_tasks.join(10)
    assert sorted(done) == list(range(task_queue.MOST))
    assert [record.message for record in caplog.records] == [
        "shuffled tasks: 300 dropped, 1000 are waiting"
    ]


def test_no_thread_is_there_before_the_first_job_or_after_the_end(
    each: task_queue.TaskQueue,
) -> None:
    before = threads()
    each.submit(lambda: None)
    assert len(threads() - before) == 1
    each.close()
    until(lambda: not threads() - before)


def test_closing_does_what_waits_and_lets_no_job_pause(each: task_queue.TaskQueue) -> None:
    done: list[bool] = []
    for _ in range(3):
        each.submit(lambda: done.append(each.closing.wait(60)))
    started = time.monotonic()
    each.close()
    assert done == [True] * 3
    assert time.monotonic() - started < 30
    each.submit(lambda: done.append(False))  # late, and done all the same
    assert each.join(10)
    assert len(done) == 4


@pytest.mark.slow
def test_a_process_does_what_waits_before_it_exits(tree: Path) -> None:
    script = """
import time
from backend.background.task_queue import TaskQueue
task_queue = TaskQueue()
for number in range(3):
    task_queue.submit(lambda number=number: (time.sleep(0.05), print(number)))
print("the end")
"""
    done = run(tree, "python", "-c", script)
    assert (done.returncode, done.stdout, done.stderr) == (0, "the end\n0\n1\n2\n", "")


@pytest.mark.slow
def test_a_job_that_hangs_does_not_keep_a_process_from_exiting(tree: Path) -> None:
    script = """
import threading
from backend.background import task_queue
task_queue.CLOSE_SECONDS = 0.2
those = task_queue.TaskQueue()
those.submit(threading.Event().wait)
those.submit(lambda: print("never"))
"""
    done = run(tree, "python", "-c", script, seconds=20)
    assert (done.returncode, done.stdout) == (0, "")
    assert "1 not started" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_process_that_forks_off_does_its_own_jobs_and_no_others(tree: Path) -> None:
    script = """
import os, threading
from backend.background.task_queue import TaskQueue
task_queue, go = TaskQueue(), threading.Event()
task_queue.submit(go.wait)
task_queue.submit(lambda: print("parent", flush=True))
with task_queue._changed:  # as another thread may hold it at the moment of the fork
    child = os.fork()
if child == 0:
    task_queue.submit(lambda: print("child", flush=True))
    raise SystemExit(0 if task_queue.join(10) else 1)
assert os.waitpid(child, 0)[1] == 0
go.set()
"""
    done = run(tree, "python", "-W", "ignore::DeprecationWarning", "-c", script, seconds=20)
    assert (done.returncode, done.stdout, done.stderr) == (0, "child\nparent\n", "")
