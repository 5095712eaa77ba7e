"""Large imports: all keys are checked first, then stored a few at a time, beside other writers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from flask import Flask

from backend.core.words import counted
from backend.key_import import service as importer

from .support.apps import client_of, service_of, statements, url_of
from .support.concurrency import at_once, statuses
from .support.databases import ON_POSTGRES, ON_SQLITE
from .support.imports import line, me, take_over
from .support.keys import path_of
from .support.people import PASSWORD, Person, add_user, sign_in

TEXTS = [f"text-{number}" for number in range(5)]
THERE = "This key already exists."


def numbered(texts: list[str], **more: Any) -> list[dict[str, Any]]:
    """Lines that import the keys with these texts, each named after its text."""
    return [line(text, name=text, **more) for text in texts]


def names(person: Person) -> list[str]:
    """The names of the person's keys, oldest first."""
    return [key["name"] for key in person.get("/v1/api-keys").json["items"]][::-1]


@contextmanager
def behind(app: Flask, start: str, act: Callable[[], Any], number: int = 1) -> Iterator[None]:
    """Act once, after this many queries on the app's database that start with this text."""
    hooks, seen = service_of(app).database.query_hooks, []

    def hook(event: Any) -> None:
        if event.sql.startswith(start):
            seen.append(event.sql)
            if len(seen) == number:
                act()

    hooks.append(hook)
    yield
    hooks.remove(hook)
    assert len(seen) >= number


def elsewhere(act: Callable[[], Any]) -> Callable[[], Any]:
    """A function that lets `act` run in another thread, and waits for it."""

    def run() -> None:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(act).result(10)

    return run


def interrupt() -> None:
    raise KeyboardInterrupt


def test_an_interrupted_import_can_be_continued(
    app: Flask, alice: Person, root: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importer, "BATCH", 2)
    lines = numbered(TEXTS)
    with behind(app, "INSERT INTO audit_events", interrupt, 2):
        result = take_over(app, *lines)
    assert (result.exit_code, result.stdout) == (1, "2 keys imported.\n")
    assert names(alice) == TEXTS[:2]
    alice.post(f"{path_of(alice.get('/v1/api-keys').json['items'][0])}/revoke")
    again = take_over(app, *lines)
    assert (again.exit_code, again.stdout) == (1, "")
    assert again.stderr == f"Error: line 1: {THERE}\nError: line 2: {THERE}\n"
    assert names(alice) == TEXTS[:2]
    rest = take_over(app, *lines, options=["--skip-existing"])
    assert (rest.exit_code, rest.stdout) == (0, "3 keys imported, 2 already existed.\n")
    assert names(alice) == TEXTS
    assert [me(alice, text).status_code for text in TEXTS] == [200, 401, 200, 200, 200]
    events = root.get("/v1/audit-events?action=key.import").json["items"]
    kept = alice.get("/v1/api-keys").json["items"]
    assert [event["target_id"] for event in events] == [key["id"] for key in kept]


def test_existing_keys_are_skipped_and_faults_are_still_reported(app: Flask, alice: Person) -> None:
    lines = numbered(TEXTS[:2])
    skipping = partial(take_over, app, options=["--skip-existing"])
    result = skipping(*lines, lines[0], line("x", name=""))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: line 4: name: Length must be between 1 and 100.\n"
    assert skipping(*lines, lines[0]).stdout == "2 keys imported, 1 already existed.\n"
    assert skipping(*lines).stdout == "0 keys imported, 2 already existed.\n"
    assert names(alice) == TEXTS[:2]


def test_all_faults_are_reported_in_the_order_of_the_lines(app: Flask, alice: Person) -> None:
    take_over(app, line("old"))
    result = take_over(app, line("old"), "[]", line("new"), line("new"), line("x", owner="nobody"))
    assert result.stderr.splitlines() == [
        f"Error: line 1: {THERE}",
        "Error: line 2: this is not a JSON object.",
        f"Error: line 4: {THERE}",
        "Error: line 5: There is no such user.",
    ]
    assert names(alice) == ["taken over"]


