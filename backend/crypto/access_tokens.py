"""Access tokens (RFC 9068): signed with SECRET_KEY, or with a key pair that others can verify."""

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
    """HMAC under a key that we derived: 32 bytes, which no one need ask whether they are a PEM."""

    def prepare_key(self, key: Any) -> bytes:
        """The key as it is."""
        return bytes(key)


class _Signed(jwt.PyJWS):
    """PyJWT's signatures alone: its claims are judged by the machine's clock; ours may be moved."""

    @staticmethod
    def _decode_base64url_segment(segment: bytes, name: str) -> bytes:
        """As PyJWT's, which asks in Python of each character whether it may be there: 40 us."""
        raw = from_base64url(segment.decode("latin-1"))
        if raw is None:
            raise jwt.DecodeError(f"Invalid {name}")
        return raw


_jws = _Signed()
_jws.unregister_algorithm("HS256")
_jws.register_algorithm("HS256", _Derived(hashlib.sha256))


@dataclass(frozen=True, slots=True)
class _Key:
    """What signs, or once signed, access tokens."""

    algorithm: str
    id: str
    private: Any
    public: Any  # the same as `private` if the key is a secret
    header: str  # the first part of each access token it signs


class AccessTokens:
    """Signs and reads the access tokens of one service. SettingsError if its keys cannot be used.

    `public_keys` are the JWKs by which others verify them; none under HS256.
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
        """An access token for the session. `claims` are for other services' information."""
        now, key = int(clock.timestamp()), self._key
        payload = {
            "iss": self._settings.jwt_issuer,
            "aud": self._settings.jwt_audience,
            "sub": str(user_id),
            "client_id": self._settings.api_key_prefix,  # RFC 9068 requires one; all share it
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
        """(user id, session id) of an access token of ours that is in force.

        InvalidCredentials for any other text.
        """
        claims = self.claims(token)
        return UUID(claims["sub"]), UUID(claims["sid"])

    def claims(self, token: str) -> dict[str, Any]:
        """All that an access token of ours says, if it is in force.

        InvalidCredentials for any other text. The header must be, letter for letter, one that we
        write: that settles algorithm, type and key before anything else is looked at.
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
    """True for one of the two ES256 signatures, (r, s) and (r, order - s), of which each makes the
    other: we write the low one, so that a token has one text. Half of all signatures are high.
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
