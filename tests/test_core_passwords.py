"""Password hashes: their form, what they are made of, and how many are made at once."""

from __future__ import annotations

import base64
import hashlib
import hmac
import random
import re
import string
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import bcrypt
import pytest

from backend.core import context
from backend.core.errors import Invalid, Unavailable
from backend.core.metrics import Metrics
from backend.crypto.passwords import MAX_LENGTH, Account, PasswordHasher, require_strong

from .support.concurrency import until
from .support.people import PASSWORD
from .support.settings import make_settings


@pytest.fixture(scope="module")
def hasher() -> PasswordHasher:
    """A hasher with the cost of tests."""
    return PasswordHasher(make_settings(), Metrics())


def test_a_hash_is_bcrypt_in_sixty_characters_and_differs_each_time(hasher: PasswordHasher) -> None:
    hashes = {hasher.hash(PASSWORD) for _ in range(5)}
    assert len(hashes) == 5
    for stored in hashes:
        assert re.fullmatch(r"\$2b\$04\$[./A-Za-z0-9]{53}", stored)
        assert hasher.verify(PASSWORD, stored) is True
        assert hasher.verify(PASSWORD + " ", stored) is False
        assert hasher.verify("", stored) is False


def test_a_hash_is_bcrypt_of_a_mac_keyed_with_the_hashs_own_salt(hasher: PasswordHasher) -> None:
    stored = hasher.hash(PASSWORD)
    salt = stored[7:29]
    inner = base64.b64encode(hmac.new(salt.encode(), PASSWORD.encode(), hashlib.sha384).digest())
    assert len(inner) == 64
    assert bcrypt.hashpw(inner, stored[:29].encode()).decode() == stored
    assert bcrypt.checkpw(PASSWORD.encode(), stored.encode()) is False


def test_a_hash_known_from_before_is_still_right(hasher: PasswordHasher) -> None:
    stored = "$2b$04$abcdefghijklmnopqrstuuELXaMQss1IC/aoIL0es1f1bBqLsLR9y"
    assert hasher.verify(PASSWORD, stored) is True


def test_a_plain_bcrypt_hash_is_never_right(hasher: PasswordHasher) -> None:
    stored = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    assert hasher.verify(PASSWORD, stored) is False


def test_the_cost_is_that_of_the_settings_and_older_hashes_stay_right(
    hasher: PasswordHasher,
) -> None:
    dearer = PasswordHasher(make_settings(bcrypt_rounds=5), Metrics())
    assert dearer.hash(PASSWORD).startswith("$2b$05$")
    assert dearer.verify(PASSWORD, hasher.hash(PASSWORD)) is True
    assert hasher.verify(PASSWORD, dearer.hash(PASSWORD)) is True


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x" * 99 + "a", "x" * 99 + "b"),
        ("x" * 72, "x" * 73),
        ("x" * 1023 + "a", "x" * 1023 + "b"),
        ("before\0after", "before\0other"),
        ("\N{GRINNING FACE}" * 20, "\N{GRINNING FACE}" * 21),
        (PASSWORD, PASSWORD.upper()),
        (PASSWORD, f" {PASSWORD}"),
    ],
)
def test_every_character_counts(hasher: PasswordHasher, one: str, other: str) -> None:
    stored = hasher.hash(one)
    assert hasher.verify(one, stored) is True
    assert hasher.verify(other, stored) is False


@pytest.mark.parametrize(
    ("composed", "decomposed"),
    [
        ("\N{LATIN SMALL LETTER E WITH ACUTE}", "e\N{COMBINING ACUTE ACCENT}"),
        ("\N{ANGSTROM SIGN}", "A\N{COMBINING RING ABOVE}"),
    ],
)
def test_two_spellings_of_one_character_are_one_password(
    hasher: PasswordHasher, composed: str, decomposed: str
) -> None:
    assert hasher.verify(decomposed * 15, hasher.hash(composed * 15)) is True
    assert hasher.verify(composed * 15, hasher.hash(decomposed * 15)) is True


