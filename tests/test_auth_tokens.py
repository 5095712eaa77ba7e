"""Tokens as text: what is accepted, and in which place; everything else is refused."""

import base64
import itertools
import random
import string
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import jwt
import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from backend.crypto import signing_keys
from backend.crypto.keyring import EMAIL_LINK, PASSWORD_LINK, SECOND_STEP

from .support.apps import client_of, service_of, url_of
from .support.people import Person, add_user, by_key, by_token, sign_in
from .support.problems import assert_problem
from .support.settings import make_settings
from .support.tokens import altered, forged, me, refresh

BASE64 = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
OTHER_SECRET = "another secret, of which nobody has heard yet"
ISSUER = "http://127.0.0.1:8000"


def respelled(token: str) -> str:
    """The token with another last character, which stands for the same bytes."""
    other = token[:-1] + BASE64[BASE64.index(token[-1]) ^ 1]
    tails = (text.rpartition(".")[2] for text in (token, other))
    tail, other_tail = (base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)) for text in tails)
    assert tail == other_tail
    return other


# --- refresh tokens ---


def test_a_refresh_token_says_what_it_is(alice: Person) -> None:
    assert alice.refresh_token.startswith("btr_")


def test_an_altered_refresh_token_is_refused_and_ends_nothing(
    client: FlaskClient, alice: Person
) -> None:
    chance = random.Random(1)
    for _ in range(100):
        response = refresh(client, altered(alice.refresh_token, chance))
        assert_problem(response, 401, "invalid_credentials")
    assert refresh(client, alice.refresh_token).status_code == 200


def test_another_spelling_of_a_refresh_token_is_refused_and_ends_nothing(
    client: FlaskClient, alice: Person
) -> None:
    token = alice.refresh_token
    for other in (
        respelled(token),
        token.replace("btr_", "bt_"),
        token.replace("btr_", "acmer_"),
        token.removeprefix("btr_"),
        token.upper(),
        token.replace(".", "\N{FULLWIDTH FULL STOP}"),
        f"{token}=",
        f"{token} ",
        f" {token}",
    ):
        assert_problem(refresh(client, other), 401, "invalid_credentials")
    assert refresh(client, token).status_code == 200


def test_another_secret_invalidates_all_tokens(
    app: Flask, alice: Person, make_app: Callable[..., Flask]
) -> None:
    other = client_of(make_app(database_url=url_of(app), secret_key=OTHER_SECRET))
    assert_problem(me(other, alice.access_token), 401, "invalid_credentials")
    assert_problem(refresh(other, alice.refresh_token), 401, "invalid_credentials")
    assert me(alice.client, alice.access_token).status_code == 200
    assert refresh(alice.client, alice.refresh_token).status_code == 200


def test_a_new_secret_with_the_old_one_as_fallback_keeps_sessions_alive(
    app: Flask, client: FlaskClient, alice: Person, make_app: Callable[..., Flask]
) -> None:
    url, old = url_of(app), service_of(app).settings.secret_key
    both = make_app(database_url=url, secret_key=OTHER_SECRET, secret_key_fallbacks=old)
    assert me(client_of(both), alice.access_token).status_code == 200
    moved = refresh(client_of(both), alice.refresh_token)
    assert moved.status_code == 200
    # What is written now needs the new secret alone.
    new = client_of(make_app(database_url=url, secret_key=OTHER_SECRET))
    assert_problem(me(client, moved.json["access_token"]), 401, "invalid_credentials")
    assert me(new, moved.json["access_token"]).status_code == 200
    assert refresh(new, moved.json["refresh_token"]).status_code == 200


@pytest.mark.slow
def test_two_instances_rotate_the_secret_one_by_one_without_refusing_anything(
    app: Flask, alice: Person, make_app: Callable[..., Flask]
) -> None:
    url, old, new = url_of(app), service_of(app).settings.secret_key, "n" * 40
    knows = {"secret_key": old, "secret_key_fallbacks": new}
    signs = {"secret_key": new, "secret_key_fallbacks": old}
    # The two rolling restarts of docs/deploy.md: what runs side by side in each.
    for settings in ({"secret_key": old}, knows), (knows, knows), (knows, signs), (signs, signs):
        instances = [client_of(make_app(database_url=url, **each)) for each in settings]
        for here, there in itertools.permutations(instances):
            at_here = sign_in(here, "alice")
            key = at_here.new_key()["key"]
            assert me(there, at_here.access_token).status_code == 200
            assert refresh(there, at_here.refresh_token).status_code == 200
            assert there.get("/v1/auth/me", headers=by_key(key)).status_code == 200
            assert here.get("/v1/auth/me", headers=by_key(key)).status_code == 200


