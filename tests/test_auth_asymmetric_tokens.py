"""Access tokens under a key pair: who can verify them, how the key is replaced, what is refused."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from authlib.oauth2.rfc6750 import InvalidTokenError
from authlib.oauth2.rfc9068 import JWTBearerTokenValidator
from click.testing import Result
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from flask import Flask
from flask.testing import FlaskClient
from joserfc.jwk import KeySet
from werkzeug.test import TestResponse

from backend.app import COMMANDS
from backend.cli import refusing_app
from backend.core.settings import SettingsError
from backend.db.database import new_id

from .support.apps import client_of, service_of, url_of
from .support.commands import flask_of
from .support.databases import migrate
from .support.people import Person, add_user, by_token, sign_in
from .support.problems import assert_problem
from .support.processes import run
from .support.settings import process_environ
from .support.tokens import refresh

ALGORITHMS = ("EdDSA", "ES256")
ISSUER = "http://127.0.0.1:8000"
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
ED25519_ORDER = 2**252 + 27742317777372353535851937790883648493

KeyFile = Callable[..., Path]


def new_key(algorithm: str) -> Any:
    """A fresh private key for an algorithm."""
    if algorithm == "EdDSA":
        return Ed25519PrivateKey.generate()
    return ec.generate_private_key(ec.SECP256R1())


def pem(key: Any) -> bytes:
    """The private key as a file holds it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def text_of(raw: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def bytes_of(text: str) -> bytes:
    """What base64url without padding stands for."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def signature(key: Any, data: bytes) -> bytes:
    """The signature that we would write: of the two of ECDSA, the one with the low s."""
    if isinstance(key, Ed25519PrivateKey):
        return key.sign(data)
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + min(s, P256_ORDER - s).to_bytes(32, "big")


def token_of(header: dict[str, Any], valid: str, sign: Callable[[bytes], bytes]) -> str:
    """The claims of a valid token under another header and signature."""
    first = text_of(json.dumps(header, separators=(",", ":")).encode())
    signed = f"{first}.{valid.split('.')[1]}"
    return f"{signed}.{text_of(sign(signed.encode()))}"


def me(client: FlaskClient, token: str) -> TestResponse:
    """The answer to an access token."""
    return client.get("/v1/auth/me", headers=by_token(token))


def kids(client: FlaskClient) -> list[str]:
    """The names of the public keys."""
    return [key["kid"] for key in client.get("/.well-known/jwks.json").json["keys"]]


@pytest.fixture
def key_file(tmp_path: Path) -> KeyFile:
    """A function that writes private keys, or bytes, to the key file and returns its path."""

    def write(*blocks: Any) -> Path:
        path = tmp_path / f"keys-{len(list(tmp_path.iterdir()))}.pem"
        path.touch(mode=0o600)
        path.write_bytes(
            b"".join(each if isinstance(each, bytes) else pem(each) for each in blocks)
        )
        return path

    return write


@pytest.fixture(params=ALGORITHMS)
def key(request: pytest.FixtureRequest) -> Any:
    """A private key of each algorithm."""
    return new_key(request.param)


def algorithm_of(key: Any) -> str:
    """What JWT_ALGORITHM is for this key."""
    return "EdDSA" if isinstance(key, Ed25519PrivateKey) else "ES256"


@pytest.fixture
def app(make_app: Callable[..., Flask], key_file: KeyFile, key: Any) -> Flask:
    """An app that signs with `key`."""
    return make_app(jwt_algorithm=algorithm_of(key), jwt_private_key_file=key_file(key))


# --- what is written, and who can read it ---


def test_a_token_names_algorithm_type_and_key_and_is_accepted(alice: Person, key: Any) -> None:
    header = jwt.get_unverified_header(alice.access_token)
    assert header == {
        "alg": algorithm_of(key),
        "typ": "at+jwt",
        "kid": kids(alice.client)[0],
    }
    assert len(bytes_of(alice.access_token.split(".")[2])) == 64
    assert alice.get("/v1/auth/me").status_code == 200
    assert refresh(alice.client, alice.refresh_token).status_code == 200


def test_others_verify_tokens_with_only_the_public_keys(alice: Person, key: Any) -> None:
    response = alice.client.get("/.well-known/jwks.json")
    assert (response.status_code, response.content_type) == (200, "application/json")
    assert response.headers.getlist("Cache-Control") == ["public, max-age=300"]
    keys = jwt.PyJWKSet.from_dict(response.json)
    found = keys[jwt.get_unverified_header(alice.access_token)["kid"]]
    claims = jwt.decode(
        alice.access_token, found, [algorithm_of(key)], audience=ISSUER, issuer=ISSUER
    )
    assert (claims["sub"], claims["username"], claims["role"]) == (alice.id, "alice", "user")


class Strict(JWTBearerTokenValidator):
    """Authlib's verifier of access tokens, with the public keys of a service."""

    def __init__(self, client: FlaskClient, audience: str = ISSUER) -> None:
        super().__init__(issuer=ISSUER, resource_server=audience)
        self.jwks = KeySet.import_key_set(client.get("/.well-known/jwks.json").json)

    def get_jwks(self) -> Any:
        return self.jwks


# Authlib accepts ES256 alone of the two; `make clients` shows EdDSA to other verifiers.
@pytest.mark.parametrize("key", ["ES256"], indirect=True)
def test_a_strict_verifier_accepts_an_access_token_and_learns_the_client_id(alice: Person) -> None:
    verifier = Strict(alice.client)
    claims = verifier.authenticate_token(alice.access_token)
    verifier.validate_token(claims, [], None)
    assert (claims["sub"], claims["client_id"]) == (alice.id, "bt")
    elsewhere = Strict(alice.client, audience="https://elsewhere.example")
    with pytest.raises(InvalidTokenError):
        elsewhere.validate_token(elsewhere.authenticate_token(alice.access_token), [], None)


def test_the_public_keys_have_only_public_members(client: FlaskClient, key: Any) -> None:
    [shown] = client.get("/.well-known/jwks.json").json["keys"]
    if algorithm_of(key) == "EdDSA":
        members = {"crv": "Ed25519", "kty": "OKP"}
        members["x"] = text_of(key.public_key().public_bytes_raw())
    else:
        numbers = key.public_key().public_numbers()
        members = {"crv": "P-256", "kty": "EC"}
        members["x"] = text_of(numbers.x.to_bytes(32, "big"))
        members["y"] = text_of(numbers.y.to_bytes(32, "big"))
    canonical = json.dumps(members, separators=(",", ":")).encode()  # RFC 7638 section 3
    kid = text_of(hashlib.sha256(canonical).digest())
    assert shown == members | {"kid": kid, "use": "sig", "alg": algorithm_of(key)}


def test_a_key_is_named_by_its_thumbprint(
    make_bare_app: Callable[..., Flask], key_file: KeyFile
) -> None:
    secret = bytes_of("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A")  # RFC 8037 appendix A
    path = key_file(Ed25519PrivateKey.from_private_bytes(secret))
    client = client_of(make_bare_app(jwt_algorithm="EdDSA", jwt_private_key_file=path))
    assert kids(client) == ["kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"]


def test_the_front_page_links_the_public_keys_under_any_prefix(
    make_bare_app: Callable[..., Flask], key_file: KeyFile, key: Any
) -> None:
    algorithm = algorithm_of(key)
    app = make_bare_app(jwt_algorithm=algorithm, jwt_private_key_file=key_file(key))
    client = client_of(app)
    assert client.get("/").json["links"]["jwks"] == "/.well-known/jwks.json"
    mounted = client.get("/", environ_overrides={"SCRIPT_NAME": "/accounts"})
    assert mounted.json["links"]["jwks"] == "/accounts/.well-known/jwks.json"
    for path in ("/.well-known/jwks.json/", "/.well-known", "/v1/.well-known/jwks.json"):
        assert_problem(client.get(path), 404, "not_found")


def test_a_secret_has_no_public_keys(bare: FlaskClient) -> None:
    response = bare.get("/.well-known/jwks.json")
    assert_problem(response, 404, "not_found")
    assert response.headers["Cache-Control"] == "no-store"
    assert "jwks" not in bare.get("/").json["links"]


# --- the key is replaced ---


def test_old_tokens_keep_working_while_the_key_is_replaced(
    make_app: Callable[..., Flask], app: Flask, alice: Person, key_file: KeyFile, key: Any
) -> None:
    fresh, url = new_key(algorithm_of(key)), url_of(app)

    def client_with(*keys: Any) -> FlaskClient:
        values = {"jwt_algorithm": algorithm_of(key), "jwt_private_key_file": key_file(*keys)}
        return client_of(make_app(database_url=url, **values))

    added, promoted = client_with(key, fresh), client_with(fresh, key)
    dropped = client_with(fresh)
    assert kids(added) == kids(promoted)[::-1] == [*kids(alice.client), *kids(dropped)]
    old, new = sign_in(added, "alice"), sign_in(promoted, "alice")
    for client in (added, promoted):
        for person in (alice, old, new):
            assert me(client, person.access_token).status_code == 200
    assert_problem(me(dropped, old.access_token), 401, "invalid_credentials")
    assert me(dropped, new.access_token).status_code == 200
    moved = refresh(dropped, alice.refresh_token).json
    assert me(dropped, moved["access_token"]).status_code == 200
    assert_problem(me(alice.client, new.access_token), 401, "invalid_credentials")


def test_a_token_of_one_algorithm_is_refused_by_a_service_of_another(
    make_app: Callable[..., Flask], key_file: KeyFile
) -> None:
    first = make_app()
    clients = [client_of(first)]
    for algorithm in ALGORITHMS:
        values = {"jwt_algorithm": algorithm, "jwt_private_key_file": key_file(new_key(algorithm))}
        clients.append(client_of(make_app(database_url=url_of(first), **values)))
    add_user(clients[0], "alice")
    for writer in clients:
        alice = sign_in(writer, "alice")
        for reader in clients:
            if reader is writer:
                assert me(reader, alice.access_token).status_code == 200
            else:
                assert_problem(me(reader, alice.access_token), 401, "invalid_credentials")
                assert refresh(reader, alice.refresh_token).status_code == 200


# --- what is refused ---


def test_a_token_is_accepted_under_the_header_that_we_write_and_no_other(
    alice: Person, key: Any
) -> None:
    right = jwt.get_unverified_header(alice.access_token)  # in the order in which it is written
    others: list[dict[str, Any]] = [
        right | {"typ": "JWT"},
        right | {"typ": "application/at+jwt"},
        right | {"crit": ["exp"]},
        right | {"b64": True},
        right | {"alg": right["alg"].lower()},
        right | {"alg": "Ed25519"},
        dict(reversed(right.items())),
        *({name: right[name] for name in right if name != gone} for gone in right),
    ]
    for kid in ("", None, 1, [right["kid"]], right["kid"] + "\x00", right["kid"][:-1]):
        others.append(right | {"kid": kid})
    for kid in ("../../../dev/null", "/dev/null", "file:///dev/null", "' OR '1'='1", "0"):
        others.append(right | {"kid": kid})

    def sign(data: bytes) -> bytes:
        return signature(key, data)

    assert me(alice.client, token_of(right, alice.access_token, sign)).status_code == 200
    for other in others:
        token = token_of(other, alice.access_token, sign)
        assert_problem(me(alice.client, token), 401, "invalid_credentials")


def test_a_public_key_cannot_be_used_as_a_secret_to_sign_with(alice: Person, key: Any) -> None:
    public = key.public_key()
    header = jwt.get_unverified_header(alice.access_token)
    jwks = alice.client.get("/.well-known/jwks.json")
    shown = jwks.json["keys"][0]
    x = bytes_of(shown["x"])
    whole_pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    known = [
        whole_pem,
        whole_pem.strip(),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        json.dumps(shown).encode(),
        json.dumps(shown, separators=(",", ":"), sort_keys=True).encode(),
        jwks.data,
        x,
        shown["x"].encode(),
        shown["kid"].encode(),
        b"",
    ]
    for secret in known:
        for name, digest in (("HS256", "sha256"), ("HS384", "sha384"), ("HS512", "sha512")):
            for algorithm in (name, header["alg"]):
                forged = token_of(
                    header | {"alg": algorithm},
                    alice.access_token,
                    lambda data, secret=secret, digest=digest: hmac.digest(secret, data, digest),
                )
                assert_problem(me(alice.client, forged), 401, "invalid_credentials")


def test_no_algorithm_and_no_signature_are_refused(alice: Person, key: Any) -> None:
    header = jwt.get_unverified_header(alice.access_token)
    for algorithm in ("none", "None", "NONE", "nOnE", "", None, "HS256", algorithm_of(key)):
        for written in (b"", b"\x00", bytes(32), bytes(64), b"\xff" * 64):
            forged = token_of(
                header | {"alg": algorithm}, alice.access_token, lambda _, written=written: written
            )
            assert_problem(me(alice.client, forged), 401, "invalid_credentials")


def test_the_header_of_a_secret_does_not_go_with_a_key_pair_nor_the_reverse(
    make_app: Callable[..., Flask], app: Flask, alice: Person, key: Any
) -> None:
    other = client_of(make_app(database_url=url_of(app)))
    by_secret = sign_in(other, "alice").access_token
    by_pair = alice.access_token
    for client, header, rest in (
        (alice.client, by_secret, by_pair),
        (alice.client, by_pair, by_secret),
        (other, by_secret, by_pair),
        (other, by_pair, by_secret),
    ):
        mixed = f"{header.split('.')[0]}.{rest.partition('.')[2]}"
        assert_problem(me(client, mixed), 401, "invalid_credentials")
    header = jwt.get_unverified_header(by_secret)
    for client in (alice.client, other):
        forged = token_of(header, by_pair, lambda data: signature(key, data))
        assert_problem(me(client, forged), 401, "invalid_credentials")


def test_a_token_under_the_name_of_another_key_is_refused(
    make_app: Callable[..., Flask], app: Flask, alice: Person, key_file: KeyFile, key: Any
) -> None:
    algorithm, other = algorithm_of(key), new_key(algorithm_of(key))
    values = {"jwt_algorithm": algorithm, "jwt_private_key_file": key_file(key, other)}
    client = client_of(make_app(database_url=url_of(app), **values))
    for signer, names in ((key, kids(client)), (other, kids(client)[::-1])):
        for kid, status in zip(names, (200, 401), strict=True):
            header = jwt.get_unverified_header(alice.access_token) | {"kid": kid}
            token = token_of(
                header, alice.access_token, lambda data, by=signer: signature(by, data)
            )
            assert me(client, token).status_code == status


def test_keys_that_a_token_contains_or_points_to_are_ignored(alice: Person, key: Any) -> None:
    foreign = new_key(algorithm_of(key))
    public = jwt.PyJWK.from_dict(alice.client.get("/.well-known/jwks.json").json["keys"][0])
    to_jwk = public.Algorithm.to_jwk
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/jwks.json"
        header = jwt.get_unverified_header(alice.access_token)
        extras: list[dict[str, Any]] = [
            {"jwk": to_jwk(foreign.public_key(), as_dict=True)},
            {"jku": address},
            {"x5u": address},
            {"x5c": [base64.b64encode(pem(foreign)).decode()]},
            {"kid": address},
            {"iss": address},
        ]
        for extra in extras:
            for signer in (key, foreign):
                token = token_of(
                    header | extra, alice.access_token, lambda data, by=signer: signature(by, data)
                )
                assert_problem(me(alice.client, token), 401, "invalid_credentials")
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):  # nobody has called
            listener.accept()


