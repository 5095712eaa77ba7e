"""Tokens and keys as text: refresh tokens, links, API keys; encryption at rest.

Each kind is recognizable, is signed or digested with its own key, and has exactly one spelling: a
different text that decodes to the same bytes is refused. Skip it on a first reading.
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
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from cryptography import fernet
from cryptography.fernet import Fernet
from itsdangerous import BadSignature, Signer

from ..core import clock
from ..core.errors import InvalidCredentials, InvalidToken
from ..core.settings import Settings

BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase

# For each kind of signed token, the letter after the prefix, and the purpose of its key.
REFRESH, PASSWORD_LINK, EMAIL_LINK, SECOND_STEP = "r", "p", "e", "m"
_PURPOSES = {
    REFRESH: "refresh",
    PASSWORD_LINK: "password-link",
    EMAIL_LINK: "email-link",
    SECOND_STEP: "second-step",
}

_PREFIX = "[a-z][a-z0-9]{1,15}"
_API_KEY = re.compile(rf"({_PREFIX}_[0-9A-Za-z]{{32}})([0-9A-Za-z]{{6}})")
_ANY_API_KEY = re.compile(rf"(?=({_PREFIX}_[0-9A-Za-z]{{38}}))")  # anywhere in a text
_FOREIGN_KEY = re.compile("[!-~]{1,512}")
_DIGEST = re.compile(r"(?P<sha256>[0-9a-f]{64})|sha512\$\$(?P<sha512>[0-9a-f]{128})")
_SIGNED = re.compile(rf"{_PREFIX}([rpem])_([A-Za-z0-9_-]{{1,60}})\.([A-Za-z0-9_-]{{43}})")


def to_base64url(raw: bytes) -> str:
    """Encode in base64url without padding (RFC 4648 section 5)."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def from_base64url(part: str) -> bytes | None:
    """Decode canonical base64url (RFC 4648 section 3.5); None for any other text."""
    try:
        raw = base64.urlsafe_b64decode(f"{part}==")
    except (binascii.Error, ValueError):
        return None
    return raw if base64.urlsafe_b64encode(raw).rstrip(b"=") == part.encode() else None


def derive(secret: str, purpose: str) -> bytes:
    """Derive a 32-byte key for a purpose, so that no two kinds of token share a key."""
    return hmac.digest(secret.encode(), b"backend:" + purpose.encode(), hashlib.sha256)


def secret_id(secret: str) -> str:
    """Return an id for a SECRET_KEY that reveals nothing about it."""
    return derive(secret, "id").hex()[:8]


@dataclass(frozen=True, slots=True)
class _Secret:
    """Values that are derived from a SECRET_KEY."""

    id: str
    api_key: hmac.HMAC  # keyed once, and copied for each digest