def test_a_secret_that_is_promoted_at_once_is_not_known_to_the_other_instance(
    app: Flask, client: FlaskClient, alice: Person, make_app: Callable[..., Flask]
) -> None:
    old = service_of(app).settings.secret_key
    promoted = make_app(database_url=url_of(app), secret_key=OTHER_SECRET, secret_key_fallbacks=old)
    fresh = sign_in(client_of(promoted), "alice")
    assert_problem(me(client, fresh.access_token), 401, "invalid_credentials")


# --- access tokens ---


def test_an_access_token_has_the_claims_that_other_services_read(alice: Person) -> None:
    header = jwt.get_unverified_header(alice.access_token)
    claims = jwt.decode(alice.access_token, options={"verify_signature": False})
    assert (header["typ"], header["alg"]) == ("at+jwt", "HS256")
    assert header["kid"]
    assert set(claims) == {
        *("iss", "aud", "sub", "client_id", "sid", "jti", "iat", "nbf", "exp"),
        *("username", "role"),
    }
    assert claims["client_id"] == "bt"
    assert (claims["iss"], claims["aud"], claims["sub"]) == (ISSUER, ISSUER, alice.id)
    assert (claims["username"], claims["role"]) == ("alice", "user")
    assert claims["sid"] == alice.get("/v1/auth/me").json["auth"]["session_id"]
    assert claims["exp"] - claims["iat"] == 600


def test_each_access_token_has_an_id_of_its_own(client: FlaskClient, alice: Person) -> None:
    tokens = [alice.access_token, refresh(client, alice.refresh_token).json["access_token"]]
    ids = {jwt.decode(each, options={"verify_signature": False})["jti"] for each in tokens}
    assert len(ids) == 2


def test_an_access_token_works_for_ten_minutes_and_five_seconds(
    alice: Person, travel: Callable[..., None]
) -> None:
    travel(minutes=10, seconds=3)
    assert alice.get("/v1/auth/me").status_code == 200
    travel(seconds=3)
    response = alice.get("/v1/auth/me")
    assert_problem(response, 401, "invalid_credentials")
    assert response.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'


def test_an_access_token_may_come_from_a_clock_five_seconds_ahead(
    alice: Person, travel: Callable[..., None]
) -> None:
    travel(seconds=-4)
    assert alice.get("/v1/auth/me").status_code == 200
    travel(seconds=-4)
    assert_problem(alice.get("/v1/auth/me"), 401, "invalid_credentials")


def test_an_expired_access_token_does_not_end_its_session(
    client: FlaskClient, alice: Person, travel: Callable[..., None]
) -> None:
    travel(hours=1)
    assert_problem(alice.get("/v1/auth/me"), 401, "invalid_credentials")
    fresh = refresh(client, alice.refresh_token).json
    assert me(client, fresh["access_token"]).status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["HS256", "EdDSA", "ES256"])
def test_two_thousand_alterations_of_an_access_token_are_refused_with_one_body(
    make_app: Callable[..., Flask], tmp_path: Path, algorithm: str
) -> None:
    values = {"jwt_algorithm": algorithm, "jwt_private_key_file": tmp_path / "keys.pem"}
    if algorithm != "HS256":
        signing_keys.add(make_settings(**values))
    client = client_of(make_app(**values))
    add_user(client, "alice")
    valid = sign_in(client, "alice").access_token
    chance = random.Random(2)
    bodies = set()
    for token in [*(altered(valid, chance) for _ in range(1999)), respelled(valid)]:
        response = me(client, token)
        assert response.status_code == 401, token
        assert response.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
        bodies.add(tuple(sorted((response.json | {"request_id": ""}).items())))
    assert len(bodies) == 1
    assert me(client, valid).status_code == 200


def test_an_access_token_that_lacks_a_claim_is_refused(
    app: Flask, client: FlaskClient, alice: Person
) -> None:
    assert me(client, forged(app, alice.access_token)).status_code == 200
    for claim in ("iss", "aud", "sub", "sid", "jti", "iat", "nbf", "exp"):
        token = forged(app, alice.access_token, without=claim)
        assert_problem(me(client, token), 401, "invalid_credentials")


def test_an_access_token_with_another_claim_is_refused(
    app: Flask, client: FlaskClient, alice: Person
) -> None:
    nobody = "00000000-0000-7000-8000-000000000000"
    others: dict[str, list[Any]] = {
        "iss": ["https://elsewhere.example", f"{ISSUER}/", ""],
        "aud": ["https://elsewhere.example", ["https://elsewhere.example"], None, 1],
        "sub": ["alice", 1, None, nobody, f"{alice.id}\n", alice.id.upper()],
        "sid": [nobody, [nobody], None, "\ud800", ""],
        "exp": [1, "soon", None, {}, -(10**300)],
        "nbf": [9_999_999_999, 10**300, "now", None],
        "iat": [9_999_999_999, "now", None],
    }
    for claim, values in others.items():
        for value in values:
            token = forged(app, alice.access_token, claims={claim: value})
            assert_problem(me(client, token), 401, "invalid_credentials")