def test_compatible_characters_are_different_passwords(hasher: PasswordHasher) -> None:
    ligature = "\N{LATIN SMALL LIGATURE FI}" * 15
    assert hasher.verify("fi" * 15, hasher.hash(ligature)) is False


def test_nobody_is_checked_at_the_same_cost_and_never_right() -> None:
    hasher = PasswordHasher(make_settings(bcrypt_rounds=9), Metrics())
    stored = hasher.hash(PASSWORD)
    old = PasswordHasher(make_settings(bcrypt_rounds=5), Metrics()).hash(PASSWORD)

    def cost(reference: str | None) -> float:
        began = time.process_time()
        assert hasher.verify(PASSWORD, reference) is (reference is not None)
        return time.process_time() - began

    somebody, nobody, of_old = (
        min(cost(reference) for _ in range(3)) for reference in (stored, None, old)
    )
    assert nobody > somebody / 3
    assert nobody * 3 > of_old > nobody / 3  # and not a sixteenth
    assert hasher.verify("", None) is False
    assert hasher.verify(PASSWORD, "") is False


def test_beyond_half_of_the_threads_hashing_is_refused_at_once() -> None:
    hasher = PasswordHasher(make_settings(threads=4, bcrypt_rounds=11), Metrics())
    over = threading.Event()
    refused: list[Unavailable] = []

    def hash_on() -> None:
        while not over.is_set():
            try:
                hasher.hash(PASSWORD)
            except Unavailable as refusal:
                refused.append(refusal)

    def ask() -> float:
        began = time.perf_counter()
        with pytest.raises(Unavailable):
            hasher.verify(PASSWORD, None)
        return time.perf_counter() - began

    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(hash_on) for _ in range(2)]
        try:
            until(lambda: hasher._taken == 2)
            assert min(ask() for _ in range(5)) < 0.05
        finally:
            over.set()
    for each in both:
        each.result()
    assert refused == []
    assert hasher.verify(PASSWORD, None) is False


def hold(places: ExitStack, hasher: PasswordHasher, account: Account, address: str = "") -> None:
    """Take a place as a request from the address would, for as long as `places` lasts."""
    token = context.call.set(context.Call("", address, "POST", ""))
    try:
        places.enter_context(hasher.place(account))
    finally:
        context.call.reset(token)


def test_an_account_leaves_others_as_many_places_as_it_holds() -> None:
    hasher = PasswordHasher(make_settings(threads=8), Metrics())  # four places
    with ExitStack() as places:
        for _ in range(2):
            hold(places, hasher, "mallory")
        with pytest.raises(Unavailable):
            hold(places, hasher, "mallory")
        hold(places, hasher, "alice")
        with pytest.raises(Unavailable):
            hold(places, hasher, "alice")  # which would leave none
        hold(places, hasher, "bob")
        with pytest.raises(Unavailable):
            hold(places, hasher, "carol")
    with ExitStack() as places:  # all were given back
        for _ in range(2):
            hold(places, hasher, "mallory")


def test_an_address_leaves_a_quarter_of_the_places_to_others() -> None:
    hasher = PasswordHasher(make_settings(threads=16), Metrics())  # eight places
    with ExitStack() as places:
        for number in range(6):
            hold(places, hasher, f"name{number}", f"2001:db8::{number}")
        with pytest.raises(Unavailable):
            hold(places, hasher, "alice", "2001:db8::ffff")
        hold(places, hasher, "alice", "192.0.2.1")


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_with_few_places_each_account_has_one(threads: int) -> None:
    hasher = PasswordHasher(make_settings(threads=threads), Metrics())
    with ExitStack() as places:
        hold(places, hasher, "mallory", "192.0.2.1")
        with pytest.raises(Unavailable):
            hold(places, hasher, "mallory", "192.0.2.1")
        if threads == 4:
            hold(places, hasher, "alice", "192.0.2.1")


