"""ASVS 5.0 chapter 9: tokens that hold claims, and what is believed of them."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flask import Flask
from flask.testing import FlaskClient

from backend.crypto import signing_keys
from backend.crypto.keyring import EMAIL_LINK, SECOND_STEP, derive

from .support.apps import client_of, service_of, statements, url_of
from .support.passwords import link_for, reset
from .support.people import Person, add_user, by_key, sign_in
from .support.problems import assert_problem
from .support.settings import make_settings
from .support.tokens import forged, me, refresh

Travel = Callable[..., None]


def text_of(value: Any) -> str:
    """A part of a token."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def assert_refused(client: FlaskClient, *tokens: str) -> None:
    """None of them is an access token."""
    for token in tokens:
        assert_problem(me(client, token), 401, "invalid_credentials")


def test_9_1_1_a_token_without_its_signature_is_refused(app: Flask, alice: Person) -> None:
    header, claims, signature = alice.access_token.split(".")
    flipped = signature[:-2] + ("A" if signature[-2] != "A" else "B") + signature[-1]
    for other in ("", signature[:-1], flipped, signature[::-1], "AAAA", signature * 2):
        assert_refused(alice.client, f"{header}.{claims}.{other}")
    changed = jwt.decode(alice.access_token, options={"verify_signature": False})
    changed["sub"] = "0192d3a4-0000-7d8e-9f01-23456789abcd"
    assert_refused(alice.client, f"{header}.{text_of(changed)}.{signature}")
    assert me(alice.client, forged(app, alice.access_token)).status_code == 200


@pytest.mark.filterwarnings("ignore::jwt.InsecureKeyLengthWarning")
def test_9_1_2_the_algorithm_is_ours_and_not_that_of_the_token(app: Flask, alice: Person) -> None:
    header = jwt.get_unverified_header(alice.access_token)
    _, claims, signature = alice.access_token.split(".")
    for name in ("none", "None", "NONE", "nOnE", "", "hs256", "HS384", "HS512", "RS256", "EdDSA"):
        first = text_of(header | {"alg": name})
        assert_refused(alice.client, f"{first}.{claims}.", f"{first}.{claims}.{signature}")
    for name in ("HS384", "HS512"):  # well signed, with the right key
        assert_refused(alice.client, forged(app, alice.access_token, algorithm=name))


@pytest.mark.parametrize("algorithm", ["EdDSA", "ES256"])
def test_9_1_2_a_public_key_is_no_secret(
    make_app: Callable[..., Flask], tmp_path: Path, algorithm: str
) -> None:
    values = {"jwt_algorithm": algorithm, "jwt_private_key_file": tmp_path / "keys.pem"}
    signing_keys.add(make_settings(**values))
    client = client_of(make_app(**values))
    add_user(client, "alice")
    valid = sign_in(client, "alice").access_token
    [shown] = client.get("/.well-known/jwks.json").json["keys"]
    key = jwt.PyJWK(shown).key
    header = jwt.get_unverified_header(valid)
    signed = f"{text_of(header | {'alg': 'HS256'})}.{valid.split('.')[1]}"
    for secret in (
        key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        json.dumps(shown).encode(),
    ):
        hmac = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
        mac = base64.urlsafe_b64encode(hmac.sign(signed.encode(), secret)).rstrip(b"=").decode()
        assert_refused(client, f"{signed}.{mac}")
    assert me(client, valid).status_code == 200


def test_9_1_3_keys_that_a_token_names_or_brings_are_not_looked_at(
    app: Flask, alice: Person, tmp_path: Path
) -> None:
    secret = b"a secret that the forger knows, of 32 bytes"
    (tmp_path / "key").write_bytes(secret)
    jwk = {"kty": "oct", "k": base64.urlsafe_b64encode(secret).decode(), "alg": "HS256"}
    claims = jwt.decode(alice.access_token, options={"verify_signature": False})
    header = jwt.get_unverified_header(alice.access_token)
    with socket.create_server(("127.0.0.1", 0)) as listener, statements(app) as ran:
        listener.setblocking(False)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/keys"
        for more in (
            {"jwk": jwk},
            {"jku": url},
            {"x5u": url},
            {"x5c": [text_of("certificate")]},
            {"kid": str(tmp_path / "key")},
            {"kid": f"file://{tmp_path}/key"},
            {"kid": url},
            {"kid": "' UNION SELECT 'a secret that the forger knows, of 32 bytes'--"},
        ):
            headers = header | more
            assert_refused(alice.client, jwt.encode(claims, secret, "HS256", headers=headers))
        with pytest.raises(BlockingIOError):
            listener.accept()
        assert ran == []