def test_an_access_token_for_the_session_of_another_is_refused(
    app: Flask, client: FlaskClient, alice: Person, bob: Person
) -> None:
    token = forged(app, alice.access_token, claims={"sub": bob.id})
    assert_problem(me(client, token), 401, "invalid_credentials")


def test_name_and_role_in_an_access_token_are_not_trusted(
    app: Flask, client: FlaskClient, alice: Person
) -> None:
    token = forged(app, alice.access_token, claims={"username": "root", "role": "admin"})
    answer = me(client, token).json
    assert (answer["username"], answer["role"]) == ("alice", "user")
    assert_problem(client.get("/v1/users", headers=by_token(token)), 403, "forbidden")


@pytest.mark.filterwarnings("ignore::jwt.InsecureKeyLengthWarning")
def test_an_access_token_with_another_header_is_refused(
    app: Flask, client: FlaskClient, alice: Person
) -> None:
    others: list[tuple[str, dict[str, Any]]] = [
        ("none", {}),
        ("none", {"typ": "JWT"}),
        ("HS384", {}),
        ("HS512", {}),
        ("HS256", {"typ": "JWT"}),
        ("HS256", {"typ": None}),
        ("HS256", {"kid": "other"}),
        ("HS256", {"kid": ""}),
        ("HS256", {"crit": ["exp"]}),
    ]
    for algorithm, header in others:
        token = forged(app, alice.access_token, algorithm=algorithm, header=header)
        assert_problem(me(client, token), 401, "invalid_credentials")


def test_an_access_token_without_its_signature_is_refused(
    client: FlaskClient, alice: Person
) -> None:
    signed, _, _ = alice.access_token.rpartition(".")
    for token in (signed, f"{signed}.", f"{signed}.AAAA"):
        assert_problem(me(client, token), 401, "invalid_credentials")


@pytest.mark.parametrize("setting", ["jwt_issuer", "jwt_audience"])
def test_a_service_of_another_name_refuses_the_access_token(
    app: Flask, alice: Person, make_app: Callable[..., Flask], setting: str
) -> None:
    other = make_app(database_url=url_of(app), **{setting: "https://elsewhere.example"})
    assert_problem(me(client_of(other), alice.access_token), 401, "invalid_credentials")
    assert me(client_of(other), sign_in(client_of(other), "alice").access_token).status_code == 200


# --- each in its place ---


def test_every_kind_of_token_is_refused_in_the_place_of_every_other(
    app: Flask, client: FlaskClient, alice: Person
) -> None:
    key = alice.new_key()["key"]
    kinds = {"access": alice.access_token, "refresh": alice.refresh_token, "key": key}
    for kind in (PASSWORD_LINK, EMAIL_LINK, SECOND_STEP):
        lifetime = timedelta(hours=1)
        kinds[kind] = service_of(app).keyring.sign_for(kind, UUID(alice.id), 0, lifetime)
    places: dict[str, Callable[[str], TestResponse]] = {
        "bearer": lambda text: me(client, text),
        "x-api-key": lambda text: client.get("/v1/auth/me", headers=by_key(text)),
        "body": lambda text: refresh(client, text),
    }
    good = {("access", "bearer"), ("key", "bearer"), ("key", "x-api-key"), ("refresh", "body")}
    for kind, text in kinds.items():
        for place, present in places.items():
            response = present(text)
            if (kind, place) in good:
                assert response.status_code == 200, (kind, place)
            else:
                assert_problem(response, 401, "invalid_credentials")
    assert alice.get("/v1/auth/me").status_code == 200


def test_the_scheme_is_read_in_any_case(client: FlaskClient, alice: Person) -> None:
    for scheme in ("bearer", "BEARER"):
        headers = {"Authorization": f"{scheme} {alice.access_token}"}
        assert client.get("/v1/auth/me", headers=headers).status_code == 200


def test_another_scheme_counts_as_nothing_sent(client: FlaskClient, alice: Person) -> None:
    for header in ("", "Bearer", "Bearer ", "Basic YTpi", "Token {}", "Bearer:{}", "{}"):
        headers = {"Authorization": header.format(alice.access_token)}
        response = client.get("/v1/auth/me", headers=headers)
        assert_problem(response, 401, "unauthenticated")
        assert response.headers["WWW-Authenticate"] == "Bearer"


def test_a_token_in_the_address_is_not_a_credential(client: FlaskClient, alice: Person) -> None:
    response = client.get(f"/v1/auth/me?access_token={alice.access_token}")
    assert_problem(response, 401, "unauthenticated")


def test_what_surrounds_an_access_token_is_part_of_it(client: FlaskClient, alice: Person) -> None:
    for around in ('"{}"', "<{}>", "{},", "{} x", "{}=", "\xa0{}", "{}\xa0", "{}\x85"):
        response = me(client, around.format(alice.access_token))
        assert_problem(response, 401, "invalid_credentials")
