"""What a body and a query must be before anything is done with them."""

import gzip
import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from .support.apps import client_of
from .support.people import PASSWORD, Person, add_user, by_key, sign_in
from .support.problems import assert_problem

LOGIN = "/v1/auth/login"
JSON = "application/json"
CONTROL = ["\x00", "\x01", "\t", "\n", "\r", "\x1b", "\x1f", "\x7f", "\x80", "\x85", "\x9b", "\x9f"]
SURROGATES = ["\ud800", "\udbff", "\udc00", "\udfff", "\udc00\ud800", "\ud800x\udc00"]


def post(client: FlaskClient, body: bytes | str, kind: str = JSON, **kwargs: Any) -> TestResponse:
    """The answer of login to this body."""
    return client.post(LOGIN, data=body, content_type=kind, **kwargs)


def nested(depth: int, pair: str = "[]") -> str:
    """An object that is nested `depth` deep, itself included."""
    opening, closing = ('{"a":', "}") if pair == "{}" else pair
    return f'{{"x":{opening * (depth - 1)}1{closing * (depth - 1)}}}'


# --- what is not JSON ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"}",
        b" ",
        b"\n",
        b"nothing",
        b"username=alice&password=x",
        b"{'username': 'alice'}",
        b'{username: "alice"}',
        b'{"username": "alice",}',
        b'{"username": "alice"} x',
        b'{"username": "alice"}{}',
        b'{"username": "alice"}\x00',
        b'{"username": "al\nice"}',
        b'{"username": "al\x00ice"}',
        b'{"username": "\\x41"}',
        b'{"username": "\\u12"}',
        b'{"username": "alice" /* who */}',
        b'\x0c{"username": "alice"}',
        b'{"username": True}',
        b'{"username": undefined}',
        b'{"username": 01}',
        b'{"username": +1}',
        b'{"username": .5}',
        b'{"username": 1.}',
        b'{"username": 0x10}',
        b'{"username": 1_000}',
        b'{"username": NaN}',
        b'{"username": Infinity}',
        b'{"username": -Infinity}',
        b'{"username": 1e400}',
        b'{"username": -1e400}',
        b'{"username": [1e999999999]}',
        b'{"username": "a", "username": "b"}',
        b'{"username": "a", "username": "a"}',
        b'{"username": "a", "user\\u006eame": "a"}',
        b'{"x": [{"y": {"a": 1, "a": 1}}]}',
        b'\xef\xbb\xbf{"username": "alice"}',
        b'{"username": "\xff"}',
        b'{"username": "\xe9"}',
        b'{"username": "\xc0\x80"}',
        b'{"username": "\xed\xa0\x80"}',
        b'{"username": "\xf4\x90\x80\x80"}',
        b'{"username": "\xe2\x82"}',
        '{"username": "alice"}'.encode("utf-16"),
        '{"username": "alice"}'.encode("utf-16-le"),
        '{"username": "alice"}'.encode("utf-32"),
    ],
    ids=repr,
)
def test_what_is_not_json_is_refused(bare: FlaskClient, body: bytes) -> None:
    assert_problem(post(bare, body), 400, "malformed_json")


@pytest.mark.parametrize("pair", ["[]", "{}"])
def test_nesting_ends_at_64(bare: FlaskClient, pair: str) -> None:
    fields = "json.x", "json.username", "json.password"
    assert_problem(post(bare, nested(64, pair)), 422, "validation_error", *fields)
    assert_problem(post(bare, nested(65, pair)), 400, "malformed_json")
    assert_problem(post(bare, nested(1000, pair)), 400, "malformed_json")


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"a":'])
def test_a_hundred_thousand_brackets_are_refused(alice: Person, opening: str) -> None:
    closing = opening[::-1].translate(str.maketrans("[{", "]}", '":a'))
    for body in [opening * 100_000, opening * 100_000 + "1" + closing * 100_000]:
        response = alice.post("/v1/api-keys", None, data=body, content_type=JSON)
        assert_problem(response, 400, "malformed_json")


