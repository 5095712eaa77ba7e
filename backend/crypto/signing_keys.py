"""The key pairs for access tokens: a file of PEM keys, of which the first signs and all verify.

Skip it on a first reading.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any, NoReturn, TypeGuard

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from jwt.algorithms import ECAlgorithm, OKPAlgorithm

from ..core.paths import ROOT
from ..core.settings import Settings, SettingsError
from .keyring import to_base64url

PrivateKey = Ed25519PrivateKey | EllipticCurvePrivateKey

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----(?:(?!-----).)*-----END \1-----", re.DOTALL)
_KINDS = {"EdDSA": "Ed25519", "ES256": "P-256"}
_MAKE_ONE = "`flask --app wsgi tokens rotate-key` creates one."


def path_of(settings: Settings) -> Path:
    """Return the path of the key file. Raises SettingsError if these settings do not use one."""
    algorithm = settings.jwt_algorithm
    if algorithm == "HS256":
        _unusable(
            "JWT_ALGORITHM is HS256, which signs with SECRET_KEY; for a key pair, set it to EdDSA"
            " or ES256, and JWT_PRIVATE_KEY_FILE to the path of a file."
        )
    if algorithm not in _KINDS:
        _unusable(
            f"JWT_ALGORITHM={algorithm} is RSA, which is not supported: ASVS 5.0 (appendix C)"
            " disallows PKCS#1 v1.5 signatures, which RS256 makes; use EdDSA, or ES256 for services"
            " without EdDSA."
        )
    if not settings.jwt_private_key_file:
        _unusable(
            f"JWT_PRIVATE_KEY_FILE is not set, and JWT_ALGORITHM={algorithm} signs with a key from"
            f" that file; set it to a path such as instance/jwt_keys.pem, then {_MAKE_ONE}"
        )
    return ROOT / settings.jwt_private_key_file


def load(settings: Settings) -> list[PrivateKey]:
    """Return the keys in the file, the signing one first. Raises SettingsError for a bad one."""
    path = path_of(settings)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        _unusable(f"JWT_PRIVATE_KEY_FILE does not exist; {_MAKE_ONE}")
    except OSError as error:
        _unusable(f"JWT_PRIVATE_KEY_FILE cannot be read: {error.strerror}.")
    blocks = [match[0] for match in _BLOCK.finditer(content)]
    if b"-----" in _BLOCK.sub(b"", content):
        _unusable("JWT_PRIVATE_KEY_FILE contains an incomplete block; restore the file.")
    if not blocks:
        _unusable(f"JWT_PRIVATE_KEY_FILE contains no PEM private key; remove it, then {_MAKE_ONE}")
    keys = [_read(block, place, settings) for place, block in enumerate(blocks, 1)]
    if len({thumbprint(key) for key in keys}) < len(keys):
        _unusable("JWT_PRIVATE_KEY_FILE contains the same key twice; remove one of them.")
    return keys


def _unusable(sentence: str) -> NoReturn:
    raise SettingsError([sentence])


def _read(block: bytes, place: int, settings: Settings) -> PrivateKey:
    which, algorithm = f"JWT_PRIVATE_KEY_FILE: block {place}", settings.jwt_algorithm
    try:
        key = load_pem_private_key(block, None)
    except TypeError:
        _unusable(f"{which} is encrypted; decrypt it: `openssl pkey -in FILE -out OTHER`.")
    except (ValueError, UnsupportedAlgorithm):
        _unusable(f"{which} is not a readable private key; remove it.")
    if algorithm == "EdDSA" and isinstance(key, Ed25519PrivateKey):
        return key
    if algorithm == "ES256" and _is_p256(key):
        return key
    _unusable(
        f"{which} is not {_KINDS[algorithm]}, as JWT_ALGORITHM={algorithm} requires; set another"
        f" file, then {_MAKE_ONE}"
    )


def _is_p256(key: object) -> TypeGuard[EllipticCurvePrivateKey]:
    return isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1)


def add(settings: Settings) -> list[PrivateKey]:
    """Append a new key to the file, which is created if it does not exist; return all keys."""
    path = path_of(settings)
    made: PrivateKey = (
        Ed25519PrivateKey.generate()
        if settings.jwt_algorithm == "EdDSA"
        else generate_private_key(SECP256R1())
    )
    return _write(path, [*(load(settings) if path.exists() else []), made])


def promote(settings: Settings) -> list[PrivateKey]:
    """Move the last of several keys in the file to the front; return all keys."""
    *others, last = _several(settings)
    return _write(path_of(settings), [last, *others])


def drop_others(settings: Settings) -> list[PrivateKey]:
    """Remove all keys except the first from the file; return that key in a list."""
    return _write(path_of(settings), _several(settings)[:1])


def _several(settings: Settings) -> list[PrivateKey]:
    keys = load(settings)
    if len(keys) < 2:
        _unusable("JWT_PRIVATE_KEY_FILE contains only one key; `flask tokens rotate-key` adds one.")
    return keys


def _write(path: Path, keys: list[PrivateKey]) -> list[PrivateKey]:
    """Replace the file atomically: a reader sees the old keys or the new ones.

    Only the file's owner, who stays the same, can read it. Raises OSError if it cannot be written.
    """
    path = path.resolve()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, fresh = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with open(descriptor, "wb") as file:
            for key in keys:
                file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            file.flush()
            os.fsync(file.fileno())
        if path.exists() and hasattr(os, "chown"):
            os.chown(fresh, path.stat().st_uid, -1)  # root may do this for the service's user
        os.replace(fresh, path)
    except BaseException:
        os.unlink(fresh)
        raise
    return keys


def public_members(key: PrivateKey) -> dict[str, Any]:
    """Return the public key's members of a JWK (RFC 7518 section 6.2, RFC 8037 section 2)."""
    if isinstance(key, Ed25519PrivateKey):
        return OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return ECAlgorithm.to_jwk(key.public_key(), as_dict=True)


def thumbprint(key: PrivateKey) -> str:
    """Return the SHA-256 thumbprint of the public key (RFC 7638), which is its `kid`."""
    members = json.dumps(public_members(key), sort_keys=True, separators=(",", ":"))
    return to_base64url(hashlib.sha256(members.encode()).digest())