def test_changes_while_lines_are_checked_are_reported_and_the_other_keys_stored(
    make_app: Callable[..., Flask],
) -> None:
    app = make_app(max_keys_per_user=2)
    client = client_of(app)
    for username in ("alice", "bob"):
        add_user(client, username)
    add_user(client, "root", role="admin")
    alice, bob, root = (sign_in(client, name) for name in ("alice", "bob", "root"))
    lines = [*numbered(TEXTS[:2]), line("bob's", owner="bob"), line("root's", owner="root")]

    def meanwhile() -> None:
        alice.new_key()
        assert root.delete(f"/v1/users/{bob.id}").status_code == 204

    with behind(app, 'SELECT "t1"."owner_id", COUNT', elsewhere(meanwhile)):
        result = take_over(app, *lines)
    assert (result.exit_code, result.stdout) == (1, "2 keys imported.\n")
    assert result.stderr.splitlines() == [
        "Error: line 2: An owner may have at most 2 keys, not counting revoked ones.",
        "Error: line 3: The owner does not exist.",
    ]
    assert set(names(alice)) == {"test", TEXTS[0]}
    assert me(alice, "root's").status_code == 200


def test_an_import_during_creations_makes_exactly_as_many_as_are_allowed(
    make_app: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importer, "BATCH", 2)
    app = make_app(max_keys_per_user=10)
    add_user(client_of(app), "alice")
    alice = sign_in(client_of(app), "alice")
    other = make_app(database_url=url_of(app), max_keys_per_user=10)
    lines = numbered([f"text-{number}" for number in range(8)])
    with ThreadPoolExecutor(1) as pool:
        taking: Future[Any] = pool.submit(take_over, other, *lines)
        answers = at_once(*[lambda: alice.post("/v1/api-keys", {"name": "x"})] * 8)
        result = taking.result(30)
    assert set(statuses(answers)) <= {201, 409}
    kept = names(alice)
    assert kept.count("x") == statuses(answers).get(201, 0)
    if result.stdout:
        assert result.stdout == f"{counted(10 - kept.count('x'), 'key')} imported.\n"
        assert len(kept) == 10
    else:  # the creations were there when the lines were judged, and left too little room
        assert set(kept) == {"x"}
    assert (
        "An owner may have at most 10 keys, not counting revoked ones." in result.stderr
        or result.exit_code == 0
    )


@ON_POSTGRES
def test_concurrent_imports_of_the_same_key_agree(
    app: Flask, make_app: Callable[..., Flask], alice: Person, bob: Person
) -> None:
    other = make_app(database_url=url_of(app))

    def meanwhile() -> None:
        assert take_over(other, line("same", owner="bob")).stdout == "1 key imported.\n"

    with behind(app, "INSERT INTO api_keys", elsewhere(meanwhile)):
        result = take_over(app, line("first"), line("same"))
    assert (result.exit_code, result.stdout) == (1, "1 key imported.\n")
    assert result.stderr == f"Error: line 2: {THERE}\n"
    assert me(alice, "same").json["username"] == "bob"


def test_no_key_is_imported_without_its_event(
    app: Flask, alice: Person, audit_refused: None
) -> None:
    result = take_over(app, *numbered(TEXTS))
    assert (result.exit_code, result.stdout) == (1, "0 keys imported.\n")
    assert "The audit trail cannot be written." in result.stderr
    assert names(alice) == []


@ON_SQLITE
def test_a_user_can_sign_in_during_a_large_import(
    app: Flask,
    make_app: Callable[..., Flask],
    alice: Person,
    root: Person,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importer, "BATCH", 10)
    importing = make_app(database_url=url_of(app), max_keys_per_user=500)
    wanted = {"username": "alice", "password": PASSWORD}
    with ThreadPoolExecutor(1) as pool:
        sign_in_now = partial(pool.submit, alice.client.post, "/v1/auth/login", json=wanted)
        begun: list[Future[Any]] = []
        with behind(importing, "INSERT INTO api_keys", lambda: begun.append(sign_in_now())):
            result = take_over(importing, *numbered([f"text-{number}" for number in range(300)]))
        assert result.stdout == "300 keys imported.\n"
        assert begun[0].result(10).status_code == 200
    # It did not wait until all was stored.
    [newest] = root.get("/v1/audit-events?limit=1").json["items"]
    assert newest["action"] == "key.import"


def test_a_line_costs_no_statement_of_its_own(app: Flask, alice: Person) -> None:
    counts = []
    for texts in (TEXTS[:1], [f"many-{number}" for number in range(50)]):
        with statements(app) as ran:
            assert take_over(app, *numbered(texts)).exit_code == 0
        counts.append(len(ran))
    assert counts[0] == counts[1]