def test_the_hashes_of_one_account_run_one_after_another() -> None:
    hasher = PasswordHasher(make_settings(threads=8), Metrics())
    with ThreadPoolExecutor(1) as pool:
        with hasher._turn("mallory"):
            waiting = pool.submit(hasher.hash, PASSWORD, "mallory")
            until(lambda: hasher._taken == 2)
            assert hasher.verify(PASSWORD, hasher.hash(PASSWORD, "alice"), "alice") is True
            assert not waiting.done()
        assert hasher.verify(PASSWORD, waiting.result(30), "mallory") is True


def test_a_right_password_keeps_its_place_until_an_older_hash_took_its_time() -> None:
    stored = PasswordHasher(make_settings(bcrypt_rounds=4), Metrics()).hash(PASSWORD)
    hasher = PasswordHasher(make_settings(threads=2, bcrypt_rounds=8), Metrics())  # one place

    def push_in(over: threading.Event) -> None:
        until(lambda: hasher._taken or over.is_set())
        while not over.is_set():
            with suppress(Unavailable), hasher.place():
                over.wait(30)

    with ThreadPoolExecutor(1) as pool:
        for _ in range(10):
            over = threading.Event()
            pushing = pool.submit(push_in, over)
            try:
                assert hasher.verify(PASSWORD, stored) is True
            finally:
                over.set()
            pushing.result()


def test_a_refusal_takes_no_place(hasher: PasswordHasher) -> None:
    single = PasswordHasher(make_settings(threads=1), Metrics())
    for _ in range(3):
        with pytest.raises(UnicodeEncodeError):
            single.hash("\ud800")
    with pytest.raises(ValueError, match="salt"):
        single.verify(PASSWORD, "$2b$04$short")
    assert single.verify(PASSWORD, single.hash(PASSWORD)) is True


def test_a_password_is_too_short_below_the_setting_counted_in_characters() -> None:
    settings = make_settings(password_min_length=10)
    require_strong("ten lettrs", "password", [], settings)
    require_strong("\N{GRINNING FACE}" * 10, "password", [], settings)
    require_strong((PASSWORD * 40)[:MAX_LENGTH], "password", [], settings)
    for weak in ("", "nine char", "e\N{COMBINING ACUTE ACCENT}" * 9):
        with pytest.raises(Invalid) as refusal:
            require_strong(weak, "new_password", [], settings)
        assert refusal.value.code == "password_too_weak"
        assert refusal.value.errors == {"json": {"new_password": ["At least 10 characters."]}}


@pytest.mark.parametrize(
    "unit",
    [
        "x",
        "ab",
        "qwertyuiop",
        "0123456789",
        "\u0439\u0446\u0443",
        "e\u0301",
        "1q2w3e4r5t",
        "a1b2c3",
    ],
)
def test_a_pattern_is_refused_at_any_length(unit: str) -> None:
    for length in (15, 16, 40, 72, MAX_LENGTH):
        with pytest.raises(Invalid) as refusal:
            require_strong((unit * MAX_LENGTH)[:length], "password", [], make_settings())
        assert refusal.value.code == "password_too_weak"


def test_judging_a_password_of_any_kind_takes_less_than_twenty_milliseconds() -> None:
    chance, settings = random.Random(1), make_settings()
    kinds = {
        "one character": "x" * MAX_LENGTH,
        "a walk": ("qwertyuiop" * MAX_LENGTH)[:MAX_LENGTH],
        "a known password": ("password1" * MAX_LENGTH)[:MAX_LENGTH],
        "random": "".join(chance.choices(string.printable[:95], k=MAX_LENGTH)),
        "random ideographs": "".join(chr(chance.randrange(0x4E00, 0x9FFF)) for _ in range(1024)),
        "emoji": "\N{GRINNING FACE}" * MAX_LENGTH,
        "letters that grow in lower case": "\u0130" * MAX_LENGTH,
    }
    require_strong(PASSWORD, "password", [], settings)  # the list is loaded once
    for kind, text in kinds.items():
        times = []
        for _ in range(5):
            begun = time.thread_time()
            with suppress(Invalid):
                require_strong(text, "password", ["alice", "alice.b"], settings)
            times.append(time.thread_time() - begun)
        assert min(times) < 0.02, kind