def test_many_brackets_side_by_side_are_no_nesting(bare: FlaskClient) -> None:
    body = f'{{"x": [{", ".join(["[]", "{}"] * 1000)}]}}'
    fields = "json.x", "json.username", "json.password"
    assert_problem(post(bare, body), 422, "validation_error", *fields)


@pytest.mark.parametrize("text", ["[" * 100, "{" * 100, "]" * 100, '":"', '\\"[', "[:,", "9" * 500])
def test_what_is_inside_of_a_text_is_neither_structure_nor_number(
    bare: FlaskClient, text: str
) -> None:
    fields = "json.x", "json.y", "json.username", "json.password"
    escaped = json.dumps(text)
    body = f'{{"x": [{escaped}, {{{escaped}: {escaped}, "a": 1}}], "y": {escaped}}}'
    assert_problem(post(bare, body), 422, "validation_error", *fields)


@pytest.mark.parametrize(
    "number",
    [
        *("1e309", "-1e309", "1E+309", "1e00309", "1.8e308", "10e308"),
        *("9" * 310 + ".0", "9" * 250 + "e99", "9" * 210 + "E+99", "-" + "9" * 310 + ".5"),
    ],
)
def test_a_number_too_large_to_be_finite_is_refused(bare: FlaskClient, number: str) -> None:
    for body in [f'{{"x": {number}}}', f'{{"x": ["1e308", {{"y": [{number}]}}]}}']:
        assert_problem(post(bare, body), 400, "malformed_json")


@pytest.mark.parametrize(
    "number", ["1e308", "-1e+308", "1e-309", "1e-99999", "9" * 308 + ".0", "9" * 209 + "e99"]
)
def test_a_large_number_that_is_finite_is_json(bare: FlaskClient, number: str) -> None:
    fields = "json.x", "json.username", "json.password"
    assert_problem(post(bare, f'{{"x": [{number}]}}'), 422, "validation_error", *fields)


def test_numbers_end_at_400_digits(alice: Person) -> None:
    def days(number: str) -> TestResponse:
        body = f'{{"name": "x", "expires_in_days": {number}}}'
        return alice.post("/v1/api-keys", None, data=body, content_type=JSON)

    field = "json.expires_in_days"
    assert_problem(days("9" * 400), 422, "validation_error", field)
    assert_problem(days("-0." + "9" * 397 + "e-1"), 422, "validation_error", field)
    for number in ["9" * 401, "-" + "9" * 401, "9" * 5000, "0." + "9" * 5000, "1e" + "0" * 5000]:
        assert_problem(days(number), 400, "malformed_json")
    for body in ["9" * 401, f'{{"name": "{"9" * 401}", "x": {"9" * 401}}}']:
        response = alice.post("/v1/api-keys", None, data=body, content_type=JSON)
        assert_problem(response, 400, "malformed_json")


# --- what is JSON of another shape -----------------------------------------------------------


@pytest.mark.parametrize("body", ["[]", "[{}]", '"text"', "1", "1.5", "true", "false", "null"])
def test_a_body_that_is_not_an_object_is_refused(bare: FlaskClient, body: str) -> None:
    assert_problem(post(bare, body), 422, "validation_error", "json._schema")


@pytest.mark.parametrize("kind", [JSON, None])
def test_a_body_that_is_missing_is_refused(bare: FlaskClient, kind: str | None) -> None:
    for path in [LOGIN, "/v1/auth/refresh", "/v1/api-keys/revoke"]:
        response = bare.post(path, content_type=kind)
        assert_problem(response, 422, "validation_error", "json._schema")


def test_faults_are_lists_of_sentences_by_location_and_field(alice: Person) -> None:
    body = {"name": 1, "scopes": ["reports:read", "Reports", 5, None], "x": 1}
    errors = alice.post("/v1/api-keys", body).json["errors"]
    assert set(errors) == {"json"}
    assert set(errors["json"]) == {"name", "scopes", "x"}
    for sentences in errors["json"].values():
        assert isinstance(sentences, list)
        assert all(isinstance(sentence, str) and sentence for sentence in sentences)


