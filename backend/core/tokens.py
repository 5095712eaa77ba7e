"""Tokens and keys as text: access tokens, refresh tokens, links, API keys; what is encrypted.

Each kind says what it is, is signed or digested under a key of its own, and has exactly one
spelling: text that decodes to the same bytes but reads differently is refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
import string
import zlib
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import jwt
from cryptography.fernet import Fernet, InvalidToken
from itsdangerous import BadSignature, Signer

from . import clock
from .errors import InvalidCredentials, InvalidLink
from .settings import Settings

BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
LEEWAY = 5  # seconds, for exp, nbf and iat
CLAIMS = ["iss", "aud", "sub", "sid", "jti", "iat", "nbf", "exp"]

# What a signed token is for: the letter behind the prefix, and the purpose of its key.
REFRESH, PASSWORD_LINK, EMAIL_LINK, SECOND_STEP = "r", "p", "e", "m"
_PURPOSES = {
    REFRESH: "refresh",
    PASSWORD_LINK: "password-link",
    EMAIL_LINK: "email-link",
    SECOND_STEP: "second-step",
}

_PREFIX = "[a-z][a-z0-9]{1,15}"
_API_KEY = re.compile(rf"({_PREFIX}_[0-9A-Za-z]{{32}})([0-9A-Za-z]{{6}})")
_SIGNED = re.compile(rf"{_PREFIX}([rpem])_([A-Za-z0-9_-]{{1,60}})\.([A-Za-z0-9_-]{{43}})")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_jwt = jwt.PyJWT(options={"enforce_minimum_key_length": True})


def _canonical(part: str) -> bool:
    """True if `part` is the one base64url text of its bytes (RFC 4648 section 3.5)."""
    try:
        raw = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except (binascii.Error, ValueError):
        return False
    return base64.urlsafe_b64encode(raw).rstrip(b"=") == part.encode("ascii", "replace")


def derive(secret: str, purpose: str) -> bytes:
    """A 32-byte key for one purpose, so that no two kinds of token share a key."""
    return hmac.digest(secret.encode(), b"backend:" + purpose.encode(), hashlib.sha256)


@dataclass(frozen=True, slots=True)
class _Secret:
    """What is derived from one SECRET_KEY. `id` names it without telling anything about it."""

    id: str
    access: bytes
    api_key: bytes
    header: str  # the first part of each access token it signs


class Keyring:
    """All that is signed or digested under SECRET_KEY; earlier secrets still verify."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        texts = (settings.secret_key, *settings.secret_key_fallbacks)
        self._secrets = [self._derived_from(text) for text in texts]
        self._by_header = {secret.header: secret for secret in self._secrets}
        self._signers = {
            kind: Signer(
                [derive(text, purpose) for text in reversed(texts)],  # the newest comes last
                salt=f"{purpose}-token",
                key_derivation="hmac",
                digest_method=hashlib.sha256,
            )
            for kind, purpose in _PURPOSES.items()
        }
        self._blinding = derive(settings.secret_key, "blinding")
        self._ciphers = [
            Fernet(base64.urlsafe_b64encode(derive(text, "encryption"))) for text in texts
        ]

    @property
    def secret_ids(self) -> list[str]:
        """The ids of the secrets, the present one first."""
        return [secret.id for secret in self._secrets]

    @staticmethod
    def _derived_from(text: str) -> _Secret:
        name = derive(text, "id").hex()[:8]
        access = derive(text, "access")
        sample = jwt.encode({}, access, "HS256", headers={"typ": "at+jwt", "kid": name})
        return _Secret(name, access, derive(text, "api-key"), sample.partition(".")[0])

    # --- access tokens (RFC 9068) ---

    def sign_access(self, user_id: UUID, session_id: UUID, **claims: str) -> str:
        """An access token for the session. `claims` are for other services' information."""
        now = clock.now()
        lifetime = timedelta(minutes=self._settings.jwt_access_token_expire_minutes)
        secret = self._secrets[0]
        payload = {
            "iss": self._settings.jwt_issuer,
            "aud": self._settings.jwt_audience,
            "sub": str(user_id),
            "sid": str(session_id),
            "jti": secrets.token_urlsafe(16),
            "iat": now,
            "nbf": now,
            "exp": now + lifetime,
            **claims,
        }
        headers = {"typ": "at+jwt", "kid": secret.id}
        return _jwt.encode(payload, secret.access, "HS256", headers=headers)

    def read_access(self, token: str) -> tuple[UUID, UUID]:
        """(user id, session id) of an access token of ours that is in force.

        InvalidCredentials for any other text. The header must be, letter for letter, one that we
        write: that settles algorithm, type and key before anything else is looked at.
        """
        header, *rest = token.split(".")
        secret = self._by_header.get(header)
        if secret is None or len(rest) != 2 or not all(map(_canonical, rest)):
            raise InvalidCredentials
        try:
            claims = _jwt.decode(
                token,
                secret.access,
                algorithms=["HS256"],
                issuer=self._settings.jwt_issuer,
                audience=self._settings.jwt_audience,
                # PyJWT asks the machine's time; ours may be moved by tests.
                options={
                    "require": CLAIMS,
                    "strict_aud": True,
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except jwt.InvalidTokenError:
            raise InvalidCredentials from None
        return _ids_in_force(claims)

    # --- signed tokens: refresh tokens, links in mail, the second step of signing in ---

    def sign_refresh(self, session_id: UUID, generation: int) -> str:
        """The refresh token of the session's generation: the same text each time."""
        return self._sign(REFRESH, session_id.bytes + generation.to_bytes(4))

    def read_refresh(self, token: str) -> tuple[UUID, int]:
        """(session id, generation) of a refresh token that we signed, else InvalidCredentials."""
        raw = self._unsign(REFRESH, token)
        if raw is None:
            raise InvalidCredentials
        return UUID(bytes=raw[:16]), int.from_bytes(raw[16:])

    def sign_for(self, kind: str, user_id: UUID, epoch: int, lifetime: timedelta) -> str:
        """A token of this kind for the user, good for `lifetime` while their epoch is this one."""
        expires = int((clock.timestamp() + lifetime.total_seconds()) * 1_000_000)
        return self._sign(kind, user_id.bytes + epoch.to_bytes(4) + expires.to_bytes(8))

    def read_for(self, kind: str, token: str) -> tuple[UUID, int]:
        """(user id, epoch) of a token that `sign_for` made, else InvalidLink."""
        raw = self._unsign(kind, token)
        if raw is None or clock.timestamp() * 1_000_000 >= int.from_bytes(raw[20:]):
            raise InvalidLink
        return UUID(bytes=raw[:16]), int.from_bytes(raw[16:20])

    def _sign(self, kind: str, raw: bytes) -> str:
        body = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
        text = f"{self._settings.api_key_prefix}{kind}_{body}"
        return self._signers[kind].sign(text).decode()

    def _unsign(self, kind: str, token: str) -> bytes | None:
        """What `_sign` signed as this kind; None for any other text."""
        shape = _SIGNED.fullmatch(token)
        if not shape or shape[1] != kind or not all(map(_canonical, shape.groups()[1:])):
            return None
        try:
            self._signers[kind].unsign(token)
        except BadSignature:
            return None
        return base64.urlsafe_b64decode(shape[2] + "=" * (-len(shape[2]) % 4))

    def blind(self, text: str) -> str:
        """A digest of `text`, 64 hex digits, by which it is found again and not read."""
        return hmac.digest(self._blinding, text.encode(), hashlib.sha256).hex()

    # --- what must be read again, encrypted at rest ---

    def encrypt(self, data: bytes) -> str:
        """`data` under the present SECRET_KEY, authenticated (Fernet)."""
        return self._ciphers[0].encrypt(data).decode()

    def decrypt(self, text: str) -> tuple[bytes, bool]:
        """(what `encrypt` was given, whether it is under an earlier secret).

        LookupError if it was encrypted under a secret that is gone, or altered.
        """
        for cipher in self._ciphers:
            try:
                return cipher.decrypt(text), cipher is not self._ciphers[0]
            except InvalidToken:
                continue
        raise LookupError("encrypted under a SECRET_KEY that is gone")

    # --- API keys ---

    def new_api_key(self) -> str:
        """A fresh key: `<prefix>_`, 32 random characters (190 bits), 6 of checksum."""
        body = "".join(secrets.choice(BASE62) for _ in range(32))
        text = f"{self._settings.api_key_prefix}_{body}"
        return text + _checksum(text)

    def digests(self, key: str) -> list[tuple[str, str]]:
        """(id of the secret, digest in hex) under each secret, the present one first."""
        return [
            (secret.id, hmac.digest(secret.api_key, key.encode(), hashlib.sha256).hex())
            for secret in self._secrets
        ]


def _ids_in_force(claims: dict[str, Any]) -> tuple[UUID, UUID]:
    now = clock.timestamp()
    times = [claims["exp"], claims["nbf"], claims["iat"]]
    if not all(type(each) is int for each in times):
        raise InvalidCredentials
    if now >= claims["exp"] + LEEWAY or max(claims["nbf"], claims["iat"]) > now + LEEWAY:
        raise InvalidCredentials
    ids = claims["sub"], claims["sid"]
    if not all(isinstance(each, str) and _UUID.fullmatch(each) for each in ids):
        raise InvalidCredentials
    return UUID(ids[0]), UUID(ids[1])


def is_api_key(text: str) -> bool:
    """True if `text` has the form of an API key and its checksum is right. Asks no database."""
    shape = _API_KEY.fullmatch(text)
    return shape is not None and _checksum(shape[1]) == shape[2]


def hint(key: str) -> str:
    """What may be shown of a key: its prefix and its last four characters."""
    return f"{key.partition('_')[0]}_...{key[-4:]}"


def _checksum(text: str) -> str:
    """CRC-32 of the ASCII text in base 62, six digits. It tells typing errors, not forgers."""
    number, digits = zlib.crc32(text.encode()), ""
    for _ in range(6):
        number, digit = divmod(number, 62)
        digits = BASE62[digit] + digits
    return digits