def test_each_es256_token_has_one_text_of_the_two_that_its_signature_would_allow(
    make_bare_app: Callable[..., Flask], key_file: KeyFile
) -> None:
    key = new_key("ES256")
    app = make_bare_app(jwt_algorithm="ES256", jwt_private_key_file=key_file(key))
    access_tokens, client = service_of(app).access_tokens, client_of(app)
    for _ in range(20):
        token = access_tokens.sign(new_id(), new_id())
        signed, _, text = token.rpartition(".")
        r, s = bytes_of(text)[:32], int.from_bytes(bytes_of(text)[32:], "big")
        assert s <= P256_ORDER // 2
        other = r + (P256_ORDER - s).to_bytes(32, "big")
        der = encode_dss_signature(int.from_bytes(r, "big"), P256_ORDER - s)
        key.public_key().verify(der, signed.encode(), ec.ECDSA(hashes.SHA256()))  # as good
        assert_problem(me(client, f"{signed}.{text_of(other)}"), 401, "invalid_credentials")
        for wrong in (
            der,
            r,
            r + s.to_bytes(33, "big"),
            r + b"\x00" * 32,
            b"\x00" * 32 + other[32:],
        ):
            assert_problem(me(client, f"{signed}.{text_of(wrong)}"), 401, "invalid_credentials")
        assert_problem(
            me(client, token), 503, "unavailable"
        )  # on to the database, of which none is