def test_unknown_and_missing_fields_are_named(alice: Person) -> None:
    wanted = {"name": "x", "is_admin": True, "owner": alice.id, "Name": "y", "": 1}
    fields = "json.is_admin", "json.owner", "json.Name", "json."
    assert_problem(alice.post("/v1/api-keys", wanted), 422, "validation_error", *fields)
    assert_problem(alice.post("/v1/api-keys", {}), 422, "validation_error", "json.name")


@pytest.mark.parametrize("value", [1, 0, 1.5, True, None, [], ["alice"], {}, {"$ne": ""}, ""])
def test_a_text_must_be_a_text(bare: FlaskClient, value: Any) -> None:
    body = {"username": value, "password": PASSWORD}
    assert_problem(bare.post(LOGIN, json=body), 422, "validation_error", "json.username")


def test_an_integer_must_be_a_whole_number_in_its_range(alice: Person) -> None:
    other_kinds = [
        "1.9",
        "1.0",
        "1e2",
        '"12"',
        '" 12 "',
        "true",
        "false",
        "[1]",
        "{}",
        '""',
    ]
    out_of_range = ["0", "-1", "-0", "3651", "1" * 30]
    for number in other_kinds + out_of_range:
        body = f'{{"name": "x", "expires_in_days": {number}}}'
        response = alice.post("/v1/api-keys", None, data=body, content_type=JSON)
        assert_problem(response, 422, "validation_error", "json.expires_in_days")
    assert alice.get("/v1/api-keys").json["items"] == []


def test_a_boolean_must_be_true_or_false(alice: Person) -> None:
    path = f"/v1/api-keys/{alice.new_key()['id']}"
    for value in ["yes", "true", "True", "on", "", 1, 0, 1.0, None, [], [True]]:
        response = alice.patch(path, {"disabled": value})
        assert_problem(response, 422, "validation_error", "json.disabled")
    assert alice.patch(path, {"disabled": True}).json["disabled"] is True


NO_TIMES: list[Any] = [
    "2099-01-01",
    "2099-01-01T00:00:00",
    "2099-01-01 00:00:00Z",
    "20990101T000000Z",
    "2099-01-01T00:00Z",
    "2099-13-01T00:00:00Z",
    "2099-02-29T00:00:00Z",
    "2099-01-01T24:00:00Z",
    "2099-01-01T00:00:00+24:00",
    "2099-01-01T00:00:00+05:99",
    "2099-01-01T00:00:00+00:60",
    "2099-01-01T00:00:00+0100",
    "2099-01-01T00:00:00.Z",
    "9999-12-31T23:59:59-23:59",
    "0001-01-01T00:00:00+23:59",
    "12099-01-01T00:00:00Z",
    "2099-01-01T00:00:00Z ",
    "2099-W01-1T00:00:00Z",
    "tomorrow",
    "",
    4070908800,
    True,
    {},
]


def test_a_time_must_be_one_of_rfc_3339(alice: Person) -> None:
    for value in NO_TIMES:
        response = alice.post("/v1/api-keys", {"name": "x", "expires_at": value})
        assert_problem(response, 422, "validation_error", "json.expires_at")
    for value in ["2099-01-01T02:03:04Z", "2099-01-01t03:03:04.000+01:00", "2099-01-01T02:03:04z"]:
        assert alice.new_key(expires_at=value)["expires_at"] == "2099-01-01T02:03:04Z"


@pytest.mark.parametrize("text", CONTROL + SURROGATES, ids=ascii)
def test_a_text_that_cannot_be_stored_or_shown_is_refused(bare: FlaskClient, text: str) -> None:
    escaped = json.dumps({"username": f"al{text}ice", "password": PASSWORD})
    assert_problem(post(bare, escaped), 422, "validation_error", "json.username")
    deep = json.dumps({"username": "alice", "password": [{"x": ["y", {f"{text}z": 1}]}]})
    assert_problem(post(bare, deep), 422, "validation_error", "json.password")
    assert post(bare, json.dumps({f"user{text}name": "alice"})).status_code == 422