class Keyring:
    """Signs, digests and encrypts with SECRET_KEY; earlier secrets still verify and decrypt.

    `secret_ids` are the ids of the secrets, the current one first.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        texts = (settings.secret_key, *settings.secret_key_fallbacks)
        self._secrets = [
            _Secret(secret_id(text), hmac.new(derive(text, "api-key"), digestmod=hashlib.sha256))
            for text in texts
        ]
        self.secret_ids = [secret.id for secret in self._secrets]
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
        self._event_keys = [derive(text, "audit-event") for text in texts]
        self._ciphers = [
            Fernet(base64.urlsafe_b64encode(derive(text, "encryption"))) for text in texts
        ]

    # --- signed tokens: refresh tokens, links in mail, the second step of signing in ---

    def sign_refresh(self, session_id: UUID, generation: int) -> str:
        """Return the refresh token for this generation of the session: the same text each time."""
        return self._sign(REFRESH, session_id.bytes + generation.to_bytes(4))

    def read_refresh(self, token: str) -> tuple[UUID, int]:
        """Return (session id, generation) of one of our refresh tokens.

        Raises InvalidCredentials for any other text.
        """
        raw = self._unsign(REFRESH, token)
        if raw is None:
            raise InvalidCredentials
        return UUID(bytes=raw[:16]), int.from_bytes(raw[16:])

    def sign_for(self, kind: str, user_id: UUID, epoch: int, lifetime: timedelta) -> str:
        """Return a token of this kind for the user, valid for `lifetime` and for this epoch."""
        expires = int((clock.timestamp() + lifetime.total_seconds()) * 1_000_000)
        return self._sign(kind, user_id.bytes + epoch.to_bytes(4) + expires.to_bytes(8))

    def read_for(self, kind: str, token: str) -> tuple[UUID, int]:
        """Return (user id, epoch) of a token from `sign_for`. Raises InvalidToken otherwise."""
        raw = self._unsign(kind, token)
        if raw is None or clock.timestamp() * 1_000_000 >= int.from_bytes(raw[20:]):
            raise InvalidToken
        return UUID(bytes=raw[:16]), int.from_bytes(raw[16:20])

    def _sign(self, kind: str, raw: bytes) -> str:
        text = f"{self._settings.api_key_prefix}{kind}_{to_base64url(raw)}"
        return self._signers[kind].sign(text).decode()

    def _unsign(self, kind: str, token: str) -> bytes | None:
        """Return the bytes that `_sign` signed as this kind; None for any other text."""
        shape = _SIGNED.fullmatch(token)
        if not shape or shape[1] != kind:
            return None
        raw, signature = from_base64url(shape[2]), from_base64url(shape[3])
        if raw is None or signature is None:
            return None
        try:
            self._signers[kind].unsign(token)
        except BadSignature:
            return None
        return raw

    def blind(self, text: str) -> str:
        """Return a digest of `text`, 64 hex digits, by which to find it without storing it."""
        return hmac.digest(self._blinding, text.encode(), hashlib.sha256).hex()

    def sign_event(self, text: str) -> str:
        """Sign the text of an audit event; return 64 hex digits."""
        return _signature(self._event_keys[0], text)

    def is_event_signed(self, text: str, signature: str) -> bool:
        """Return whether `sign_event` made the signature, with any SECRET_KEY that is set."""
        given = signature.encode(errors="surrogateescape")
        return any(
            hmac.compare_digest(_signature(key, text).encode(), given) for key in self._event_keys
        )

    # --- secrets that must be read again, encrypted at rest ---

    def encrypt(self, data: bytes) -> str:
        """Encrypt and authenticate `data` with the current SECRET_KEY (Fernet)."""
        return self._ciphers[0].encrypt(data).decode()

    def decrypt(self, text: str) -> tuple[bytes, bool]:
        """Return (the plaintext, whether an earlier secret encrypted it).

        Raises LookupError if the text was altered, or the secret that encrypted it is gone.
        """
        for cipher in self._ciphers:
            try:
                return cipher.decrypt(text), cipher is not self._ciphers[0]
            except (fernet.InvalidToken, ValueError):
                continue
        raise LookupError("encrypted with a SECRET_KEY that is gone")

    # --- API keys ---

    def new_api_key(self) -> str:
        """Return a new key: `<prefix>_`, 32 random characters (190 bits), a checksum of 6."""
        body = "".join(secrets.choice(BASE62) for _ in range(32))
        text = f"{self._settings.api_key_prefix}_{body}"
        return text + _checksum(text)

    def digests(self, text: str) -> list[tuple[str, str]]:
        """Return the (secret id, hex digest) pairs for looking up the key with this text.

        There is one for each secret, the current one first. A text that does not have our form may
        be another system's key. Returns nothing for a text that cannot be a key: one with a wrong
        checksum, with more than 512 characters, or not in printable ASCII.
        """
        shape = _API_KEY.fullmatch(text)
        if shape:
            return self.key_digests(text) if _checksum(shape[1]) == shape[2] else []
        if not _FOREIGN_KEY.fullmatch(text):
            return []
        return [
            each
            for name in ("sha256", "sha512")
            for each in self.key_digests(f"{name}:{hashlib.new(name, text.encode()).hexdigest()}")
        ]

    def renewed(self, text: str) -> dict[str, str]:
        """Map each of `digests(text)` to its counterpart under the current secret."""
        digests = [digest for _, digest in self.digests(text)]
        number = len(self._secrets)
        return {digest: digests[place - place % number] for place, digest in enumerate(digests)}

    def key_digests(self, text: str) -> list[tuple[str, str]]:
        """Return (secret id, hex HMAC) of a key's text, or of its digest, under each secret."""
        digests = []
        for secret in self._secrets:
            mac = secret.api_key.copy()
            mac.update(text.encode())
            digests.append((secret.id, mac.hexdigest()))
        return digests


def _signature(key: bytes, text: str) -> str:
    return hmac.digest(key, text.encode(), hashlib.sha256).hex()


def read_digest(text: str) -> str:
    """Return the text to digest for a key of which only this digest is known.

    It is the other system's digest of the whole key: SHA-256 as hex or base64url, or SHA-512 in the
    format of djangorestframework-api-key, `sha512$$<hex>`. Raises ValueError for anything else.
    """
    if len(text) == 43 and (raw := from_base64url(text)):
        text = raw.hex()
    shape = _DIGEST.fullmatch(text)
    if not shape:
        raise ValueError("not a digest of a key")
    return f"{shape.lastgroup}:{shape[shape.lastgroup or 0]}"


def is_api_key(text: str) -> bool:
    """Return whether `text` looks like an API key and has the right checksum. Uses no database."""
    shape = _API_KEY.fullmatch(text)
    return shape is not None and _checksum(shape[1]) == shape[2]


def find_api_keys(text: str) -> Iterator[str]:
    """Find all API keys in the text that have the right checksum, whatever surrounds them."""
    return (found[1] for found in _ANY_API_KEY.finditer(text) if is_api_key(found[1]))


def hint(key: str) -> str:
    """Return the part of a key that may be shown: its prefix and its last four characters."""
    return f"{key.partition('_')[0]}_...{key[-4:]}"


def _checksum(text: str) -> str:
    """Return the CRC-32 of the ASCII text as six base-62 digits. Catches typos, not forgeries."""
    number, digits = zlib.crc32(text.encode()), ""
    for _ in range(6):
        number, digit = divmod(number, 62)
        digits = BASE62[digit] + digits
    return digits