def test_each_eddsa_token_has_one_text(
    make_bare_app: Callable[..., Flask], key_file: KeyFile
) -> None:
    path = key_file(new_key("EdDSA"))
    app = make_bare_app(jwt_algorithm="EdDSA", jwt_private_key_file=path)
    access_tokens, client = service_of(app).access_tokens, client_of(app)
    for _ in range(20):
        token = access_tokens.sign(new_id(), new_id())
        signed, _, text = token.rpartition(".")
        r, s = bytes_of(text)[:32], int.from_bytes(bytes_of(text)[32:], "little")
        other = r + (s + ED25519_ORDER).to_bytes(32, "little")
        assert_problem(me(client, f"{signed}.{text_of(other)}"), 401, "invalid_credentials")
        assert_problem(me(client, token), 503, "unavailable")


# --- keys that cannot be used ---


def refusal(make_bare_app: Callable[..., Flask], algorithm: str, path: object) -> str:
    """The one sentence with which such a service is refused."""
    with pytest.raises(SettingsError) as refused:
        make_bare_app(jwt_algorithm=algorithm, jwt_private_key_file=path)
    [sentence] = refused.value.problems
    assert sentence.startswith("JWT_")
    assert sentence.endswith(".")
    return sentence


@pytest.mark.parametrize("name", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"])
def test_rsa_is_refused_with_the_reason(
    make_bare_app: Callable[..., Flask], key_file: KeyFile, name: str
) -> None:
    sentence = refusal(make_bare_app, name, key_file(rsa.generate_private_key(65537, 2048)))
    for word in (f"JWT_ALGORITHM={name}", "PKCS#1 v1.5", "ASVS 5.0", "EdDSA", "ES256"):
        assert word in sentence


@pytest.mark.parametrize("name", ["none", "HS512", "hs256", "ES384", "ES256K", "Ed25519"])
def test_other_algorithms_are_refused(make_bare_app: Callable[..., Flask], name: str) -> None:
    sentence = refusal(make_bare_app, name, "")
    assert sentence == "JWT_ALGORITHM is invalid; expected: HS256, EdDSA, ES256."


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_unusable_key_file_is_reported_with_a_remedy(
    make_bare_app: Callable[..., Flask], key_file: KeyFile, tmp_path: Path, algorithm: str
) -> None:
    key, other = new_key(algorithm), new_key(algorithm)
    secret = BestAvailableEncryption(b"hunter2")
    wrong_kinds = [
        *(new_key(each) for each in ALGORITHMS if each != algorithm),
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP256K1()),
        Ed448PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
    ]
    spki = PublicFormat.SubjectPublicKeyInfo
    public = key.public_key().public_bytes(Encoding.PEM, spki)
    garbage = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
    cases: list[tuple[object, str]] = [
        ("", "JWT_PRIVATE_KEY_FILE is not set"),
        (tmp_path / "missing.pem", "does not exist; `flask --app wsgi tokens rotate-key`"),
        (tmp_path, "cannot be read: Is a directory"),
        (key_file(), "contains no PEM private key"),
        (key_file(b"no key at all"), "contains no PEM private key"),
        (key_file(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())), "no PEM"),
        (key_file(public), "block 1 is not a readable private key"),
        (key_file(key, public), "block 2 is not a readable private key"),
        (key_file(key, garbage), "block 2 is not a readable private key"),
        (key_file(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secret)), "is encrypted"),
        (key_file(key, other, key), "the same key twice"),
        (key_file(key, pem(other)[:-20]), "incomplete block"),
        (key_file(pem(key)[:-40], other), "incomplete block"),
        (key_file(pem(key)[20:]), "incomplete block"),
        *(
            (key_file(key, wrong), f"block 2 is not {['P-256', 'Ed25519'][algorithm == 'EdDSA']}")
            for wrong in wrong_kinds
        ),
    ]
    for path, words in cases:
        assert words in refusal(make_bare_app, algorithm, path), words