def test_escapes_are_read_as_the_parser_reads_them(bare: FlaskClient) -> None:
    for text in [r"\ud83d\\\udd11", r"\ud83d\"\udd11", r"\\\n", r"\ud83d\ud83d\udd11"]:
        body = f'{{"username": "{text}", "x": 1}}'
        assert_problem(post(bare, body), 422, "validation_error", "json.username")
    for text in [r"\ud83d\udd11", r"\\n", r"\\u0000", r"\\\\ud800", r"\/\"\\", r"\u00a0"]:
        body = f'{{"username": "{text}", "x": 1}}'
        assert_problem(post(bare, body), 422, "validation_error", "json.x", "json.password")


def test_a_control_character_is_found_however_deep_it_is(alice: Person) -> None:
    metadata = {"a": [*range(900), {"b": "x\n"}, *range(900)]}
    response = alice.post("/v1/api-keys", {"name": "x", "metadata": metadata})
    assert_problem(response, 422, "validation_error", "json.metadata")
    response = alice.post("/v1/api-keys", {"name": "x", "metadata": {"a": [1] * 99_999 + ["\n"]}})
    assert_problem(response, 422, "validation_error", "json._schema")


def test_text_of_all_languages_is_kept(alice: Person) -> None:
    name = "Schlüssel ключ 鍵 🔑 \u200f\u00a0é"
    assert alice.new_key(name=name)["name"] == name
    escaped = json.dumps({"name": name}, ensure_ascii=True)
    response = alice.post("/v1/api-keys", None, data=escaped, content_type=JSON)
    assert response.json["name"] == name


# --- type ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [
        "",
        "text/plain",
        "text/json",
        "application/problem+json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonx",
        "application/json, text/plain",
        "*/*",
        "json",
        "application/json; charset=latin-1",
        "application/json; charset=utf-16",
        "application/json; charset=utf-7",
        'application/json; charset="iso-8859-1"',
    ],
)
def test_another_type_or_charset_is_refused_before_the_body_is_read(
    bare: FlaskClient, kind: str
) -> None:
    for body in ["{}", "{", "username=alice"]:
        assert_problem(post(bare, body, kind), 415, "unsupported_media_type")


@pytest.mark.parametrize("kind", [JSON, "application/x-www-form-urlencoded"])
def test_a_compressed_body_is_refused_with_a_word_about_encodings(
    bare: FlaskClient, kind: str
) -> None:
    path = LOGIN if kind == JSON else "/v1/auth/revoke"
    for coding in ["gzip", "GZIP", "br", "deflate, gzip"]:
        body = gzip.compress(b"{}")
        headers = {"Content-Encoding": coding}
        response = bare.post(path, data=body, content_type=kind, headers=headers)
        assert_problem(response, 415, "unsupported_media_type")
        assert "Content-Encoding" in response.json["detail"]
        assert response.headers["Accept-Encoding"] == "identity"
    headers = {"Content-Encoding": "identity"}
    assert bare.post(path, data=b"", content_type=kind, headers=headers).status_code != 415


@pytest.mark.parametrize(
    "kind",
    [
        "application/json",
        "Application/JSON",
        "application/json;charset=utf-8",
        'application/json; charset="UTF-8"',
        "application/json; Charset=utf-8",
        "application/json; profile=x",
    ],
)
def test_json_in_utf_8_is_taken_however_it_is_written(bare: FlaskClient, kind: str) -> None:
    fields = "json.username", "json.password"
    assert_problem(post(bare, "{}", kind), 422, "validation_error", *fields)


# --- the query -------------------------------------------------------------------------------


