"""ASVS 5.0 chapter 10: refresh tokens, how they are replaced, and what ends them."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask

from .support.apps import client_of, url_of
from .support.concurrency import at_once, statuses
from .support.people import Person, add_user, sign_in
from .support.problems import assert_problem
from .support.servers import Server
from .support.tokens import assert_one_chain, refresh, refreshing

Travel = Callable[..., None]


def rotated(person: Person, times: int) -> list[str]:
    """The person's refresh token and those that replaced it, one after another."""
    tokens = [person.refresh_token]
    for _ in range(times):
        answer = refresh(person.client, tokens[-1])
        assert answer.status_code == 200
        tokens.append(answer.json["refresh_token"])
    assert len(set(tokens)) == times + 1
    return tokens


def test_10_4_5_a_token_that_was_replaced_ends_the_session_it_is_of(alice: Person) -> None:
    other = alice.again()
    tokens = rotated(alice, 3)
    for token in (tokens[0], tokens[-1]):  # the copy, and then the newest too
        assert_problem(refresh(alice.client, token), 401, "invalid_credentials")
    assert_problem(alice.get("/v1/auth/me"), 401, "invalid_credentials")
    assert other.get("/v1/auth/me").status_code == 200


def test_10_4_5_an_answer_that_was_lost_can_be_asked_for_again(
    alice: Person, travel: Travel
) -> None:
    first, second = rotated(alice, 1)
    travel(seconds=9)
    assert refresh(alice.client, first).json["refresh_token"] == second
    travel(seconds=2)
    assert_problem(refresh(alice.client, first), 401, "invalid_credentials")
    assert_problem(refresh(alice.client, second), 401, "invalid_credentials")


@pytest.mark.parametrize("many", [16, 64])
def test_10_4_5_refreshes_at_once_get_one_and_the_same_token(
    make_app: Callable[..., Flask], many: int
) -> None:
    app = make_app(database_pool_size=16)
    add_user(client_of(app), "alice")
    alice = sign_in(client_of(app), "alice")
    answers = at_once(*[refreshing(alice) for _ in range(many)])
    assert statuses(answers) == {200: many}
    assert_one_chain(app, alice, [answer.json for answer in answers])


@pytest.mark.slow
def test_10_4_5_the_end_of_a_session_survives_a_crash_right_after_the_refusal(
    make_app: Callable[..., Flask], tree: Path, tmp_path: Path
) -> None:
    settings = {"secret_key": secrets.token_urlsafe(48), "public_url": "http://127.0.0.1:8000"}
    client = client_of(make_app(**settings))
    add_user(client, "root", role="admin")
    root, copied = sign_in(client, "root"), sign_in(client, "root")
    tokens = rotated(copied, 2)
    server = Server("waitress", tree, tmp_path, database_url=url_of(client.application), **settings)
    try:
        server.wait_until_it_serves()
        body = f'{{"refresh_token": "{tokens[0]}"}}'
        answer = server.ask("POST", "/v1/auth/refresh", body)
    finally:
        server.end()  # by SIGKILL
    assert answer.status == 401
    assert_problem(refresh(client, tokens[-1]), 401, "invalid_credentials")
    assert_problem(copied.get("/v1/auth/me"), 401, "invalid_credentials")
    events = root.get("/v1/audit-events?action=session.reuse").json["items"]
    assert [event["outcome"] for event in events] == ["failure"]


def test_10_4_8_a_session_ends_for_good_however_often_it_is_refreshed(
    alice: Person, travel: Travel
) -> None:
    token = alice.refresh_token
    for _ in range(5):
        travel(days=6)
        token = refresh(alice.client, token).json.get("refresh_token", "")
    assert token == ""  # after thirty days
    assert alice.again().get("/v1/auth/me").status_code == 200


def test_10_4_9_users_end_a_session_of_theirs(alice: Person) -> None:
    lost = alice.again()
    [session, _] = alice.get("/v1/auth/sessions").json["items"]
    assert alice.delete(f"/v1/auth/sessions/{session['id']}").status_code == 204
    assert_problem(refresh(alice.client, lost.refresh_token), 401, "invalid_credentials")
    assert_problem(lost.get("/v1/auth/me"), 401, "invalid_credentials")
    assert refresh(alice.client, alice.refresh_token).status_code == 200
