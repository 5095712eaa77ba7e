"""Concurrent requests: in many threads, and in two processes on one database."""

import http.client
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from backend.core.settings import ROOT
from backend.db.database import release

from .support.apps import client_of, service_of, url_of
from .support.concurrency import at_once, statuses, until
from .support.people import PASSWORD, Person, add_user, apart, by_token, sign_in
from .support.problems import assert_problem
from .support.tokens import assert_one_chain, refresh, refreshing

NEW = "purple elephants drink tea"

SERVER = """
from waitress.server import create_server
from backend.app import create_app
from backend.core.settings import Settings
app = create_app(Settings.load(dotenv=None))
server = create_server(app, host="127.0.0.1", port=0, threads=16)
print(server.effective_port, flush=True)
server.run()
"""


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:
    """An app that shares a few connections among many threads, as a server does."""
    return make_app(threads=128, database_pool_size=16, login_attempts="100/300")


def signing_in(app: Flask, username: str, password: str = PASSWORD) -> Callable[[], TestResponse]:
    """An act: sign in."""
    client = client_of(app)
    body = {"username": username, "password": password}
    return lambda: client.post("/v1/auth/login", json=body)


def assert_all_dead(app: Flask, responses: Sequence[TestResponse]) -> None:
    """Assert that none of the tokens in these answers works."""
    client = client_of(app)
    for response in responses:
        if response.status_code == 200:
            answer = client.get("/v1/auth/me", headers=by_token(response.json["access_token"]))
            assert_problem(answer, 401, "invalid_credentials")
            answer = refresh(client, response.json["refresh_token"])
            assert_problem(answer, 401, "invalid_credentials")


# --- refreshing ---


@pytest.mark.parametrize("many", [16, 64])
def test_parallel_refreshes_of_one_token_agree_on_the_next(
    app: Flask, alice: Person, many: int
) -> None:
    answers = at_once(*[refreshing(alice) for _ in range(many)])
    assert statuses(answers) == {200: many}
    assert_one_chain(app, alice, [answer.json for answer in answers])


@pytest.mark.slow
def test_parallel_refreshes_in_two_processes_agree_on_the_next(app: Flask, alice: Person) -> None:
    with ExitStack() as stack, ThreadPoolExecutor(2) as pool:
        servers = [serving(url_of(app)) for _ in range(2)]
        ports = list(pool.map(stack.enter_context, servers))
        for many in (16, 64):
            person = alice.again()
            acts = [exchanging(ports[number % 2], person) for number in range(many)]
            answers = at_once(*acts)
            assert Counter(status for status, _ in answers) == {200: many}
            assert_one_chain(app, person, [body for _, body in answers])


