"""How often a password may be guessed: per account and address, per address, per account."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from uuid import UUID

import pytest
from flask import Flask
from flask.testing import FlaskClient

from .support.apps import client_of, service_of, url_of
from .support.mail import mails_of, token_in
from .support.mfa import code_of, enrol
from .support.passwords import AWAY, HOME, guess, guesses
from .support.people import NEW_PASSWORD, PASSWORD, Person, add_user, sign_in
from .support.problems import assert_problem


def test_after_ten_wrong_guesses_no_password_is_checked(client: FlaskClient) -> None:
    add_user(client, "alice")
    assert guesses(client, "alice", 10) == [401] * 10
    refused = guess(client, "alice", PASSWORD)
    assert_problem(refused, 429, "rate_limited")
    assert 1 <= int(refused.headers["Retry-After"]) <= 300


def test_others_and_other_addresses_are_not_affected(client: FlaskClient) -> None:
    add_user(client, "alice")
    add_user(client, "bob")
    guesses(client, "alice", 11)
    assert guess(client, "bob", PASSWORD).status_code == 200
    assert guess(client, "alice", PASSWORD, AWAY).status_code == 200


def test_guessing_is_allowed_again_when_the_time_is_over(
    client: FlaskClient, travel: Callable[..., None]
) -> None:
    add_user(client, "alice")
    guesses(client, "alice", 11)
    travel(seconds=299)
    assert_problem(guess(client, "alice", PASSWORD), 429, "rate_limited")
    travel(seconds=2)
    assert guesses(client, "alice", 10) == [401] * 10
    assert_problem(guess(client, "alice", PASSWORD), 429, "rate_limited")


def test_only_failures_count(client: FlaskClient) -> None:
    add_user(client, "alice")
    for _ in range(3):
        assert guesses(client, "alice", 3) == [401] * 3
        assert guess(client, "alice", PASSWORD).status_code == 200
    assert guesses(client, "alice", 2) == [401, 429]


def test_unknown_names_are_treated_like_known_ones(client: FlaskClient) -> None:
    add_user(client, "alice")
    for number in range(12):
        answers = []
        for name in ("alice", "nobody"):
            response = guess(client, name)
            body = {k: v for k, v in response.json.items() if k != "request_id"}
            kept = {
                k: v
                for k, v in response.headers.items()
                if k not in ("X-Request-ID", "Content-Length")
            }
            answers.append((response.status_code, body, kept))
        assert answers[0] == answers[1], number


def test_an_account_has_one_limit_however_it_is_named(client: FlaskClient) -> None:
    add_user(client, "alice")
    names = ["alice", "ALICE", "Alice@example.com", "alice@EXAMPLE.com", "aLiCe"]
    assert [guess(client, name).status_code for name in names * 2] == [401] * 10
    for name in names:
        assert_problem(guess(client, name, PASSWORD), 429, "rate_limited")


def test_an_unknown_name_has_one_limit_in_either_case(client: FlaskClient) -> None:
    assert guesses(client, "nobody", 5) + guesses(client, "NOBODY", 6) == [401] * 10 + [429]
    mail = "nobody@example.com"
    assert guesses(client, mail, 5) + guesses(client, mail.upper(), 6) == [401] * 10 + [429]


def test_an_address_may_not_try_many_accounts(make_app: Callable[..., Flask]) -> None:
    client = client_of(make_app(login_attempts_per_address="5/300"))
    add_user(client, "alice")
    assert [guess(client, f"name{number}").status_code for number in range(6)] == [401] * 5 + [429]
    assert_problem(guess(client, "alice", PASSWORD), 429, "rate_limited")
    assert guess(client, "alice", PASSWORD, AWAY).status_code == 200


@pytest.mark.parametrize(
    ("address", "neighbour", "stranger"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", "2001:db8:1:3::1"),
        ("::ffff:192.0.2.9", "192.0.2.9", "192.0.2.8"),
    ],
)
def test_an_ipv6_network_counts_as_one_address(
    client: FlaskClient, address: str, neighbour: str, stranger: str
) -> None:
    add_user(client, "alice")
    guesses(client, "alice", 10, address)
    assert_problem(guess(client, "alice", PASSWORD, neighbour), 429, "rate_limited")
    assert guess(client, "alice", PASSWORD, stranger).status_code == 200


def test_strangers_cannot_lock_the_owner_out(
    make_app: Callable[..., Flask], travel: Callable[..., None]
) -> None:
    client = client_of(make_app(login_attempts_per_account="5/86400"))
    add_user(client, "alice")
    assert guess(client, "alice", PASSWORD, HOME).status_code == 200
    spent = [guess(client, "alice", address=f"198.51.100.{n}").status_code for n in range(6)]
    assert spent == [401] * 5 + [429]
    assert_problem(guess(client, "alice", PASSWORD, AWAY), 429, "rate_limited")
    assert guess(client, "alice", PASSWORD, HOME).status_code == 200
    # The owner's address may not guess without end either.
    assert guesses(client, "alice", 11, HOME) == [401] * 10 + [429]
    travel(hours=24, seconds=1)
    assert guess(client, "alice", PASSWORD, AWAY).status_code == 200


def test_an_address_is_forgotten_after_thirty_days(
    make_app: Callable[..., Flask], travel: Callable[..., None]
) -> None:
    client = client_of(make_app(login_attempts_per_account="5/86400"))
    add_user(client, "alice")
    assert guess(client, "alice", PASSWORD, HOME).status_code == 200
    travel(days=30, seconds=1)
    guesses(client, "alice", 5, AWAY)
    assert_problem(guess(client, "alice", PASSWORD, HOME), 429, "rate_limited")


def test_of_many_concurrent_guesses_ten_are_checked(client: FlaskClient) -> None:
    add_user(client, "alice")
    together = Barrier(64)

    def one(_: int) -> int:
        together.wait()
        return guess(client_of(client.application), "alice").status_code

    with ThreadPoolExecutor(64) as pool:
        statuses = Counter(pool.map(one, range(64)))
    assert set(statuses) <= {401, 429, 503}, statuses
    assert 1 <= statuses[401] <= 10, statuses


def test_the_limit_holds_for_all_processes_together(
    client: FlaskClient, make_app: Callable[..., Flask]
) -> None:
    add_user(client, "alice")
    other = client_of(make_app(database_url=url_of(client.application)))
    assert guesses(client, "alice", 5) + guesses(other, "alice", 5) == [401] * 10
    for each in (client, other):
        assert_problem(guess(each, "alice", PASSWORD), 429, "rate_limited")


def test_a_wrong_current_password_counts_too(client: FlaskClient, alice: Person) -> None:
    body = {"current_password": "wrong", "new_password": "purple elephants drink tea"}
    for _ in range(10):
        assert_problem(alice.post("/v1/auth/password", body), 403, "wrong_password")
    assert_problem(alice.post("/v1/auth/password", body), 429, "rate_limited")
    renaming = {"current_password": PASSWORD, "username": "alicia"}
    assert_problem(alice.patch("/v1/auth/me", renaming), 429, "rate_limited")
    assert_problem(guess(client, "alice", PASSWORD, "127.0.0.1"), 429, "rate_limited")
    assert alice.get("/v1/auth/me").status_code == 200


@pytest.mark.slow
def test_a_guess_that_could_not_be_checked_does_not_count(
    make_app: Callable[..., Flask],
) -> None:
    client = client_of(make_app(threads=1, bcrypt_rounds=10))
    add_user(client, "alice")
    hasher = service_of(client.application).password_hasher
    with hasher.place():  # as if another request were at it
        assert guesses(client, "alice", 12) == [503] * 12
        # Before anything is read, so that it costs next to nothing.
        assert_problem(client.post("/v1/auth/login", data=b"{"), 503, "unavailable")
    assert guesses(client, "alice", 11) == [401] * 10 + [429]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/auth/login", {"username": "alice@example.com", "password": PASSWORD}),
        ("PATCH", "/v1/auth/me", {"username": "alicia", "current_password": PASSWORD}),
        (
            "POST",
            "/v1/auth/password",
            {"current_password": PASSWORD, "new_password": NEW_PASSWORD},
        ),
        ("POST", "/v1/auth/mfa", {"current_password": PASSWORD}),
        ("POST", "/v1/auth/mfa/disable", {"current_password": PASSWORD, "code": "123456"}),
        ("POST", "/v1/auth/mfa/recovery-codes", {"current_password": PASSWORD, "code": "123456"}),
    ],
)
def test_an_account_that_hashes_its_share_waits_and_others_do_not(
    make_app: Callable[..., Flask], method: str, path: str, body: dict[str, str]
) -> None:
    client = client_of(make_app(threads=8))  # four places
    for name in ("alice", "bob"):
        add_user(client, name)
    alice, bob = sign_in(client, "alice"), sign_in(client, "bob")
    hasher = service_of(client.application).password_hasher
    with hasher.place(UUID(alice.id)), hasher.place(UUID(alice.id)):
        for _ in range(11):  # which are no guesses
            refused = client.open(path, method=method, json=body, headers=alice.headers)
            assert_problem(refused, 503, "unavailable")
            assert refused.headers["Retry-After"] == "1"
        renamed = bob.patch("/v1/auth/me", {"username": "bobby", "current_password": PASSWORD})
        assert renamed.status_code == 200
        assert guess(client, "bobby", PASSWORD).status_code == 200
    assert guess(client, "alice", PASSWORD).status_code == 200


def test_unknown_names_have_a_share_too(make_app: Callable[..., Flask]) -> None:
    client = client_of(make_app(threads=8))
    hasher = service_of(client.application).password_hasher
    with hasher.place("nobody"), hasher.place("nobody"):
        assert_problem(guess(client, "NOBODY"), 503, "unavailable")
        assert_problem(guess(client, "nobody-else"), 401, "invalid_credentials")


def test_setting_a_password_uses_the_share_of_whoever_sets_it(
    make_app: Callable[..., Flask],
) -> None:
    client = client_of(make_app(threads=8))
    add_user(client, "root", role="admin")
    root = sign_in(client, "root")
    hasher = service_of(client.application).password_hasher
    account = {"username": "carol", "email": "carol@example.com"}
    invited = root.post("/v1/auth/register", account).json["id"]
    link = {"token": token_in(mails_of(client)[-1]), "new_password": NEW_PASSWORD}
    with hasher.place(UUID(root.id)), hasher.place(UUID(root.id)):
        dora = {"username": "dora", "email": "dora@example.com", "password": PASSWORD}
        assert_problem(root.post("/v1/auth/register", dora), 503, "unavailable")
    with hasher.place(UUID(invited)), hasher.place(UUID(invited)):
        reset = client.post("/v1/auth/password/reset", json=link)
        assert_problem(reset, 503, "unavailable")
    assert client.post("/v1/auth/password/reset", json=link).status_code == 204


def test_the_database_does_not_reveal_what_was_typed(client: FlaskClient) -> None:
    typed = "correct-horse-typed-as-a-name"
    add_user(client, "alice")
    guess(client, typed)
    guess(client, "alice")
    database = service_of(client.application).database
    rows = database.execute_sql("SELECT bucket FROM throttles").fetchall()
    database.close()
    assert len(rows) == 5  # two accounts, each with and without the address, and the address
    assert not [bucket for (bucket,) in rows if "alice" in bucket or typed in bucket]


@pytest.mark.parametrize("address", ["", "unix:", "unix:/run/backend.sock", "localhost", "x" * 90])
def test_a_peer_without_an_address_is_limited_too(client: FlaskClient, address: str) -> None:
    add_user(client, "alice")
    assert guess(client, "alice", PASSWORD, address).status_code == 200
    assert guesses(client, "alice", 11, address) == [401] * 10 + [429]


def test_signing_in_again_is_not_limited(client: FlaskClient) -> None:
    add_user(client, "alice")
    for _ in range(12):
        sign_in(client, "alice")


# --- an owner whose address is not known ---


@pytest.fixture
def besieged(make_app: Callable[..., Flask]) -> FlaskClient:
    """A service whose accounts allow few failures a day."""
    return client_of(make_app(login_attempts_per_account="5/86400"))


def besiege(client: FlaskClient, name: str) -> None:
    """Strangers use up all the failures that the account may have in a day."""
    spent = [guess(client, name, address=f"198.51.100.{n}").status_code for n in range(6)]
    assert spent == [401] * 5 + [429]
    assert_problem(guess(client, name, PASSWORD, HOME), 429, "rate_limited")


def use_link(client: FlaskClient, what: str, address: str = HOME) -> None:
    """Use the link in the newest mail from an address: to set NEW_PASSWORD, or just confirm."""
    body = {"token": token_in(mails_of(client)[-1])}
    body |= {"new_password": NEW_PASSWORD} if what == "password/reset" else {}
    where = {"REMOTE_ADDR": address}
    answer = client.post(f"/v1/auth/{what}", json=body, environ_overrides=where)
    assert answer.status_code == 204


def test_a_locked_out_owner_signs_in_after_a_reset(besieged: FlaskClient) -> None:
    add_user(besieged, "alice")
    besiege(besieged, "alice")
    besieged.post("/v1/auth/password/forgot", json={"email": "alice@example.com"})
    use_link(besieged, "password/reset")
    # Strangers who go on lock out other addresses, and not the one at which the link was used.
    spent = [guess(besieged, "alice", address=f"203.0.113.{n}").status_code for n in range(6)]
    assert spent == [401] * 5 + [429]
    assert_problem(guess(besieged, "alice", NEW_PASSWORD, AWAY), 429, "rate_limited")
    assert guess(besieged, "alice", NEW_PASSWORD, HOME).status_code == 200


def test_a_locked_out_owner_signs_in_after_an_invitation(
    besieged: FlaskClient,
) -> None:
    add_user(besieged, "carol", password=None)
    besiege(besieged, "carol")
    use_link(besieged, "password/reset")
    assert guess(besieged, "carol", NEW_PASSWORD, HOME).status_code == 200


def test_a_confirmed_address_lets_its_owner_sign_in_where_it_was_confirmed(
    besieged: FlaskClient,
) -> None:
    add_user(besieged, "alice")
    alice = sign_in(besieged, "alice")
    change = {"email": "alice@new.example.com", "current_password": PASSWORD}
    assert alice.patch("/v1/auth/me", change).status_code == 200
    besiege(besieged, "alice")
    use_link(besieged, "email/confirm")
    assert guess(besieged, "alice", PASSWORD, HOME).status_code == 200


def test_a_reset_forgives_the_owners_own_wrong_guesses(client: FlaskClient) -> None:
    add_user(client, "alice")
    assert guesses(client, "alice", 11) == [401] * 10 + [429]
    client.post("/v1/auth/password/forgot", json={"email": "alice@example.com"})
    use_link(client, "password/reset")
    assert guess(client, "alice", NEW_PASSWORD).status_code == 200


def test_whoever_reads_the_mail_gets_no_more_guesses_at_the_second_factor(
    besieged: FlaskClient, travel: Callable[..., None]
) -> None:
    add_user(besieged, "alice")
    alice = sign_in(besieged, "alice")  # from 127.0.0.1
    secret, _ = enrol(alice)
    travel(seconds=60)

    def guess_codes(address: str, password: str, *codes: str) -> list[int]:
        token = guess(besieged, "alice", password, address).json["mfa_token"]
        return [
            besieged.post(
                "/v1/auth/login/mfa",
                json={"mfa_token": token, "code": code},
                environ_overrides={"REMOTE_ADDR": address},
            ).status_code
            for code in codes
        ]

    assert guess_codes(AWAY, PASSWORD, "abcdef", "abcdef", "abcdef") == [401] * 3
    besieged.post("/v1/auth/password/forgot", json={"email": "alice@example.com"})
    use_link(besieged, "password/reset", AWAY)
    assert guess_codes(AWAY, NEW_PASSWORD, *["abcdef"] * 3) == [401, 401, 429]
    assert guess_codes(AWAY, NEW_PASSWORD, code_of(secret)) == [429]
    assert guess_codes("127.0.0.1", NEW_PASSWORD, code_of(secret)) == [200]
