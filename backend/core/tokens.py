"""Tokens and keys as text: access tokens, refresh tokens, API keys.

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
from itsdangerous import BadSignature, Signer

from . import clock
from .errors import InvalidCredentials
from .settings import Settings

BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
LEEWAY = 5  # seconds, for exp, nbf and iat
CLAIMS = ["iss", "aud", "sub", "sid", "jti", "iat", "nbf", "exp"]

_PREFIX = "[a-z][a-z0-9]{1,15}"
_API_KEY = re.compile(rf"({_PREFIX}_[0-9A-Za-z]{{32}})([0-9A-Za-z]{{6}})")
_REFRESH = re.compile(rf"{_PREFIX}r_([A-Za-z0-9_-]{{27}})\.([A-Za-z0-9_-]{{43}})")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_jwt = jwt.PyJWT(options={"enforce_minimum_key_length": True})


def _canonical(part: str) -> bool:
    """True if `part` is the one base64url text of its bytes (RFC 4648 section 3.5)."""
    try:
        raw = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except (binascii.Error, ValueError):
        return False
    return base64.urlsafe_b64encode(raw).rstrip(b"=") == part.encode("ascii", "replace")


def _derive(secret: str, purpose: str) -> bytes:
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
        self._secrets = [self._derived(text) for text in texts]
        self._by_header = {secret.header: secret for secret in self._secrets}
        self._refresh = Signer(
            [_derive(text, "refresh") for text in reversed(texts)],  # the newest comes last
            salt="refresh-token",
            key_derivation="hmac",
            digest_method=hashlib.sha256,
        )

    @property
    def secret_ids(self) -> list[str]:
        """The ids of the secrets, the present one first."""
        return [secret.id for secret in self._secrets]

    @staticmethod
    def _derived(text: str) -> _Secret:
        name = _derive(text, "id").hex()[:8]
        access = _derive(text, "access")
        sample = jwt.encode({}, access, "HS256", headers={"typ": "at+jwt", "kid": name})
        return _Secret(name, access, _derive(text, "api-key"), sample.partition(".")[0])

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

    # --- refresh tokens ---

    def sign_refresh(self, session_id: UUID, generation: int) -> str:
        """The refresh token of the session's generation: the same text each time."""
        raw = session_id.bytes + generation.to_bytes(4)
        body = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
        return self._refresh.sign(f"{self._settings.api_key_prefix}r_{body}").decode()

    def read_refresh(self, token: str) -> tuple[UUID, int]:
        """(session id, generation) of a refresh token that we signed, else InvalidCredentials."""
        shape = _REFRESH.fullmatch(token)
        if not shape or not all(map(_canonical, shape.groups())):
            raise InvalidCredentials
        try:
            self._refresh.unsign(token)
        except BadSignature:
            raise InvalidCredentials from None
        raw = base64.urlsafe_b64decode(shape[1] + "=")
        return UUID(bytes=raw[:16]), int.from_bytes(raw[16:])

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