def test_9_2_1_a_token_counts_from_when_until_when_it_says(
    app: Flask, alice: Person, travel: Travel
) -> None:
    valid = alice.access_token
    now = jwt.decode(valid, options={"verify_signature": False})["iat"]
    for claims in ({"exp": now - 5}, {"nbf": now + 60}, {"iat": now + 60}):
        assert_refused(alice.client, forged(app, valid, claims=claims))
    for odd in (None, "soon", str(now + 60), now + 60.5, True, [], -1, 0):
        assert_refused(alice.client, forged(app, valid, claims={"exp": odd}))
    for name in ("exp", "nbf", "iat"):
        assert_refused(alice.client, forged(app, valid, without=name))
    travel(minutes=10, seconds=3)
    assert me(alice.client, valid).status_code == 200  # five seconds of leeway
    travel(seconds=3)
    assert_refused(alice.client, valid)


def test_9_2_2_each_kind_of_token_is_good_in_its_own_place_alone(
    app: Flask, client: FlaskClient, alice: Person
) -> None:
    key, hour = alice.new_key()["key"], timedelta(hours=1)
    link = link_for(client, "alice@example.com")
    address, step = (
        service_of(app).keyring.sign_for(kind, UUID(alice.id), 0, hour)
        for kind in (EMAIL_LINK, SECOND_STEP)
    )
    everything = {
        "access": alice.access_token,
        "refresh": alice.refresh_token,
        "key": key,
        "link": link,
        "address": address,
        "step": step,
    }
    for kind, text in everything.items():
        if kind not in {"access", "key"}:
            assert_refused(client, text)
        if kind != "key":
            answer = client.get("/v1/auth/me", headers=by_key(text))
            assert_problem(answer, 401, "invalid_credentials")
        if kind != "refresh":
            assert_problem(refresh(client, text), 401, "invalid_credentials")
        if kind != "link":
            assert_problem(reset(client, text), 400, "invalid_token")
        if kind != "address":
            answer = client.post("/v1/auth/email/confirm", json={"token": text})
            assert_problem(answer, 400, "invalid_token")
        body = {"mfa_token": text, "code": "123456"}
        answer = client.post("/v1/auth/login/mfa", json=body)
        assert_problem(answer, 401, "invalid_credentials")
    assert reset(client, link).status_code == 204  # nothing of it spent the link


def test_9_2_2_a_token_says_what_it_is(app: Flask, alice: Person) -> None:
    assert jwt.get_unverified_header(alice.access_token)["typ"] == "at+jwt"
    for other in ("JWT", "jwt", "id+jwt", "application/at+jwt", None):
        assert_refused(alice.client, forged(app, alice.access_token, header={"typ": other}))
    for purpose in ("refresh", "password-link", "encryption", "blinding"):
        payload = jwt.decode(alice.access_token, options={"verify_signature": False})
        secret = derive(service_of(app).settings.secret_key, purpose)
        headers = jwt.get_unverified_header(alice.access_token)
        assert_refused(alice.client, jwt.encode(payload, secret, "HS256", headers=headers))


def test_9_2_3_a_token_for_another_audience_is_refused(
    app: Flask, alice: Person, make_app: Callable[..., Flask]
) -> None:
    here = "http://127.0.0.1:8000"
    for other in ("https://b.example", f"{here}/", [here, "https://b.example"], [here], [], "", 1):
        assert_refused(alice.client, forged(app, alice.access_token, claims={"aud": other}))
    assert_refused(alice.client, forged(app, alice.access_token, without="aud"))
    elsewhere = client_of(make_app(database_url=url_of(app), jwt_audience="https://b.example"))
    assert_refused(elsewhere, alice.access_token)
    assert me(elsewhere, sign_in(elsewhere, "alice").access_token).status_code == 200
