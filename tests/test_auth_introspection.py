"""Introspection (RFC 7662): what a token is and whether it is active, which changes nothing."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import jwt
import pytest
import requests
from authlib.integrations.requests_client import OAuth2Session
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from backend.core import clock

from .support.apps import client_of, service_of, statements
from .support.mfa import enrol
from .support.openapi import operations
from .support.people import PASSWORD, Person, add_user, by_key, by_token, sign_in
from .support.problems import assert_problem
from .support.tokens import ask, refresh

PATH = "/v1/auth/introspect"
FORM = "application/x-www-form-urlencoded"
INACTIVE = {"active": False}
Travel = Callable[..., None]


def is_active(asker: Person, token: str) -> bool:
    """Whether the token is active; assert that an inactive one is not described."""
    answer = ask(asker, token)
    assert answer["active"] is True or answer == INACTIVE
    return answer["active"]


def posted(client: FlaskClient, body: bytes | str, kind: str = FORM, **kwargs: Any) -> TestResponse:
    """The answer to a body as it stands."""
    return client.post(PATH, data=body, content_type=kind, **kwargs)


# --- what each kind is ---


def test_an_access_token_is_described_by_its_claims(root: Person, alice: Person) -> None:
    claims = jwt.decode(alice.access_token, options={"verify_signature": False})
    assert ask(root, alice.access_token) == {
        "active": True,
        "token_type": "access_token",
        "sub": alice.id,
        "username": "alice",
        "role": "user",
        **{name: claims[name] for name in ("sid", "iat", "exp", "iss", "aud", "jti")},
    }


def test_a_refresh_token_is_described_with_its_session(root: Person, alice: Person) -> None:
    [session] = alice.get("/v1/auth/sessions").json["items"]
    answer = ask(root, alice.refresh_token)
    assert answer["exp"] - answer["iat"] == 7 * 86_400
    assert abs(answer["iat"] - clock.timestamp()) < 60
    assert answer == {
        "active": True,
        "token_type": "refresh_token",
        "sub": alice.id,
        "username": "alice",
        "role": "user",
        "sid": session["id"],
        "iss": "http://127.0.0.1:8000",
        "iat": answer["iat"],
        "exp": answer["exp"],
    }


def test_an_api_key_is_described_with_its_scopes(root: Person, alice: Person) -> None:
    key = alice.new_key(scopes=["reports:read", "a:*"], expires_in_days=1)
    answer = ask(root, key["key"])
    assert abs(answer["exp"] - answer["iat"] - 86_400) < 60
    assert abs(answer["iat"] - clock.timestamp()) < 60
    assert answer == {
        "active": True,
        "token_type": "api_key",
        "sub": alice.id,
        "username": "alice",
        "role": "user",
        "scope": "a:* reports:read",
        "client_id": key["id"],
        "iss": "http://127.0.0.1:8000",
        "iat": answer["iat"],
        "exp": answer["exp"],
    }


def test_members_that_a_key_does_not_have_are_left_out(root: Person, alice: Person) -> None:
    assert not {"exp", "scope", "sid", "aud", "jti"} & set(ask(root, alice.new_key()["key"]))


def test_scopes_are_those_that_the_owner_may_hold_now(root: Person, alice: Person) -> None:
    root.patch(f"/v1/users/{alice.id}", {"role": "admin"})
    key = alice.new_key(scopes=["users:read", "reports:x"])["key"]
    assert ask(root, key)["scope"] == "reports:x users:read"
    root.patch(f"/v1/users/{alice.id}", {"role": "user"})
    assert ask(root, key)["scope"] == "reports:x"


def test_name_and_role_are_the_current_ones(root: Person, alice: Person) -> None:
    root.patch(f"/v1/users/{alice.id}", {"role": "admin", "username": "alicia"})
    for token in (alice.access_token, alice.refresh_token):
        answer = ask(root, token)
        assert (answer["username"], answer["role"]) == ("alicia", "admin")


def test_a_hint_may_be_given_and_may_be_wrong(root: Person, alice: Person) -> None:
    for hint in ("access_token", "refresh_token", "api_key", "nonsense", ""):
        assert ask(root, alice.refresh_token, token_type_hint=hint)["active"]


# --- who may ask ---


def test_who_may_call_it(client: FlaskClient, root: Person, alice: Person) -> None:
    asked = {"token": alice.refresh_token}
    assert_problem(client.post(PATH, data=asked), 401, "unauthenticated")
    assert_problem(alice.post(PATH, data=asked), 403, "forbidden")
    wrong = root.with_key(root.new_key(scopes=["keys:*", "users:*"]))
    assert_problem(wrong.post(PATH, data=asked), 403, "insufficient_scope")
    right = root.with_key(root.new_key(scopes=["tokens:introspect"]))
    assert ask(right, **asked)["active"]
    answer = alice.post("/v1/api-keys", {"name": "x", "scopes": ["tokens:introspect"]})
    assert_problem(answer, 403, "insufficient_scope")


def test_a_service_account_introspects_with_a_key_and_is_described_like_any_other(
    root: Person,
) -> None:
    account = {"username": "shop", "kind": "service"}
    shop = root.post("/v1/auth/register", account).json["id"]
    wanted = {"name": "asks", "scopes": ["tokens:introspect"], "owner_id": shop}
    key = root.post("/v1/api-keys", wanted).json
    answer = ask(root.with_key(key), key["key"])
    assert (answer["sub"], answer["scope"]) == (shop, "tokens:introspect")


# --- as OAuth clients ask ---


def basic(secret: str, client_id: str = "reports") -> dict[str, str]:
    """The header of HTTP Basic, of parts that are form-encoded (RFC 6749 section 2.3.1)."""
    pair = f"{quote_plus(client_id)}:{quote_plus(secret)}"
    return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


@pytest.fixture
def secret(root: Person) -> str:
    """A key that may introspect."""
    return root.new_key(scopes=["tokens:introspect"])["key"]


def test_the_key_may_be_sent_as_a_client_secret_by_basic_or_in_the_form(
    client: FlaskClient, alice: Person, secret: str
) -> None:
    for client_id in ("reports", "", "a:b c+d%/ü", alice.id):
        answer = client.post(
            PATH, data={"token": alice.access_token}, headers=basic(secret, client_id)
        )
        assert (answer.status_code, answer.json["active"]) == (200, True), client_id
        form = {"token": alice.access_token, "client_id": client_id, "client_secret": secret}
        answer = client.post(PATH, data=form)
        assert (answer.status_code, answer.json["active"]) == (200, True), client_id
    lower = {"Authorization": basic(secret)["Authorization"].replace("Basic", "bAsIc")}
    assert client.post(PATH, data={"token": "x"}, headers=lower).json == INACTIVE


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_authlibs_client_introspects_and_revokes(address: str, method: str) -> None:
    def session() -> tuple[dict[str, str], dict[str, Any]]:
        login = {"username": "admin", "password": PASSWORD}
        tokens = requests.post(f"{address}/v1/auth/login", json=login, timeout=30).json()
        return by_token(tokens["access_token"]), tokens

    def new_key(**wanted: Any) -> str:
        made = requests.post(
            f"{address}/v1/api-keys", json={"name": "x", **wanted}, headers=admin, timeout=30
        )
        return made.json()["key"]

    admin, _ = session()
    secret = new_key(scopes=["tokens:introspect"])
    tokens = (session()[1]["access_token"], session()[1]["refresh_token"], new_key())
    with OAuth2Session("reports", secret, token_endpoint_auth_method=method) as client:
        for token in tokens:
            for end, answer in ((False, True), (True, False)):
                if end:
                    assert (
                        client.revoke_token(f"{address}/v1/auth/revoke", token).status_code == 200
                    )
                told = client.introspect_token(f"{address}{PATH}", token)
                assert (told.status_code, told.json()["active"]) == (200, answer)


def test_an_invalid_client_secret_is_refused_in_the_scheme_it_came_by(
    client: FlaskClient, root: Person, alice: Person, secret: str
) -> None:
    asked = {"token": "x"}
    malformed = [{"Authorization": f"Basic {text}"} for text in ("", "%", "YTpi=", "YQ==", "gDqA")]
    for sent in (basic("garbage"), basic(""), basic(root.access_token), *malformed):
        answer = client.post(PATH, data=asked, headers=sent)
        assert_problem(answer, 401, "invalid_credentials")
        assert answer.headers["WWW-Authenticate"] == 'Basic realm="introspection"'
    for text in ("garbage", root.access_token, f"{secret}x"):
        answer = client.post(PATH, data=asked | {"client_secret": text})
        assert_problem(answer, 401, "invalid_credentials")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    plain = alice.new_key(scopes=["keys:read"])["key"]
    for sent in ({"headers": basic(plain)}, {"data": asked | {"client_secret": plain}}):
        assert_problem(client.post(PATH, **{"data": asked} | sent), 403, "insufficient_scope")


def test_credentials_in_more_than_one_way_are_ambiguous(
    client: FlaskClient, root: Person, secret: str
) -> None:
    asked, posted = {"token": "x"}, {"token": "x", "client_secret": secret}
    for data, headers in [
        (posted, basic(secret)),
        (posted, root.headers),
        (posted, by_key(secret)),
        (asked, basic(secret) | by_key(secret)),
        (asked, basic("") | by_key(secret)),
    ]:
        answer = client.post(PATH, data=data, headers=headers)
        assert_problem(answer, 400, "ambiguous_credentials")
    # Without a value it counts as missing, and so does the id alone (RFC 6749 section 3.2).
    for more in ({"client_secret": ""}, {"client_id": "reports"}):
        answer = client.post(PATH, data=asked | more, headers=root.headers)
        assert answer.json == INACTIVE


def test_elsewhere_basic_and_a_posted_secret_are_ignored(
    client: FlaskClient, root: Person, secret: str
) -> None:
    for method, path, operation in operations(client):
        if operation["security"] and path not in {PATH, "/v1/verify"}:
            answer = client.open(path, method=method, headers=basic(secret))
            assert_problem(answer, 401, "unauthenticated")
            assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert (
        client.get("/v1/verify", headers=basic(secret)).headers["X-Auth-Code"] == "unauthenticated"
    )
    answer = client.get("/v1/auth/me", headers=basic(secret) | by_key(secret))
    assert answer.status_code == 200
    form = {"client_secret": secret}
    assert_problem(client.post("/v1/api-keys/verify", data=form), 401, "unauthenticated")


def test_a_posted_secret_is_read_from_forms_of_at_most_32_kibibytes(
    client: FlaskClient, secret: str
) -> None:
    """It is read before anyone is known; a larger form takes a header."""
    start = f"client_secret={secret}&token="
    for size, status in ((32 * 1024, 200), (32 * 1024 + 1, 401)):
        answer = posted(client, start + "a" * (size - len(start)))
        assert answer.status_code == status
    for kind in ("text/plain", "application/json", ""):
        assert_problem(posted(client, f"{start}x", kind), 401, "unauthenticated")
    for body in (
        "%",
        f"client_secret={secret}&token=%",
        f"client_secret={secret}".encode("utf-16"),
    ):
        assert posted(client, body).status_code in {400, 401}


def test_introspecting_as_a_client_is_one_use_of_the_key(client: FlaskClient, root: Person) -> None:
    limit = {"limit": 2, "window_seconds": 3600}
    key = root.new_key(scopes=["tokens:introspect"], rate_limit=limit)["key"]
    asked = {"token": "x"}
    first = client.post(PATH, data=asked, headers=basic(key))
    second = client.post(PATH, data=asked | {"client_secret": key})
    for answer, left in ((first, 1), (second, 0)):
        assert answer.headers["RateLimit"].startswith(f'"key";r={left};t=')
    assert_problem(client.post(PATH, data=asked, headers=basic(key)), 429, "rate_limited")


def test_oauth_clients_find_the_endpoints_by_their_well_known_address(
    make_bare_app: Callable[..., Flask], tmp_path: Path
) -> None:
    url = "https://accounts.example.com/accounts"
    path = "/.well-known/oauth-authorization-server"
    answer = client_of(make_bare_app(public_url=url, jwt_issuer="https://issuer.example")).get(path)
    assert (answer.status_code, answer.content_type) == (200, "application/json")
    assert answer.json == {
        "issuer": "https://issuer.example",
        "response_types_supported": [],
        "introspection_endpoint": f"{url}/v1/auth/introspect",
        "introspection_endpoint_auth_methods_supported": [
            "client_secret_basic",
            "client_secret_post",
        ],
        "revocation_endpoint": f"{url}/v1/auth/revoke",
        "revocation_endpoint_auth_methods_supported": ["none"],
    }
    key = tmp_path / "key.pem"
    key.touch(mode=0o600)
    key.write_bytes(
        Ed25519PrivateKey.generate().private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
    )
    signing = make_bare_app(public_url=url, jwt_algorithm="EdDSA", jwt_private_key_file=key)
    found = client_of(signing).get(path).json
    assert (found["issuer"], found["jwks_uri"]) == (url, f"{url}/.well-known/jwks.json")


# --- what is not active ---


@pytest.mark.parametrize("text", ["x", "a.b.c", "bt_" + "0" * 38, "btr_" + "A" * 90, "ü" * 5000])
def test_other_text_is_not_active(root: Person, text: str) -> None:
    assert ask(root, text) == INACTIVE


def test_an_altered_token_is_not_active(root: Person, alice: Person) -> None:
    for token in (alice.access_token, alice.refresh_token, alice.new_key()["key"]):
        assert is_active(root, token)
        other = "B" if token[-1] != "B" else "C"
        for altered in (token[:-1] + other, token[:-1], token + "A", f" {token}", token.upper()):
            assert not is_active(root, altered), altered


def test_links_and_second_steps_are_not_tokens(root: Person, alice: Person) -> None:
    for letter in "pem":
        assert not is_active(root, alice.refresh_token.replace("btr_", f"bt{letter}_"))


def test_disabling_a_user_counts_at_once(root: Person, alice: Person) -> None:
    key = alice.new_key()["key"]
    tokens = [alice.access_token, alice.refresh_token, key]
    assert all(is_active(root, token) for token in tokens)
    root.patch(f"/v1/users/{alice.id}", {"is_active": False})
    assert not any(is_active(root, token) for token in tokens)
    root.patch(f"/v1/users/{alice.id}", {"is_active": True})
    assert [is_active(root, token) for token in tokens] == [False, False, True]
    root.delete(f"/v1/users/{alice.id}")
    assert not is_active(root, key)


def test_the_end_of_a_session_counts_at_once(root: Person, alice: Person) -> None:
    other = alice.again()
    alice.post("/v1/auth/logout")
    assert not is_active(root, alice.access_token)
    assert not is_active(root, alice.refresh_token)
    assert is_active(root, other.access_token)
    other.post("/v1/auth/logout-all")
    assert not is_active(root, other.access_token)
    assert not is_active(root, other.refresh_token)


def test_tokens_are_inactive_once_expired(root: Person, alice: Person, travel: Travel) -> None:
    key = alice.new_key(expires_in_days=8)["key"]
    travel(minutes=11)
    root = root.again()
    assert [is_active(root, each) for each in (alice.access_token, alice.refresh_token)] == [
        False,
        True,
    ]
    travel(days=7)
    root = root.again()
    assert not is_active(root, alice.refresh_token)
    assert is_active(root, key)
    travel(days=1)
    assert not is_active(root.again(), key)


def test_a_refresh_token_is_active_while_it_would_be_exchanged(
    client: FlaskClient, root: Person, alice: Person, travel: Travel
) -> None:
    first = alice.refresh_token
    second = refresh(client, first).json["refresh_token"]
    assert is_active(root, first)  # for the parallel ones
    assert is_active(root, second)
    travel(seconds=11)
    assert not is_active(root, first)
    # Asking has ended nothing: presented to be exchanged, the copy would end the session.
    third = refresh(client, second)
    assert third.status_code == 200
    assert not is_active(root, first)
    assert is_active(root, third.json["refresh_token"])


def test_introspecting_a_refresh_token_does_not_rotate_it(
    client: FlaskClient, root: Person, alice: Person
) -> None:
    before = ask(root, alice.refresh_token)
    assert ask(root, alice.refresh_token) == before
    next_one = refresh(client, alice.refresh_token).json["refresh_token"]
    assert next_one != alice.refresh_token
    assert ask(root, next_one)["iat"] >= before["iat"]


def test_the_state_of_a_key_counts_at_once(root: Person, alice: Person) -> None:
    key = alice.new_key()
    path = f"/v1/api-keys/{key['id']}"
    alice.patch(path, {"disabled": True})
    assert not is_active(root, key["key"])
    alice.patch(path, {"disabled": False})
    assert is_active(root, key["key"])
    alice.post(f"{path}/revoke")
    assert not is_active(root, key["key"])
    alice.delete(path)
    assert not is_active(root, key["key"])


def test_a_key_that_is_bound_to_addresses_is_not_active(root: Person, alice: Person) -> None:
    assert not is_active(root, alice.new_key(allowed_ips=["0.0.0.0/0", "::/0"])["key"])


def test_a_user_who_must_set_up_a_second_factor_has_no_active_session(
    make_app: Callable[..., Flask],
) -> None:
    client = client_of(make_app(mfa_required_roles="admin"))
    add_user(client, "root", role="admin")
    add_user(client, "alice")
    root, alice = sign_in(client, "root"), sign_in(client, "alice")
    assert_problem(root.post(PATH, data={"token": "x"}), 403, "mfa_enrolment_required")
    enrol(root)
    assert is_active(root, root.access_token)
    assert is_active(root, alice.access_token)
    root.patch(f"/v1/users/{alice.id}", {"role": "admin"})
    assert not is_active(root, alice.access_token)
    assert not is_active(root, alice.refresh_token)


# --- nothing is spent ---


def test_introspection_does_not_count_as_a_use_of_the_key(
    client: FlaskClient, root: Person, alice: Person
) -> None:
    limit = {"limit": 2, "window_seconds": 3600}
    key = alice.new_key(rate_limit=limit, quota={"remaining": 2})
    path = f"/v1/api-keys/{key['id']}"
    for _ in range(5):
        assert is_active(root, key["key"])
    service_of(client.application).periodic_tasks.run()
    now = alice.get(path).json
    assert (now["last_used_at"], now["quota"]["remaining"]) == (None, 2)
    for left in (1, 0):
        used = client.get("/v1/auth/me", headers=by_key(key["key"]))
        assert used.status_code == 200
        assert f"r={left}" in used.headers["RateLimit"]


def test_a_key_that_is_used_up_for_now_is_still_active(
    client: FlaskClient, root: Person, alice: Person
) -> None:
    for bounds in ({"quota": {"remaining": 1}}, {"rate_limit": {"limit": 1, "window_seconds": 60}}):
        key = alice.new_key(**bounds)["key"]
        assert client.get("/v1/auth/me", headers=by_key(key)).status_code == 200
        assert client.get("/v1/auth/me", headers=by_key(key)).status_code == 429
        assert is_active(root, key)


def test_a_pending_secret_is_active_and_stays_pending(root: Person, alice: Person) -> None:
    key = alice.new_key()
    path = f"/v1/api-keys/{key['id']}"
    new = alice.post(f"{path}/rotate", {}).json["key"]
    assert is_active(root, new)
    assert is_active(root, key["key"])
    assert alice.get(path).json["rotation"]["state"] == "pending"


def test_a_secret_in_grace_is_active_until_its_grace_ends(
    client: FlaskClient, root: Person, alice: Person, travel: Travel
) -> None:
    key = alice.new_key(expires_in_days=9)
    new = alice.post(f"/v1/api-keys/{key['id']}/rotate", {"grace_seconds": 60}).json["key"]
    assert client.get("/v1/auth/me", headers=by_key(new)).status_code == 200
    old, taken = ask(root, key["key"]), ask(root, new)
    assert old["client_id"] == taken["client_id"] == key["id"]
    assert 0 < old["exp"] - clock.timestamp() <= 60
    assert taken["exp"] - taken["iat"] > 8 * 86_400
    travel(seconds=61)
    assert not is_active(root, key["key"])
    assert is_active(root, new)


def test_introspection_only_reads(client: FlaskClient, root: Person, alice: Person) -> None:
    for token in (alice.access_token, alice.refresh_token, alice.new_key()["key"]):
        with statements(client.application) as ran:
            assert is_active(root, token)
        read = [each for each in ran if not each.startswith("SELECT 1")]
        assert len(read) == 2  # who asks, and what for
        assert all(each.startswith("SELECT") for each in read)


# --- the form ---


@pytest.mark.parametrize(
    "body",
    [
        "",
        "token=",
        "token",
        "token_type_hint=api_key",
        "token=x&token=x",
        "token=x&token=",
        "token=x&token_type_hint=a&token_type_hint=a",
        "token=%",
        "token=%4",
        "token=%zz",
        b"token=\xff",
        "token=%FF",
        "token=%ED%A0%80",
        "&".join(f"a{number}=1" for number in range(101)),
    ],
)
def test_a_form_that_lacks_the_token_or_cannot_be_parsed_is_refused(
    root: Person, body: bytes | str
) -> None:
    answer = posted(root.client, body, headers=root.headers)
    assert_problem(answer, 400, "bad_request")
    assert answer.json["error"] == "invalid_request"


def test_parameters_that_nobody_knows_are_ignored(root: Person) -> None:
    """RFC 6749 section 3.2: clients of OAuth send `client_id` and others."""
    key = root.new_key()["key"]
    assert ask(root, key, client_id="reports", resource="x", Token="y")["active"]
    assert ask(root, "nobody's", client_id="reports") == INACTIVE


def test_characters_that_no_token_has_are_refused(root: Person) -> None:
    for text in ("%00", "%0A", "%1B", "%C2%9B"):
        answer = posted(root.client, f"token=a{text}b", headers=root.headers)
        assert_problem(answer, 422, "validation_error", "form.token")
    assert_problem(
        root.post(f"{PATH}?token=x", data={"token": "x"}), 422, "validation_error", "query.token"
    )


@pytest.mark.parametrize(
    "kind",
    [
        "",
        "application/json",
        "text/plain",
        "multipart/form-data; boundary=x",
        f"{FORM}; charset=latin-1",
    ],
)
def test_another_type_is_refused(root: Person, kind: str) -> None:
    answer = posted(root.client, "token=x", kind, headers=root.headers)
    assert_problem(answer, 415, "unsupported_media_type")
    assert "x-www-form-urlencoded" in answer.json["detail"]


def test_a_form_is_read_as_browsers_write_it(root: Person) -> None:
    for body in ("token=a+b%2Bc", "&token=x&", "token=%c3%a9", "token=é".encode(), "token=a=b"):
        answer = posted(root.client, body, f"{FORM}; charset=UTF-8", headers=root.headers)
        assert (answer.status_code, answer.json) == (200, INACTIVE)


def test_a_form_may_have_one_mebibyte_and_no_more(root: Person) -> None:
    def padded(size: int) -> TestResponse:
        return posted(root.client, "token=" + "a" * (size - 6), headers=root.headers)

    assert padded(1024 * 1024).json == INACTIVE
    assert_problem(padded(1024 * 1024 + 1), 413, "payload_too_large")


def test_the_caller_is_checked_before_the_form_is_read(client: FlaskClient, alice: Person) -> None:
    assert_problem(posted(client, "%", "text/plain"), 401, "unauthenticated")
    assert_problem(posted(client, "%", headers=alice.headers), 403, "forbidden")
