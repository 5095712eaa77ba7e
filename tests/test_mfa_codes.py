"""Codes of the second factor: when they work, that they work once, and how often one may guess."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pyotp
import pytest
from flask import Flask
from werkzeug.test import TestResponse

from backend.core import clock

from .support.apps import client_of, service_of, url_of
from .support.mfa import code_of, enrol
from .support.people import PASSWORD, Person, add_user, sign_in
from .support.problems import assert_problem
from .support.tokens import refresh

Travel = Callable[..., None]
WRONG = "abcdef"  # has the length of a code, and is none


@pytest.fixture(autouse=True)
def early(travel: Travel) -> None:
    """The test begins early in a step of 30 seconds, and ends in the same unless it travels."""
    travel(seconds=31 - clock.timestamp() % 30)


@pytest.fixture
def many(make_app: Callable[..., Flask]) -> Person:
    """A person whose codes 16 threads may try at once."""
    client = client_of(make_app(database_pool_size=16, login_attempts="100/300"))
    add_user(client, "alice")
    return sign_in(client, "alice")


def use(person: Person, code: str, password: str = PASSWORD) -> TestResponse:
    """The answer to a call that uses up a code: the one for new recovery codes."""
    body = {"current_password": password, "code": code}
    return person.post("/v1/auth/mfa/recovery-codes", body)


def use_at_once(person: Person, codes: list[str]) -> Counter[int]:
    """How often each status was returned when each code was used by a thread of its own."""

    def attempt(code: str) -> int:
        return use(replace(person, client=client_of(person.client.application)), code).status_code

    with ThreadPoolExecutor(len(codes)) as pool:
        return Counter(pool.map(attempt, codes))


def left(person: Person) -> int:
    """How many recovery codes the person has."""
    return person.get("/v1/auth/mfa").json["recovery_codes_left"]


def everything(app: Flask) -> str:
    """All rows of all tables, as one text."""
    database = service_of(app).database
    with database.connection_context():
        return "\n".join(
            str(row)
            for table in database.get_tables()
            for row in database.execute_sql(f'SELECT * FROM "{table}"').fetchall()
        )


# --- one-time codes ---


@pytest.mark.parametrize("steps", [-1, 0, 1])
def test_a_code_works_in_its_step_and_the_neighbouring_ones(
    alice: Person, travel: Travel, steps: int
) -> None:
    secret, _ = enrol(alice)
    travel(seconds=300)
    assert use(alice, code_of(secret, steps)).status_code == 200


@pytest.mark.parametrize("steps", [-10, -2, 2, 10])
def test_a_code_of_another_time_does_not_work(alice: Person, travel: Travel, steps: int) -> None:
    secret, _ = enrol(alice)
    travel(seconds=300)
    assert_problem(use(alice, code_of(secret, steps)), 403, "wrong_code")


def test_a_code_works_once(alice: Person, travel: Travel) -> None:
    secret, _ = enrol(alice)
    travel(seconds=60)
    code = code_of(secret)
    assert use(alice, code).status_code == 200
    for _ in range(3):
        assert_problem(use(alice, code), 403, "wrong_code")
        travel(seconds=15)
    assert use(alice, code_of(secret)).status_code == 200


def test_the_code_that_switched_it_on_is_used_up(alice: Person) -> None:
    secret, _ = enrol(alice)
    assert_problem(use(alice, code_of(secret)), 403, "wrong_code")
    assert use(alice, code_of(secret, 1)).status_code == 200


def test_a_code_uses_up_earlier_ones(alice: Person, travel: Travel) -> None:
    secret, _ = enrol(alice)
    travel(seconds=300)
    assert use(alice, code_of(secret, 1)).status_code == 200
    for steps in (-1, 0, 1):
        assert_problem(use(alice, code_of(secret, steps)), 403, "wrong_code")
    travel(seconds=60)
    assert use(alice, code_of(secret, 0)).status_code == 200


def test_of_16_concurrent_uses_of_a_code_one_succeeds(many: Person) -> None:
    secret, _ = enrol(many)
    assert use_at_once(many, [code_of(secret, 1)] * 16) == {200: 1, 403: 15}
    assert left(many) == 10


def test_a_code_may_be_typed_in_two_halves_and_in_ascii_digits_only(
    alice: Person, travel: Travel
) -> None:
    secret, _ = enrol(alice)
    code = code_of(secret, 1)
    wide = code.translate(
        {ord("0") + digit: ord("\N{FULLWIDTH DIGIT ZERO}") + digit for digit in range(10)}
    )
    for text in (wide, f"{code}0", f"0{code}", "éééééé", "☃☃☃☃☃☃"):
        assert_problem(use(alice, text), 403, "wrong_code")
    assert use(alice, f"{code[:3]} {code[3:]}").status_code == 200


# --- recovery codes ---


def test_a_recovery_code_works_once_however_it_is_typed(alice: Person) -> None:
    _, codes = enrol(alice)
    for typed in (
        str,
        str.lower,
        lambda code: code.replace("-", ""),
        lambda code: code.replace("-", " "),
    ):
        code = codes[1]
        response = use(alice, f" {typed(code)}")
        assert response.status_code == 200
        codes = response.json["recovery_codes"]
        assert_problem(use(alice, code), 403, "wrong_code")


def test_a_recovery_code_also_switches_the_second_factor_off(alice: Person) -> None:
    _, codes = enrol(alice)
    body = {"current_password": PASSWORD, "code": codes[9]}
    assert alice.post("/v1/auth/mfa/disable", body).status_code == 204


def test_a_wrong_password_uses_up_no_recovery_code(alice: Person) -> None:
    _, codes = enrol(alice)
    assert_problem(use(alice, codes[0], PASSWORD + "!"), 403, "wrong_password")
    assert left(alice) == 10
    assert use(alice, codes[0]).status_code == 200


def test_of_16_concurrent_uses_of_a_recovery_code_one_succeeds(many: Person) -> None:
    _, codes = enrol(many)
    assert use_at_once(many, [codes[0]] * 16) == {200: 1, 403: 15}
    assert left(many) == 10


def test_new_recovery_codes_replace_the_old_ones(alice: Person) -> None:
    secret, old = enrol(alice)
    new = use(alice, code_of(secret, 1)).json["recovery_codes"]
    assert len(set(new) - set(old)) == 10
    assert left(alice) == 10
    for code in old[:3]:
        assert_problem(use(alice, code), 403, "wrong_code")
    assert use(alice, new[0]).status_code == 200


def test_concurrent_requests_for_recovery_codes_leave_ten(many: Person) -> None:
    _, codes = enrol(many)
    found = use_at_once(many, codes)
    assert set(found) <= {200, 403}
    assert found[200] >= 1
    assert left(many) == 10


# --- guessing ---


def test_after_too_many_wrong_codes_none_is_checked(alice: Person, travel: Travel) -> None:
    secret, codes = enrol(alice)
    for _ in range(10):
        assert_problem(use(alice, WRONG), 403, "wrong_code")
    for code in (WRONG, code_of(secret, 1), codes[0]):
        response = use(alice, code)
        assert_problem(response, 429, "rate_limited")
        assert 0 < int(response.headers["Retry-After"]) <= 300
    travel(seconds=300)
    assert use(alice, codes[0]).status_code == 200


def test_guesses_at_the_first_code_count_too(alice: Person) -> None:
    secret = alice.post("/v1/auth/mfa", {"current_password": PASSWORD}).json["secret"]
    for _ in range(10):
        response = alice.post("/v1/auth/mfa/confirm", {"code": WRONG})
        assert_problem(response, 403, "wrong_code")
    response = alice.post("/v1/auth/mfa/confirm", {"code": code_of(secret)})
    assert_problem(response, 429, "rate_limited")


def test_wrong_passwords_and_wrong_codes_count_together(alice: Person) -> None:
    _, codes = enrol(alice)
    for _ in range(5):
        assert_problem(use(alice, WRONG, PASSWORD + "!"), 403, "wrong_password")
        assert_problem(use(alice, WRONG), 403, "wrong_code")
    assert_problem(use(alice, codes[0]), 429, "rate_limited")


def test_right_codes_do_not_count(alice: Person) -> None:
    _, codes = enrol(alice)
    for _ in range(12):
        codes = use(alice, codes[0]).json["recovery_codes"]


def test_of_many_concurrent_guesses_no_more_are_checked_than_allowed(
    make_app: Callable[..., Flask],
) -> None:
    client = client_of(make_app(database_pool_size=16))
    add_user(client, "alice")
    alice = sign_in(client, "alice")
    alice.post("/v1/auth/mfa", {"current_password": PASSWORD})

    def attempt(_: int) -> int:
        person = replace(alice, client=client_of(client.application))
        return person.post("/v1/auth/mfa/confirm", {"code": WRONG}).status_code

    with ThreadPoolExecutor(16) as pool:
        assert Counter(pool.map(attempt, range(32))) == {403: 10, 429: 22}


# --- secrets ---


def test_no_secret_is_in_the_database_or_in_the_log(
    app: Flask, alice: Person, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    secret, codes = enrol(alice)
    assert_problem(use(alice, codes[3] + "A"), 403, "wrong_code")
    assert use(alice, codes[4]).status_code == 200
    logged = "\n".join(str(record.__dict__) for record in caplog.records)
    found = (everything(app) + logged).lower()
    assert "alice" in found
    assert "mfa.enable" in found
    raw = pyotp.TOTP(secret).byte_secret()
    for text in (secret, raw.hex(), str(raw), *codes, *(code.replace("-", "") for code in codes)):
        assert text.lower() not in found


@pytest.fixture
def rotated(make_app: Callable[..., Flask]) -> Callable[..., Any]:
    """A function that returns Alice, enrolled under an old SECRET_KEY, at each of two later
    servers, with her secret and codes: one that has the old secret still, and one that has not."""

    def build() -> tuple[Person, Person, str, list[str]]:
        old, new = "o" * 20 + "ld-secret-key-of-before", "n" * 20 + "ew-secret-key-of-after"
        before = client_of(make_app(secret_key=old))
        add_user(before, "alice")
        alice = sign_in(before, "alice")
        secret, codes = enrol(alice)
        url = url_of(before.application)
        between = make_app(secret_key=new, secret_key_fallbacks=old, database_url=url)
        tokens = refresh(client_of(between), alice.refresh_token).json
        alice = replace(alice, access_token=tokens["access_token"])
        after = make_app(secret_key=new, database_url=url)
        at = [replace(alice, client=client_of(app)) for app in (between, after)]
        return at[0], at[1], secret, codes

    return build


def doctor(person: Person) -> str:
    """What `flask doctor` says about the person's server."""
    return person.client.application.test_cli_runner().invoke(args=["doctor"]).output


@pytest.mark.slow
def test_a_secret_moves_to_the_current_key_when_it_is_used(
    rotated: Callable[..., Any], travel: Travel
) -> None:
    between, after, secret, _ = rotated()
    assert "number 1 is still needed by 1 second factor;" in doctor(between)
    assert_problem(use(between, WRONG), 403, "wrong_code")
    assert use(between, code_of(secret, 1)).status_code == 200
    assert "second factors" not in doctor(between) + doctor(after)
    travel(seconds=60)
    assert use(after, code_of(secret)).status_code == 200


def test_recovery_codes_work_when_the_key_of_the_secret_is_gone(
    rotated: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    _, after, secret, codes = rotated()
    lost = "1 second factor cannot be used without a SECRET_KEY that is no longer set"
    assert lost in doctor(after)
    caplog.clear()
    assert_problem(use(after, code_of(secret, 1)), 403, "wrong_code")
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "SECRET_KEY" in record.getMessage()
    assert record.__dict__["user_id"] == after.id
    body = {"current_password": PASSWORD, "code": codes[0]}
    assert after.post("/v1/auth/mfa/disable", body).status_code == 204
    assert "second factors" not in doctor(after)
    enrol(after)