def test_keys_that_openssl_makes_are_accepted(
    make_bare_app: Callable[..., Flask], key_file: KeyFile
) -> None:
    key = new_key("ES256")
    form = PrivateFormat.TraditionalOpenSSL
    traditional = key.private_bytes(Encoding.PEM, form, NoEncryption())
    assert b"BEGIN EC PRIVATE KEY" in traditional
    content = (
        b"Made on 2026-11-25:\r\n" + traditional.replace(b"\n", b"\r\n") + pem(new_key("ES256"))
    )
    app = make_bare_app(jwt_algorithm="ES256", jwt_private_key_file=key_file(content))
    assert len(kids(client_of(app))) == 2


# --- the commands ---


@pytest.fixture
def url(tmp_path: Path) -> str:
    """The URL of a migrated SQLite database, for processes."""
    url = f"sqlite:///{tmp_path / 'test.db'}"
    migrate(url)
    return url


@pytest.mark.slow
def test_the_command_makes_the_file_without_which_nothing_starts(
    tree: Path, url: str, tmp_path: Path
) -> None:
    path = tmp_path / "secret" / "keys.pem"
    values = {"database_url": url, "jwt_algorithm": "EdDSA", "jwt_private_key_file": path}
    refused = run(tree, "flask", "--app", "wsgi", "doctor", **values)
    assert refused.returncode == 1
    assert refused.stderr.startswith("fatal: JWT_PRIVATE_KEY_FILE does not exist; `flask")

    made = run(tree, "flask", "--app", "wsgi", "tokens", "rotate-key", **values)
    assert (made.returncode, made.stderr) == (0, "")
    assert "signs" in made.stdout.splitlines()[1]
    assert path.parent.stat().st_mode & 0o777 == 0o700
    told = run(tree, "flask", "--app", "wsgi", "doctor", **values)
    assert told.stdout == "0 warnings, nothing fatal.\n"