NOT_UNDERSTOOD = [
    *((f"limit={text}", "limit") for text in ["0", "101", "-1", "%2B1", "+1", "01", "1.0", "1e1"]),
    *((f"limit={text}", "limit") for text in ["", "abc", "%201", "1%20", "0x10", "1_0"]),
    *((f"limit={text}", "limit") for text in ["9" * 30, "9" * 5000, "%D9%A1", "true"]),
    ("limit", "limit"),
    ("limit=1&limit=1", "limit"),
    ("limit=1&limit=", "limit"),
    *((f"cursor={text}", "cursor") for text in ["", "abc", "null", "A" * 21, "A" * 23]),
    *((f"cursor={text}", "cursor") for text in ["A" * 21 + "B", "A" * 22 + "==", "%00" * 22]),
    *((f"cursor={text}", "cursor") for text in ["A" * 20 + "%2B%2F", "%20" + "A" * 22]),
    *((f"cursor={text}", "cursor") for text in ["%C3%A9" * 11, "A" * 10_000]),
    ("cursor=AAAAAAAAAAAAAAAAAAAAAA&cursor=AAAAAAAAAAAAAAAAAAAAAA", "cursor"),
    ("page=1", "page"),
    ("Limit=1", "Limit"),
    ("limit[]=1", "limit[]"),
    ("access_token=x", "access_token"),
    ("api_key=x", "api_key"),
    ("=1", ""),
    ("status=", "status"),
    ("status=Active", "status"),
    ("status=active&status=revoked", "status"),
    ("owner_id=me", "owner_id"),
    ("owner_id=0192D3A4-5B6C-7D8E-9F01-23456789ABCD", "owner_id"),
    ("search=", "search"),
    ("search=" + "x" * 101, "search"),
    ("search=%00", "search"),
    ("search=a%0Ab", "search"),
    ("search=%1B", "search"),
    ("search=%C2%9B", "search"),
]


def test_a_query_that_is_not_understood_is_refused(alice: Person) -> None:
    for query, field in NOT_UNDERSTOOD:
        response = alice.get(f"/v1/api-keys?{query}")
        assert_problem(response, 422, "validation_error", f"query.{field}")


def test_a_boolean_in_a_query_is_true_or_false(root: Person) -> None:
    for flag in ["yes", "1", "0", "True", "TRUE", "", "null", "true%20"]:
        response = root.get(f"/v1/users?is_active={flag}")
        assert_problem(response, 422, "validation_error", "query.is_active")
    assert root.get("/v1/users?is_active=true").json["items"]
    assert root.get("/v1/users?is_active=false").json["items"] == []


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/v1/docs", "/v1/openapi.json"])
def test_no_route_ignores_an_unknown_parameter(bare: FlaskClient, path: str) -> None:
    assert_problem(bare.get(f"{path}?x=1"), 422, "validation_error", "query.x")


def test_a_query_is_refused_beside_a_body_too(bare: FlaskClient) -> None:
    body = {"username": "alice", "password": PASSWORD}
    response = bare.post(f"{LOGIN}?username=alice", json=body)
    assert_problem(response, 422, "validation_error", "query.username")


def test_a_search_for_what_no_key_is_called_finds_nothing(alice: Person) -> None:
    alice.new_key()
    for text in ["%ff", "%ED%A0%80", "%25", "_", "%5C", "%", "%27%22", "TEST%20"]:
        assert alice.get(f"/v1/api-keys?search={text}").json["items"] == []
    assert len(alice.get("/v1/api-keys?search=TEST").json["items"]) == 1


# --- secrets, and chance ---------------------------------------------------------------------


def test_a_secret_that_was_sent_is_never_echoed(root: Person, alice: Person) -> None:
    client, key = root.client, alice.new_key()["key"]
    password = "Canary-password-123"
    secrets = [password, key, alice.access_token, alice.refresh_token]
    account = {"username": "carol", "email": "carol@example.com", "password": PASSWORD}
    for secret in secrets:
        credentials = {"Authorization": f"Bearer {secret}x"}, by_key(f"{secret}x")
        responses = [
            *(client.get("/v1/users", headers=headers) for headers in credentials),
            *(client.get(place.format(secret)) for place in ["/{}", "/v1/users/{}", "/v1/{}/x"]),
            *(root.post("/v1/auth/register", {**account, field: secret * 60}) for field in account),
            *(root.post("/v1/auth/register", {**account, field: [secret]}) for field in account),
            *(root.post("/v1/auth/register", {**account, f: secret}) for f in ["role", "kind"]),
            *(root.get(f"/v1/users?{name}={secret}") for name in ["limit", "cursor", "role"]),
            *(root.get(f"/v1/users?{name}={secret}") for name in ["kind", "is_active"]),
            *(root.get(f"/v1/api-keys?{name}={secret}") for name in ["status", "owner_id"]),
            root.post("/v1/api-keys", {"name": "x", "scopes": [secret]}),
            root.post("/v1/api-keys", {"name": "x", "expires_at": secret}),
            root.post("/v1/api-keys", {"name": "x", "expires_in_days": secret}),
            root.patch(f"/v1/users/{alice.id}", {"is_active": secret}),
            root.patch("/v1/auth/me", {"username": "root", "current_password": secret}),
            client.post(LOGIN, json={"username": "alice", "password": secret}),
            client.post(LOGIN, json={"username": secret, "password": "x"}),
            client.post(LOGIN, json={"username": secret + "\n", "password": secret + "\n"}),
            client.post(LOGIN, data=f'{{"password": "{secret}"', content_type=JSON),
            client.post(LOGIN, data=f'["{secret}"]', content_type=JSON),
            client.post(LOGIN, data=secret, content_type=f"text/{secret}"),
            client.post("/v1/auth/refresh", json={"refresh_token": f"{secret}x"}),
        ]
        for response in responses:
            assert response.status_code >= 400
            assert secret not in response.text
            assert secret not in str(response.headers)


