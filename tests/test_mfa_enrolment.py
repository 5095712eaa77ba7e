"""The second factor: setting it up, switching it off, and an administrator's help."""

import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pyotp
import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from .support.apps import client_of, service_of, settle
from .support.mfa import code_of, enrol
from .support.people import PASSWORD, Person, add_user, sign_in
from .support.problems import assert_problem

OFF = {"enabled": False, "recovery_codes_left": 0}
ON = {"enabled": True, "recovery_codes_left": 10}


def state(person: Person) -> dict[str, Any]:
    """The state of the person's second factor."""
    return person.get("/v1/auth/mfa").json


def start(person: Person, password: str = PASSWORD) -> TestResponse:
    """The answer to starting to set up a second factor."""
    return person.post("/v1/auth/mfa", {"current_password": password})


def confirm(person: Person, code: str) -> TestResponse:
    """The answer to switching it on with a code."""
    return person.post("/v1/auth/mfa/confirm", {"code": code})


def disable(person: Person, code: str, password: str = PASSWORD) -> TestResponse:
    """The answer to switching it off."""
    return person.post("/v1/auth/mfa/disable", {"current_password": password, "code": code})


def rows(app: Flask) -> int:
    """How many rows the tables of the second factor hold."""
    database = service_of(app).database
    with database.connection_context():
        return sum(
            database.execute_sql(f"SELECT COUNT(*) FROM {table}").fetchone()[0]
            for table in ("second_factors", "recovery_codes")
        )


def wrong(secret: str) -> str:
    """A code that is wrong for the secret at this time."""
    near = {code_of(secret, steps) for steps in range(-3, 4)}
    return next(code for code in ("000000", "111111", "222222") if code not in near)


# --- switching it on ---


def test_the_second_factor_is_off_at_first(alice: Person) -> None:
    assert state(alice) == OFF
    assert alice.get("/v1/auth/me").json["mfa_enabled"] is False


def test_it_is_on_once_confirmed_with_a_code_from_the_app(alice: Person, root: Person) -> None:
    response = start(alice)
    assert response.status_code == 201
    assert set(response.json) == {"secret", "otpauth_uri", "qr_svg"}
    assert state(alice) == OFF
    assert alice.get("/v1/auth/me").json["mfa_enabled"] is False
    before = root.get(f"/v1/users/{alice.id}").json

    response = confirm(alice, code_of(response.json["secret"]))
    assert (response.status_code, set(response.json)) == (200, {"recovery_codes"})
    codes = response.json["recovery_codes"]
    assert len(set(codes)) == 10
    assert all(re.fullmatch("([A-Z2-7]{7}-){3}[A-Z2-7]{5}", code) for code in codes)
    assert state(alice) == ON
    assert alice.get("/v1/auth/me").json["mfa_enabled"] is True
    after = root.get(f"/v1/users/{alice.id}").json
    assert after["mfa_enabled"] is True
    assert after["updated_at"] > before["updated_at"]
    assert state(root) == OFF


def test_the_uri_contains_all_that_an_app_needs(make_app: Callable[..., Flask]) -> None:
    client = client_of(make_app(public_url="http://[::1]:8443/in/here", service_name="Müller & Co"))
    add_user(client, "a.l-i_ce")
    given = start(sign_in(client, "a.l-i_ce")).json
    totp = pyotp.parse_uri(given["otpauth_uri"])
    assert isinstance(totp, pyotp.TOTP)
    assert (totp.secret, totp.name, totp.issuer) == (
        given["secret"],
        "a.l-i_ce",
        "Müller & Co",
    )
    assert (totp.digits, totp.interval, totp.digest().name) == (6, 30, "sha1")
    assert len(totp.byte_secret()) == 20
    assert given["otpauth_uri"].startswith("otpauth://totp/M%C3%BCller%20%26%20Co:a.l-i_ce?")


