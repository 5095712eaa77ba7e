"""Passwords: hashing, checking, what is too weak, and how many may be hashed at once."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager

import bcrypt

from .errors import Invalid, Unavailable
from .settings import Settings

MAX_LENGTH = 1024  # characters


def normalised(password: str) -> str:
    """The form of a password that is counted and hashed, however it was typed (NFC)."""
    return unicodedata.normalize("NFC", password)


class Hasher:
    """bcrypt over base64(HMAC-SHA-384(key = the hash's own salt, password)).

    The inner MAC makes every character count where bcrypt alone stops at 72 bytes; its key is the
    salt, so that a hash stolen elsewhere is of no use here, and no secret has to be rotated. 48
    bytes are 64 in base64, without NUL.

    A hash takes a quarter of a second of one core. At most one per core of this process's share
    runs at a time, and at most half of the server's threads run or wait for one, so that a flood of
    logins leaves threads and cores to the rest; beyond that, Unavailable.
    """

    def __init__(self, settings: Settings) -> None:
        self.rounds = settings.bcrypt_rounds
        self._running = threading.Semaphore(max(1, (os.cpu_count() or 1) // settings.workers))
        self._inside = threading.Semaphore(max(1, settings.threads // 2))

    def hash(self, password: str) -> str:
        """The text to store for `password`."""
        return self._bcrypt(password, bcrypt.gensalt(self.rounds)).decode()

    def check(self, password: str, stored: str | None) -> bool:
        """True if `stored` was made of `password`. None takes as long, and is never right."""
        reference = stored.encode() if stored else bcrypt.gensalt(self.rounds)
        return hmac.compare_digest(self._bcrypt(password, reference), reference)

    def _bcrypt(self, password: str, salt: bytes) -> bytes:
        salt = salt[:29]  # "$2b$12$" and 22 characters
        inner = hmac.digest(salt[7:], normalised(password).encode(), hashlib.sha384)
        with self._place():
            return bcrypt.hashpw(base64.b64encode(inner), salt)

    @contextmanager
    def _place(self) -> Iterator[None]:
        if not self._inside.acquire(blocking=False):
            raise Unavailable("Too many passwords are being checked. Try again shortly.")
        try:
            with self._running:
                yield
        finally:
            self._inside.release()


def require_strong(password: str, field: str, settings: Settings) -> None:
    """Raise Invalid `password_too_weak`, naming `field`, for a password that is too short."""
    if len(normalised(password)) < settings.password_min_length:
        raise Invalid(
            field, f"At least {settings.password_min_length} characters.", "password_too_weak"
        )
