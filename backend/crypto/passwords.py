"""Passwords: hashing, verifying, refusing weak ones, and limiting concurrent hashes.

Skip it on a first reading.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import os
import string
import threading
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import bcrypt

from ..core import context
from ..core.errors import Invalid, Unavailable
from ..core.metrics import Metrics
from ..core.settings import Settings
from ..db.database import release
from . import patterns

MAX_LENGTH = 1024  # characters
LEAST_NAME = 3  # characters; shorter names appear in many passwords by chance
_ADDITIONS = f"{string.digits}{string.punctuation} "  # what people add to a common password
LONGEST_COMMON = 20  # characters of the longest password in the list

Account = UUID | str | None  # a user's id, or a name that no user has


def normalised(password: str) -> str:
    """Return the form in which a password is counted and hashed, however it was typed (NFC)."""
    return unicodedata.normalize("NFC", password)


class PasswordHasher:
    """bcrypt over base64(HMAC-SHA-384(key = the hash's own salt, password)).

    The inner MAC makes every character count; bcrypt alone ignores those after 72 bytes. Its key is
    the salt, so hashes stolen elsewhere cannot be used here, and there is no secret to rotate. Its
    48 bytes are 64 characters in base64, without NUL.

    A hash keeps one core busy for a quarter of a second. This process runs at most one hash for
    each core in its share. At most half of the server's threads get a place, to run a hash or to
    wait for it, so that a flood of logins leaves threads for other requests. Beyond that,
    Unavailable is raised. Each account and each network address gets a share of the places, and
    each account runs one hash at a time, so that others can sign in while one client tries in a
    loop.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._metrics = metrics
        self.rounds = settings.bcrypt_rounds
        self._running = threading.Semaphore(max(1, (os.cpu_count() or 1) // settings.workers))
        self._places = max(1, settings.threads // 2)
        self._lock = threading.Condition()
        self._hashing: set[Account] = set()  # the accounts with a running hash
        self._taken = 0
        self._accounts: Counter[Any] = Counter()  # the number of places that each holds
        self._addresses: Counter[Any] = Counter()

    def hash(self, password: str, account: Account = None) -> str:
        """Hash `password` in one of the account's places; return the text to store."""
        with self._turn(account):
            return self._bcrypt(password, bcrypt.gensalt(self.rounds)).decode()

    def verify(self, password: str, stored: str | None, account: Account = None) -> bool:
        """Return whether `stored` is a hash of `password`. None takes as long, and never is."""
        reference = stored.encode() if stored else bcrypt.gensalt(self.rounds)
        with self._turn(account):  # one for all hashes, or a right password could be refused
            right = hmac.compare_digest(self._bcrypt(password, reference), reference)
            # Each cost takes twice as long as the one below. These extra hashes make an old,
            # cheaper hash take as long as a current one, so that timing does not reveal the user.
            for rounds in range(_rounds(reference), self.rounds):
                self._bcrypt(password, bcrypt.gensalt(rounds))
        return right

    def needs_rehash(self, stored: str) -> bool:
        """Return whether `stored` has a cost other than BCRYPT_ROUNDS."""
        return _rounds(stored.encode()) != self.rounds

    def _bcrypt(self, password: str, salt: bytes) -> bytes:
        salt = salt[:29]  # "$2b$12$" and 22 characters
        inner = hmac.digest(salt[7:], normalised(password).encode(), hashlib.sha384)
        with self._running:
            return bcrypt.hashpw(base64.b64encode(inner), salt)

    @contextmanager
    def _turn(self, account: Account) -> Iterator[None]:
        """Hold a place, and wait until the account has no other running hash."""
        _give_back_connection()
        with self.place(account):
            with self._lock:
                self._lock.wait_for(lambda: account not in self._hashing)
                self._hashing |= {account} - {None}
            try:
                yield
            finally:
                with self._lock:
                    self._hashing.discard(account)
                    self._lock.notify_all()

    def require_place(self, account: Account = None) -> None:
        """Raise Unavailable if `place` would, without taking a place."""
        with self._lock:
            self._require_place(account, context.network())

    @contextmanager
    def place(self, account: Account = None) -> Iterator[None]:
        """Hold one of the limited hashing places. Raises Unavailable if none is free."""
        address = context.network()
        with self._lock:
            self._require_place(account, address)
            self._take(account, address, 1)
        try:
            with self._metrics.hashes.track_inprogress():
                yield
        finally:
            with self._lock:
                self._take(account, address, -1)

    def _require_place(self, account: Account, address: str) -> None:
        """Raise Unavailable if this account or this address may not take a place now.

        An account must leave at least as many places free as it holds. An address can have three
        quarters of all places.
        """
        free, held = self._places - self._taken, self._accounts[account] if account else 0
        crowded = address and self._addresses[address] >= self._places - self._places // 4
        if not free or crowded or (held and held + 2 > free):
            self._metrics.hashes_refused.inc()
            raise Unavailable("Too many passwords are being checked. Try again shortly.")

    def _take(self, account: Account, address: str, number: int) -> None:
        self._taken += number
        for places, holder in ((self._accounts, account), (self._addresses, address)):
            places[holder] += number
            if not places[holder]:
                del places[holder]  # keep only holders, so that the counters stay small


def _rounds(stored: bytes) -> int:
    return int(stored.split(b"$")[2])


def _give_back_connection() -> None:
    """Release this thread's database connection, unless it is in a transaction."""
    service = context.running()
    if service and not service.database.in_transaction():
        release(service.database)


def require_strong(password: str, field: str, names: Iterable[str], settings: Settings) -> None:
    """Raise Invalid `password_too_weak`, naming `field`, for a password that is easy to guess.

    That is a password that is too short, contains one of the user's `names` or the service's name,
    is common, or has fewer `patterns.choices` than two fifths of the minimum length. No rule
    requires certain kinds of characters (ASVS 5.0 6.2.1, 6.2.4, 6.2.5, 6.2.11).
    """
    text = normalised(password)
    lower = text.lower()
    if len(text) < settings.password_min_length:
        fault = f"At least {settings.password_min_length} characters."
    elif any(len(name) >= LEAST_NAME and name.lower() in lower for name in names):
        fault = "Must not contain the username or the name in the e-mail address."
    elif len(ours := _name_of_service(settings)) >= LEAST_NAME and ours in lower:
        fault = "Must not contain the name of this service."
    elif patterns.choices(text) < (enough := settings.password_min_length * 2 // 5):
        fault = "Too simple: most of it is repetition, a sequence, or neighbouring keys."
    elif _is_common(lower) or _is_common_with_additions(lower, enough):
        fault = "Too common: it would be one of the first guesses."
    else:
        return
    raise Invalid(field, fault, "password_too_weak")


def _name_of_service(settings: Settings) -> str:
    """Return the second-to-last label of PUBLIC_URL's host name: acme in id.acme.example."""
    host = urlsplit(settings.public_url).hostname or ""
    return host.split(".")[-2:][0]


def _is_common(text: str) -> bool:
    """Return True for one of 30,000 known passwords, or for one of them repeated."""
    known = _common_passwords()
    units = (text[:length] for length in range(4, min(len(text), LONGEST_COMMON + 1)))
    return text in known or any(
        unit in known
        and len(set(unit)) > 1
        and (unit * (len(text) // len(unit) + 1)).startswith(text)
        for unit in units
    )


def _is_common_with_additions(text: str, enough: int) -> bool:
    """Return True for a common password with too few choices in the digits and signs around it."""
    word = text.strip(_ADDITIONS)
    if not word or not _is_common(word):
        return False
    before, _, after = text.partition(word)
    return 2 + patterns.choices(before + after) < enough


@functools.cache
def _common_passwords() -> frozenset[str]:
    from zxcvbn.frequency_lists import FREQUENCY_LISTS  # slow to load, and rarely needed

    return frozenset(FREQUENCY_LISTS["passwords"])