def test_the_qr_code_is_one_svg_element_that_fetches_and_runs_nothing(alice: Person) -> None:
    svg = start(alice).json["qr_svg"]
    root = ET.fromstring(svg)
    namespace = "{http://www.w3.org/2000/svg}"
    assert (root.tag, set(root.attrib)) == (f"{namespace}svg", {"viewBox"})
    background, modules = root
    assert {background.tag, modules.tag} == {f"{namespace}path"}
    assert set(background.attrib) == {"d", "fill"}
    assert set(modules.attrib) == {"d", "stroke"}
    # A quiet zone of four modules, and white also where the page is dark.
    size = root.attrib["viewBox"].split()[2]
    assert background.attrib == {"fill": "#fff", "d": f"M0 0h{size}v{size}h-{size}z"}
    assert modules.attrib["d"].startswith("M4 4.5h7")


def test_setting_it_up_requires_the_password(alice: Person) -> None:
    assert_problem(start(alice, PASSWORD + "!"), 403, "wrong_password")
    assert_problem(confirm(alice, "123456"), 409, "conflict")


def test_a_wrong_code_is_403_and_does_not_end_the_session(alice: Person) -> None:
    secret = start(alice).json["secret"]
    for code in (wrong(secret), "ABCDEF-ABCDEF-ABCDEF-ABCDEF"):
        response = confirm(alice, code)
        assert_problem(response, 403, "wrong_code")
        assert "WWW-Authenticate" not in response.headers
    assert state(alice) == OFF
    assert confirm(alice, code_of(secret)).status_code == 200


def test_setting_it_up_again_replaces_the_unconfirmed_secret(app: Flask, alice: Person) -> None:
    first, second = start(alice).json["secret"], start(alice).json["secret"]
    assert first != second
    assert rows(app) == 1
    assert_problem(confirm(alice, code_of(first)), 403, "wrong_code")
    assert confirm(alice, code_of(second)).status_code == 200


def test_a_second_factor_that_is_on_cannot_be_set_up_or_confirmed_again(alice: Person) -> None:
    secret, _ = enrol(alice)
    assert_problem(start(alice, PASSWORD + "!"), 403, "wrong_password")
    assert_problem(start(alice), 409, "conflict")
    assert_problem(confirm(alice, code_of(secret, 1)), 409, "conflict")
    assert disable(alice, code_of(secret, 1)).status_code == 204


def test_confirming_without_setting_up_is_refused(alice: Person, bob: Person) -> None:
    secret = start(bob).json["secret"]
    assert_problem(confirm(alice, code_of(secret)), 409, "conflict")


def test_of_concurrent_confirmations_one_succeeds(make_app: Callable[..., Flask]) -> None:
    app = make_app(database_pool_size=16, login_attempts="100/300")
    client = client_of(app)
    add_user(client, "alice")
    alice = sign_in(client, "alice")
    secret = start(alice).json["secret"]
    codes = [code_of(secret), code_of(secret, 1)] * 8

    def attempt(code: str) -> TestResponse:
        return confirm(replace(alice, client=client_of(app)), code)

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(attempt, codes))
    found = Counter(answer.status_code for answer in answers)
    assert found[200] == 1
    assert found[403] + found[409] == 15
    assert state(alice) == ON
    assert rows(app) == 11


def test_concurrent_setups_leave_one_secret(make_app: Callable[..., Flask]) -> None:
    app = make_app(database_pool_size=16)
    client = client_of(app)
    add_user(client, "alice")
    alice = sign_in(client, "alice")
    with ThreadPoolExecutor(8) as pool:
        people = [replace(alice, client=client_of(app)) for _ in range(8)]
        answers = list(pool.map(start, people))
    assert {answer.status_code for answer in answers} == {201}
    assert rows(app) == 1
    codes = [code_of(answer.json["secret"]) for answer in answers]
    assert sorted(confirm(alice, code).status_code for code in codes).count(200) == 1


# --- switching it off ---


def test_switching_it_off_requires_password_and_code_and_leaves_nothing(
    app: Flask, alice: Person, bob: Person
) -> None:
    secret, _ = enrol(alice)
    other = alice.with_key(alice.new_key())
    response = disable(alice, code_of(secret, 1))
    assert (response.status_code, response.data) == (204, b"")
    assert state(alice) == OFF
    assert rows(app) == 0
    for person in (alice, other, bob):
        assert person.get("/v1/auth/me").json["mfa_enabled"] is False
    again, codes = enrol(alice)
    assert again != secret
    assert disable(alice, codes[0]).status_code == 204


