"""Access tokens (RFC 9068): signed with SECRET_KEY, or with a key pair that others can verify.

Skip it on a first reading.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import jwt
from jwt.algorithms import HMACAlgorithm

from ..core import clock
from ..core.errors import InvalidCredentials
from ..core.settings import Settings
from . import signing_keys
from .keyring import derive, from_base64url, secret_id

_CLAIMS = {"iss", "aud", "sub", "sid", "jti", "iat", "nbf", "exp"}
LEEWAY = 5  # seconds, for exp, nbf and iat
# The order of the group of P-256 (FIPS 186-5, SP 800-186 section 3.2.1.3).
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class _Derived(HMACAlgorithm):
    """HMAC with a derived key of 32 bytes."""

    def prepare_key(self, key: Any) -> bytes:
        """Return the key. PyJWT would check each time, for 20 us, that it is not a public key."""
        return bytes(key)


class _Signed(jwt.PyJWS):
    """PyJWT's signatures only: it checks claims by the machine's clock, and tests move ours."""

    @staticmethod
    def _decode_base64url_segment(segment: bytes, name: str) -> bytes:
        """Decode like PyJWT, which checks each character in Python and takes 20 us longer."""
        raw = from_base64url(segment.decode("latin-1"))
        if raw is None:
            raise jwt.DecodeError(f"Invalid {name}")
        return raw


_jws = _Signed(["EdDSA", "ES256"])
_jws.register_algorithm("HS256", _Derived(hashlib.sha256))


@dataclass(frozen=True, slots=True)
class _Key:
    """A key that signs access tokens, or used to."""

    algorithm: str
    id: str
    private: Any
    public: Any  # the same as `private` if the key is a secret
    header: str  # the first part of each access token that it signs


class AccessTokens:
    """Signs and reads the access tokens of one service.

    `public_keys` are the JWKs with which others can verify them; none with HS256. Raises
    SettingsError if the keys cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.public_keys: list[dict[str, Any]] = []
        if settings.jwt_algorithm == "HS256":
            keys = _secrets(settings)
        else:
            pairs = signing_keys.load(settings)
            keys = [_pair(settings.jwt_algorithm, pair) for pair in pairs]
            self.public_keys = [
                signing_keys.public_members(key.private)
                | {"kid": key.id, "use": "sig", "alg": key.algorithm}
                for key in keys
            ]
        self._key = keys[0]
        self._by_header = {key.header: key for key in keys}

    def sign(self, user_id: UUID, session_id: UUID, **claims: str) -> str:
        """Return an access token for the session. `claims` are extra, for other services."""
        now, key = int(clock.timestamp()), self._key
        payload = {
            "iss": self._settings.jwt_issuer,
            "aud": self._settings.jwt_audience,
            "sub": str(user_id),
            "client_id": self._settings.api_key_prefix,  # RFC 9068 requires it; always the same
            "sid": str(session_id),
            "jti": secrets.token_urlsafe(16),
            "iat": now,
            "nbf": now,
            "exp": now + self._settings.jwt_access_token_expire_minutes * 60,
            **claims,
        }
        text = json.dumps(payload, separators=(",", ":")).encode()
        headers = {"typ": "at+jwt", "kid": key.id}
        while True:
            token = _jws.encode(text, key.private, key.algorithm, headers=headers)
            if key.algorithm != "ES256" or not _has_high_s(token):
                return token

    def read(self, token: str) -> tuple[UUID, UUID]:
        """Return (user id, session id) of one of our access tokens that is currently valid.

        Raises InvalidCredentials for any other text.
        """
        claims = self.claims(token)
        return UUID(claims["sub"]), UUID(claims["sid"])

    def claims(self, token: str) -> dict[str, Any]:
        """Return all claims of one of our access tokens that is currently valid.

        Raises InvalidCredentials for any other text. The header must be the same, character for
        character, as one that we write, which fixes algorithm, type and key from the start.
        """
        key = self._by_header.get(token.partition(".")[0])
        if key is None:
            raise InvalidCredentials
        try:
            claims = json.loads(_jws.decode(token, key.public, algorithms=[key.algorithm]))
        except (jwt.InvalidTokenError, ValueError):
            raise InvalidCredentials from None
        if key.algorithm == "ES256" and _has_high_s(token):
            raise InvalidCredentials
        if not isinstance(claims, dict) or not claims.keys() >= _CLAIMS:
            raise InvalidCredentials
        ours = self._settings.jwt_issuer, self._settings.jwt_audience
        if (claims["iss"], claims["aud"]) != ours:
            raise InvalidCredentials
        _require_in_force(claims)
        return claims


def _secrets(settings: Settings) -> list[_Key]:
    keys = []
    for text in (settings.secret_key, *settings.secret_key_fallbacks):
        name, secret = secret_id(text), derive(text, "access")
        keys.append(_Key("HS256", name, secret, secret, _header("HS256", name, secret)))
    return keys


def _pair(algorithm: str, key: signing_keys.PrivateKey) -> _Key:
    name = signing_keys.thumbprint(key)
    return _Key(algorithm, name, key, key.public_key(), _header(algorithm, name, key))


def _header(algorithm: str, name: str, key: Any) -> str:
    sample = jwt.encode({}, key, algorithm, headers={"typ": "at+jwt", "kid": name})
    return sample.partition(".")[0]


def _has_high_s(token: str) -> bool:
    """Return whether s is the higher one of the two valid signatures (r, s) and (r, order - s).

    Anyone can turn one into the other, and half of all signatures are high. We only accept the low
    one, so that each token has exactly one text.
    """
    raw = base64.urlsafe_b64decode(token.rpartition(".")[2] + "==")
    return int.from_bytes(raw[32:]) > _ORDER // 2


def _require_in_force(claims: dict[str, Any]) -> None:
    now, expires, begins, made = clock.timestamp(), claims["exp"], claims["nbf"], claims["iat"]
    if not type(expires) is type(begins) is type(made) is int:
        raise InvalidCredentials
    if now >= expires + LEEWAY or max(begins, made) > now + LEEWAY:
        raise InvalidCredentials
    for claim in (claims["sub"], claims["sid"]):
        if not isinstance(claim, str) or not _UUID.fullmatch(claim):
            raise InvalidCredentials