def test_the_command_replaces_the_key(
    app_on: Callable[..., Flask], url: str, tmp_path: Path
) -> None:
    (tmp_path / "secret").mkdir()
    path = tmp_path / "secret" / "keys.pem"
    path.touch(mode=0o600)
    path.write_bytes(pem(new_key("EdDSA")))

    def flask(*arguments: str) -> Result:
        app = app_on(url, jwt_algorithm="EdDSA", jwt_private_key_file=path)
        return flask_of(app)(*arguments)

    def rotated(*step: str) -> tuple[list[str], str]:
        done = flask("tokens", "rotate-key", *step)
        assert (done.exit_code, done.stderr) == (0, "")
        assert path.stat().st_mode & 0o777 == 0o600
        assert list(path.parent.iterdir()) == [path]
        *keys, sentence = done.stdout.splitlines()
        assert path.read_text().count("BEGIN PRIVATE KEY") == len(keys)
        return keys, sentence

    first = kids(client_of(app_on(url, jwt_algorithm="EdDSA", jwt_private_key_file=path)))
    [*still_first, second], sentence = rotated()
    assert still_first == first
    assert "Restart all processes" in sentence
    assert "--promote" in sentence

    path.chmod(0o644)
    told = flask("doctor").stdout
    assert f"warning: {path} can be read by other users of this machine" in told

    keys, sentence = rotated("--promote")
    assert keys == [second, *first]
    assert "11 minutes later" in sentence
    assert "--drop-others" in sentence

    keys, sentence = rotated("--drop-others")
    assert keys == [second]
    for step in ("--promote", "--drop-others"):
        refused = flask("tokens", "rotate-key", step)
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert "contains only one key" in refused.stderr