def test_a_wrong_password_or_code_leaves_it_on(alice: Person) -> None:
    secret, _ = enrol(alice)
    assert_problem(disable(alice, code_of(secret, 1), PASSWORD + "!"), 403, "wrong_password")
    response = disable(alice, wrong(secret))
    assert_problem(response, 403, "wrong_code")
    assert state(alice) == ON
    # The code that came with a wrong password was not used up.
    assert disable(alice, code_of(secret, 1)).status_code == 204


def test_a_second_factor_that_is_off_cannot_be_switched_off(alice: Person) -> None:
    for path in ("/v1/auth/mfa/disable", "/v1/auth/mfa/recovery-codes"):
        body = {"current_password": PASSWORD, "code": "123456"}
        assert_problem(alice.post(path, body), 409, "conflict")
        start(alice)
        assert_problem(alice.post(path, body), 409, "conflict")
        body["current_password"] += "!"
        assert_problem(alice.post(path, body), 403, "wrong_password")


def test_of_many_concurrent_requests_to_switch_it_off_one_succeeds(
    make_app: Callable[..., Flask],
) -> None:
    app = make_app(database_pool_size=16, login_attempts="100/300")
    client = client_of(app)
    add_user(client, "alice")
    alice = sign_in(client, "alice")
    _, codes = enrol(alice)

    def attempt(code: str) -> TestResponse:
        return disable(replace(alice, client=client_of(app)), code)

    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(attempt, codes))
    found = Counter(answer.status_code for answer in answers)
    assert found[204] == 1
    assert found[403] + found[409] == 9
    assert (state(alice), rows(app)) == (OFF, 0)


def test_codes_of_another_user_do_not_work(alice: Person, bob: Person) -> None:
    secret, codes = enrol(alice)
    enrol(bob)
    for code in (code_of(secret, 1), codes[0]):
        assert_problem(disable(bob, code), 403, "wrong_code")
    assert state(alice) == state(bob) == ON


def test_a_new_password_leaves_it_on(alice: Person) -> None:
    secret, _ = enrol(alice)
    new = "purple elephants drink tea"
    body = {"current_password": PASSWORD, "new_password": new}
    assert alice.post("/v1/auth/password", body).status_code == 204
    assert state(alice) == ON
    assert disable(alice, code_of(secret, 1), new).status_code == 204


def test_a_deleted_user_leaves_nothing(app: Flask, alice: Person, root: Person) -> None:
    enrol(alice)
    assert rows(app) == 11
    assert root.delete(f"/v1/users/{alice.id}").status_code == 204
    assert rows(app) == 0


# --- an administrator's help ---


def test_an_administrator_removes_a_lost_second_factor(
    app: Flask, alice: Person, root: Person
) -> None:
    secret, codes = enrol(alice)
    for _ in range(2):
        response = root.delete(f"/v1/users/{alice.id}/mfa")
        assert (response.status_code, response.data) == (204, b"")
        assert (state(alice), rows(app)) == (OFF, 0)
    for code in (code_of(secret, 1), codes[0]):
        assert_problem(disable(alice, code), 409, "conflict")
    enrol(alice)


def test_removing_it_discards_an_unconfirmed_secret(alice: Person, root: Person) -> None:
    secret = start(alice).json["secret"]
    assert root.delete(f"/v1/users/{alice.id}/mfa").status_code == 204
    assert_problem(confirm(alice, code_of(secret)), 409, "conflict")


def test_a_key_removes_it_from_users_but_not_from_administrators(
    alice: Person, root: Person
) -> None:
    key = root.with_key(root.new_key(scopes=["users:write"]))
    enrol(alice)
    enrol(root)
    assert key.delete(f"/v1/users/{alice.id}/mfa").status_code == 204
    assert_problem(key.delete(f"/v1/users/{root.id}/mfa"), 403, "session_required")
    assert (state(alice), state(root)) == (OFF, ON)


def test_others_cannot_remove_it(alice: Person, bob: Person, root: Person) -> None:
    enrol(alice)
    assert_problem(bob.delete(f"/v1/users/{alice.id}/mfa"), 403, "forbidden")
    assert_problem(alice.delete(f"/v1/users/{alice.id}/mfa"), 403, "forbidden")
    unknown = alice.id[:-6] + "000000"
    assert_problem(root.delete(f"/v1/users/{unknown}/mfa"), 404, "not_found")
    assert state(alice) == ON


