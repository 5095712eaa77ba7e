"""ASVS 5.0 chapter 11: what is hashed, what is drawn at random, and by which algorithms."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask

from backend.core.metrics import Metrics
from backend.core.settings import ROOT, SettingsError
from backend.core.settings_checks import require_safe
from backend.crypto.keyring import BASE62
from backend.crypto.passwords import PasswordHasher

from .support.apps import client_of, service_of, url_of
from .support.mfa import enrol
from .support.people import PASSWORD, Person, add_user, sign_in
from .support.settings import make_settings


def test_11_4_2_a_password_is_hashed_slowly() -> None:
    hasher = PasswordHasher(make_settings(), Metrics())
    assert make_settings(environment="development").bcrypt_rounds == 12
    assert hasher.hash(PASSWORD).startswith("$2b$04$")  # the cost of tests
    began = time.process_time()  # of all threads: a hash has one of its own
    stored = PasswordHasher(make_settings(bcrypt_rounds=12), Metrics()).hash(PASSWORD)
    assert 0.05 < time.process_time() - began < 5
    assert stored.startswith("$2b$12$")
    with pytest.raises(SettingsError, match="BCRYPT_ROUNDS"):
        require_safe(
            make_settings(environment="production", bcrypt_rounds=9, secret_key="k7Jx-q2Wd" * 5)
        )


def test_11_2_2_a_hash_moves_to_another_cost_when_its_owner_signs_in(
    make_app: Callable[..., Flask], stored_hash: Callable[[Flask], str]
) -> None:
    before = make_app(bcrypt_rounds=4)
    add_user(client_of(before), "alice")
    assert stored_hash(before).startswith("$2b$04$")
    after = make_app(bcrypt_rounds=6, database_url=url_of(before))
    sign_in(client_of(after), "alice")
    assert stored_hash(after).startswith("$2b$06$")
    assert sign_in(client_of(after), "alice").get("/v1/auth/me").status_code == 200


def test_11_5_1_what_nobody_may_guess_has_128_random_bits_or_more(
    app: Flask, alice: Person
) -> None:
    keys = [service_of(app).keyring.new_api_key() for _ in range(2000)]
    bodies = [key.removeprefix("bt_")[:32] for key in keys]
    assert len(set(bodies)) == len(keys)
    for place in range(32):  # no character of 190 bits is always the same, or one of few
        assert {body[place] for body in bodies} == set(BASE62)
    secret, codes = enrol(alice)
    for text in (secret, *(code.replace("-", "") for code in codes)):
        assert len(base64.b32decode(text + "=" * (-len(text) % 8))) * 8 >= 128
    assert len({code[:4] for code in codes}) == 10


def test_11_5_1_no_secret_is_made_of_what_is_no_secret() -> None:
    for path in sorted((ROOT / "backend").rglob("*.py")):
        text = path.read_text("utf-8")
        assert not re.search(r"\buuid[14]\b|^(import|from) random\b|\bmd5\b", text, re.M), path


@pytest.mark.parametrize("algorithm", ["RS256", "RS512", "PS256"])
def test_11_6_1_rsa_signs_nothing(
    make_bare_app: Callable[..., Flask], tmp_path: Path, algorithm: str
) -> None:
    with pytest.raises(SettingsError, match="RSA"):
        make_bare_app(jwt_algorithm=algorithm, jwt_private_key_file=tmp_path / "keys.pem")


def test_11_6_1_others_verify_what_approved_algorithms_signed() -> None:
    assert make_settings().jwt_algorithm == "HS256"
    for algorithm in ("HS256", "EdDSA", "ES256"):
        assert make_settings(jwt_algorithm=algorithm).jwt_algorithm == algorithm
    with pytest.raises(SettingsError, match="JWT_ALGORITHM"):
        make_settings(jwt_algorithm="none")