def test_the_command_says_in_a_sentence_what_it_cannot_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(pem(new_key("ES256"))[:-30])
    flask = flask_of(refusing_app(SettingsError(["They are refused."]), COMMANDS))
    for name, value in process_environ(jwt_algorithm="EdDSA").items():
        monkeypatch.setenv(name, value)
    cases: list[tuple[dict[str, object], str]] = [
        ({"jwt_algorithm": "HS256"}, "JWT_ALGORITHM is HS256"),
        ({"jwt_algorithm": "RS256"}, "JWT_ALGORITHM=RS256 is RSA"),
        ({"jwt_private_key_file": ""}, "JWT_PRIVATE_KEY_FILE is not set"),
        ({"jwt_private_key_file": tmp_path / "file"}, "incomplete block"),
        ({"jwt_private_key_file": tmp_path / "file" / "keys.pem"}, "cannot be written"),
        ({"port": "x"}, "PORT is invalid; expected"),
    ]
    for values, words in cases:
        with monkeypatch.context() as environ:
            for name, value in {"jwt_private_key_file": tmp_path / "keys.pem", **values}.items():
                environ.setenv(name.upper(), str(value))
            told = flask("tokens", "rotate-key")
        assert (told.exit_code, told.stdout) == (1, ""), told.stderr
        assert told.stderr.startswith("Error: ")
        assert words in told.stderr
    assert (tmp_path / "file").read_bytes().count(b"-----") == 2
    both = flask("tokens", "rotate-key", "--promote", "--drop-others")
    assert (both.exit_code, both.stdout) == (2, "")