# --- what is recorded, and mailed ---


def test_switching_it_on_or_off_and_refusals_are_recorded(alice: Person, root: Person) -> None:
    assert_problem(start(alice, PASSWORD + "!"), 403, "wrong_password")
    secret = start(alice).json["secret"]
    assert_problem(confirm(alice, wrong(secret)), 403, "wrong_code")
    codes = confirm(alice, code_of(secret)).json["recovery_codes"]
    renew = {"current_password": PASSWORD, "code": codes[0]}
    codes = alice.post("/v1/auth/mfa/recovery-codes", renew).json["recovery_codes"]
    response = alice.post("/v1/auth/mfa/recovery-codes", renew)
    assert_problem(response, 403, "wrong_code")
    assert_problem(disable(alice, codes[0], PASSWORD + "!"), 403, "wrong_password")
    assert disable(alice, codes[0]).status_code == 204
    enrol(alice)
    for _ in range(2):
        assert root.delete(f"/v1/users/{alice.id}/mfa").status_code == 204

    events = root.get(f"/v1/audit-events?target_id={alice.id}").json["items"]
    events = [event for event in events if event["action"].startswith("mfa.")][::-1]
    assert {event["target_type"] for event in events} == {"user"}
    assert [event["actor_id"] for event in events] == [alice.id] * 8 + [root.id]
    assert [(event["action"], event["outcome"], event["detail"]) for event in events] == [
        ("mfa.enable", "failure", {"code": "wrong_password"}),
        ("mfa.enable", "failure", {"code": "wrong_code"}),
        ("mfa.enable", "success", {}),
        ("mfa.enable", "success", {"recovery_codes": "new"}),
        ("mfa.enable", "failure", {"code": "wrong_code"}),
        ("mfa.disable", "failure", {"code": "wrong_password"}),
        ("mfa.disable", "success", {}),
        ("mfa.enable", "success", {}),
        ("mfa.disable", "success", {"by_admin": True}),
    ]


@pytest.mark.slow
def test_the_user_is_notified_when_it_is_switched_on_or_off(
    app: Flask, alice: Person, root: Person
) -> None:
    _, codes = enrol(alice)
    assert_problem(disable(alice, "abcdef"), 403, "wrong_code")
    assert disable(alice, codes[0]).status_code == 204
    settle(app)  # mail that waits is replaced by the next of its kind
    enrol(alice)
    for _ in range(2):
        assert root.delete(f"/v1/users/{alice.id}/mfa").status_code == 204
    settle(app)
    service = service_of(app)
    mails = [(str(mail["To"]), str(mail["Subject"])) for mail in service.mailer.outbox]
    on, off = (f"Second factor at Backend switched {way}" for way in ("on", "off"))
    assert mails == [("alice@example.com", subject) for subject in (on, off, on, off)]
    by = ["An administrator" in str(mail.get_body(("plain",))) for mail in service.mailer.outbox]
    assert by == [False, False, False, True]


# --- what is sent ---


@pytest.mark.parametrize("path", ["confirm", "disable", "recovery-codes"])
def test_a_code_is_a_text_of_6_to_40_characters(client: FlaskClient, path: str) -> None:
    add_user(client, "alice")
    alice = sign_in(client, "alice")
    good: dict[str, Any] = {"code": "123456"}
    if path != "confirm":
        good["current_password"] = PASSWORD
    for value in (None, 123456, True, ["123456"], "", "12345", "1" * 41, "123456\0"):
        response = alice.post(f"/v1/auth/mfa/{path}", good | {"code": value})
        assert_problem(response, 422, "validation_error", "json.code")
    response = alice.post(f"/v1/auth/mfa/{path}", good | {"secret": "x"})
    assert_problem(response, 422, "validation_error", "json.secret")
    for name in good:
        rest = {other: good[other] for other in good.keys() - {name}}
        response = alice.post(f"/v1/auth/mfa/{path}", rest)
        assert_problem(response, 422, "validation_error", f"json.{name}")