NASTY: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    2**31,
    2**63,
    10**399,
    1.5,
    -0.0,
    1e308,
    5e-324,
    "",
    " ",
    "\x00",
    "\ud800",
    "é" * 300,
    "\u202e\ufeff",
    "🔑" * 1024,
    "a" * 5000,
    "'; DROP TABLE users; --",
    "%s %(x)s {0} ${x}",
    "..@..",
    "a@b",
    "@",
    "a@xn--\x80.example",
    "a@" + "b" * 64 + ".example",
    "a@xn--a.example",
    "null",
    [],
    {},
    [[]],
    [None],
    ["a:b"] * 51,
    {"$gt": ""},
    "2099-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999999-23:59",
]


def mutated(chance: random.Random, body: dict[str, Any], others: list[str]) -> bytes:
    """The body as bytes, with a few faults of any kind."""
    body = dict(body)
    for _ in range(chance.randint(0, 3)):
        name = chance.choice([*body, *others]) if chance.random() < 0.9 else chance.choice("aé\x00")
        if chance.random() < 0.2:
            body.pop(name, None)
        else:
            value = chance.choice(NASTY)
            body[name] = {"x": [value]} if chance.random() < 0.1 else value
    raw = bytearray(json.dumps(body, ensure_ascii=chance.random() < 0.7).encode(errors="replace"))
    for _ in range(chance.choice([0, 0, 0, 0, 1, 2, 5])):
        place = chance.randrange(len(raw))
        change = chance.randrange(4)
        if change == 0:
            raw[place] = chance.randrange(256)
        elif change == 1:
            del raw[place : place + chance.randint(1, 5)]
        elif change == 2:
            raw[place:place] = chance.choice([b'"', b"{", b"[", b"\\", b",", b"\xff", b"9" * 500])
        else:
            raw[place:place] = raw[place : place + 20]
        raw = raw or bytearray(b" ")
    return bytes(raw)


@pytest.mark.slow
def test_no_body_that_chance_makes_is_a_fault_of_ours(make_app: Callable[..., Flask]) -> None:
    client = client_of(make_app(max_keys_per_user=1000))
    add_user(client, "root", role="admin")
    add_user(client, "dave")
    root = sign_in(client, "root")
    chance = random.Random(20261123)
    places: list[tuple[str, dict[str, Any], list[str]]] = [
        (LOGIN, {"username": "dave", "password": PASSWORD}, ["otp"]),
        (
            "/v1/auth/register",
            {"username": "carol", "email": "carol@example.com", "password": PASSWORD},
            ["role", "kind", "is_active"],
        ),
        (
            "/v1/api-keys",
            {"name": "x", "description": "y", "scopes": ["reports:read"], "expires_in_days": 3},
            ["expires_at", "disabled", "metadata"],
        ),
    ]
    seen = set()
    for path, body, others in places:
        for _ in range(150):
            raw = mutated(chance, body, others)
            response = client.post(path, data=raw, content_type=JSON, headers=root.headers)
            assert response.status_code < 500, (path, raw)
            seen.add(response.status_code)
    assert {200, 201, 400, 401, 422} <= seen