def test_the_command_follows_a_link_and_leaves_the_file_to_its_owner(
    make_bare_app: Callable[..., Flask], key_file: KeyFile, tmp_path: Path, key: Any
) -> None:
    path, link = key_file(key), tmp_path / "link.pem"
    link.symlink_to(path)
    owner = 10001 if os.getuid() == 0 else os.getuid()
    os.chown(path, owner, -1)
    algorithm = algorithm_of(key)
    app = make_bare_app(jwt_algorithm=algorithm, jwt_private_key_file=link)
    assert flask_of(app)("tokens", "rotate-key").exit_code == 0
    assert link.readlink() == path
    assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (owner, 0o600)
    again = make_bare_app(jwt_algorithm=algorithm, jwt_private_key_file=path)
    assert kids(client_of(again))[0] == kids(client_of(app))[0]
    assert len(kids(client_of(again))) == 2


@pytest.mark.slow
def test_a_server_says_why_it_does_not_start(tree: Path) -> None:
    told = run(tree, "python", "wsgi.py", jwt_algorithm="EdDSA")
    assert told.returncode == 4
    assert "JWT_PRIVATE_KEY_FILE is not set" in told.stderr
    assert "Traceback" not in told.stderr


def test_doctor_warns_of_an_unused_key_file(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    app = make_app(jwt_private_key_file=tmp_path / "keys.pem")
    told = flask_of(app)("doctor")
    assert "warning: JWT_PRIVATE_KEY_FILE is not used: JWT_ALGORITHM is HS256." in told.stdout