@contextmanager
def serving(url: str) -> Iterator[int]:
    """The port of a process that serves the database."""
    settings = {
        "ENVIRONMENT": "testing",
        "DATABASE_URL": url,
        "THREADS": "16",
        "DATABASE_POOL_SIZE": "8",
    }
    with subprocess.Popen(
        [sys.executable, "-c", SERVER],
        cwd=ROOT,
        env={name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
        | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def exchanging(port: int, person: Person) -> Callable[[], tuple[int, dict[str, str]]]:
    """An act: exchange the person's refresh token over the wire; status and body."""

    def act() -> tuple[int, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        body = json.dumps({"refresh_token": person.refresh_token})
        connection.request("POST", "/v1/auth/refresh", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = response.status, json.load(response)
        connection.close()
        return answer

    return act


def test_of_a_concurrent_refresh_and_logout_the_logout_wins(app: Flask, alice: Person) -> None:
    person = apart(alice)
    ending = lambda: person.post("/v1/auth/logout")  # noqa: E731
    ended, *answers = at_once(ending, *(refreshing(alice) for _ in range(8)))
    assert ended.status_code == 204
    assert set(statuses(answers)) <= {200, 401}
    assert_all_dead(app, answers)


# --- signing in ---


def test_parallel_sign_ins_keep_the_number_of_sessions(make_app: Callable[..., Flask]) -> None:
    app = make_app(max_sessions_per_user=3, database_pool_size=16, login_attempts="100/300")
    add_user(client_of(app), "alice")
    answers = at_once(*[signing_in(app, "alice") for _ in range(16)])
    assert statuses(answers) == {200: 16}
    client = client_of(app)
    alive = [
        client.get("/v1/auth/me", headers=by_token(answer.json["access_token"])).status_code
        for answer in answers
    ]
    assert Counter(alive) == {200: 3, 401: 13}


@pytest.mark.parametrize("act", ["sign in", "refresh"])
def test_disabling_ends_the_sessions_that_are_just_being_made_too(
    app: Flask, root: Person, alice: Person, act: str
) -> None:
    path, admin = f"/v1/users/{alice.id}", apart(root)
    disabling = lambda: admin.patch(path, {"is_active": False})  # noqa: E731
    acts = [signing_in(app, "alice") if act == "sign in" else refreshing(alice) for _ in range(15)]
    disabled, *answers = at_once(disabling, *acts)
    assert disabled.status_code == 200
    assert set(statuses(answers)) <= {200, 401}
    assert root.patch(path, {"is_active": True}).status_code == 200
    assert_all_dead(app, answers)
    assert alice.again().get("/v1/auth/me").status_code == 200


def test_removing_an_account_while_it_signs_in_leaves_nothing(
    app: Flask, root: Person, alice: Person
) -> None:
    key = alice.new_key()
    admin, owner = apart(root), apart(alice)
    acts: list[Callable[[], TestResponse]] = [
        lambda: admin.delete(f"/v1/users/{alice.id}"),
        lambda: owner.post("/v1/api-keys", {"name": "late"}),
        *(signing_in(app, "alice") for _ in range(8)),
        *(refreshing(alice) for _ in range(8)),
    ]
    removed, minted, *answers = at_once(*acts)
    assert removed.status_code == 204
    assert minted.status_code in {201, 401, 404}
    assert set(statuses(answers)) <= {200, 401}
    assert_all_dead(app, answers)
    for text in (key, minted.json):
        if "key" in text:
            response = alice.with_key(text).get("/v1/auth/me")
            assert_problem(response, 401, "invalid_credentials")


def test_of_parallel_changes_of_one_password_exactly_one_succeeds(
    app: Flask, alice: Person
) -> None:
    sessions = [apart(alice.again()) for _ in range(8)]

    def changing(number: int) -> Callable[[], TestResponse]:
        body = {"current_password": PASSWORD, "new_password": f"{NEW} {number}"}
        return lambda: sessions[number].post("/v1/auth/password", body)

    answers = at_once(*[changing(number) for number in range(8)])
    found = statuses(answers)
    assert found[204] == 1, found
    assert set(found) <= {204, 401, 403}
    client = client_of(app)
    [winner] = [number for number in range(8) if answers[number].status_code == 204]
    for number, session in enumerate(sessions):
        expected = 200 if number == winner else 401
        assert session.get("/v1/auth/me").status_code == expected
        assert signing_in(app, "alice", f"{NEW} {number}")().status_code == expected
    assert sign_in(client, "alice", f"{NEW} {winner}").id == alice.id


# --- accounts ---


@pytest.mark.slow
def test_a_session_that_is_ended_while_its_user_changes_the_password_stays_ended(
    make_app: Callable[..., Flask],
) -> None:
    client = client_of(make_app(bcrypt_rounds=11))  # a hash takes long enough for that
    add_user(client, "root", role="admin")
    add_user(client, "alice")
    root, alice = sign_in(client, "root"), apart(sign_in(client, "alice"))
    database = service_of(client.application).database
    body = {"current_password": PASSWORD, "new_password": NEW}

    def is_being_checked() -> bool:
        booked = "SELECT COUNT(*) FROM throttles WHERE used > 0"
        [found] = database.execute_sql(booked).fetchone()
        release(database)
        return bool(found)

    with ThreadPoolExecutor(1) as pool:
        changing = pool.submit(alice.post, "/v1/auth/password", body)
        until(is_being_checked)
        assert root.delete(f"/v1/users/{alice.id}/sessions").status_code == 204
        assert changing.result().status_code == 401
    assert_problem(alice.get("/v1/auth/me"), 401, "invalid_credentials")
    assert_problem(refresh(alice.client, alice.refresh_token), 401, "invalid_credentials")
    assert sign_in(client, "alice").id == alice.id  # with the password that it was


def registering(root: Person, username: str, email: str) -> Callable[[], TestResponse]:
    """An act: register an account."""
    admin = apart(root)
    body = {"username": username, "email": email, "password": PASSWORD}
    return lambda: admin.post("/v1/auth/register", body)


@pytest.mark.parametrize("shared", ["email", "username"])
def test_of_parallel_registrations_of_one_name_exactly_one_succeeds(
    root: Person, shared: str
) -> None:
    def act(number: int) -> Callable[[], TestResponse]:
        names = {"username": f"user-{number}", "email": f"user-{number}@example.com"}
        same = {"email": "Carol@example.com", "username": "carol"}[shared]
        names[shared] = same if number % 2 else same.upper()
        return registering(root, **names)

    answers = at_once(*[act(number) for number in range(32)])
    assert statuses(answers) == {201: 1, 409: 31}
    for answer in answers:
        if answer.status_code == 409:
            assert_problem(answer, 409, f"{shared}_taken")
    assert len(root.get("/v1/users").json["items"]) == 2


@pytest.mark.parametrize("act", ["demote", "disable", "remove"])
def test_of_two_admins_who_end_each_other_one_stays(app: Flask, root: Person, act: str) -> None:
    for number in range(3):
        add_user(root.client, f"admin-{number}", role="admin")
        other = apart(sign_in(root.client, f"admin-{number}"))
        answers = at_once(ending(root, other, act), ending(other, root, act))
        won = [answer.status_code in {200, 204} for answer in answers]
        assert sorted(won) == [False, True], statuses(answers)
        assert answers[won.index(False)].status_code in {401, 403, 409}
        root = (root, other)[won.index(True)]
        admins = root.get("/v1/users?role=admin&is_active=true").json["items"]
        assert [admin["id"] for admin in admins] == [root.id]


def ending(admin: Person, victim: Person, act: str) -> Callable[[], TestResponse]:
    """An act: one administrator ends the other's power."""
    admin, path = apart(admin), f"/v1/users/{victim.id}"
    if act == "remove":
        return lambda: admin.delete(path)
    change = {"role": "user"} if act == "demote" else {"is_active": False}
    return lambda: admin.patch(path, change)


def test_of_many_admins_who_step_down_at_once_one_stays(app: Flask, root: Person) -> None:
    admins = [root]
    for number in range(7):
        add_user(root.client, f"admin-{number}", role="admin")
        admins.append(sign_in(root.client, f"admin-{number}"))
    answers = at_once(*[ending(admin, admin, "demote") for admin in admins])
    assert statuses(answers) == {200: 7, 409: 1}
    [last] = [
        admin for admin, answer in zip(admins, answers, strict=True) if answer.status_code == 409
    ]
    assert len(last.get("/v1/users?role=admin").json["items"]) == 1


def test_concurrent_sign_ins_succeed_while_the_hash_is_renewed(
    app: Flask, make_app: Callable[..., Flask]
) -> None:
    add_user(client_of(app), "alice")
    dearer = make_app(
        database_url=url_of(app), bcrypt_rounds=5, login_attempts="100/300", database_pool_size=16
    )
    answers = at_once(*[signing_in(dearer, "alice") for _ in range(8)])
    assert statuses(answers) == {200: 8}
