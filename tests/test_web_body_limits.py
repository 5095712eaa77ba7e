"""How much a body may hold, how much of it is read, and how much a refusal says of it."""

from __future__ import annotations

import gc
import io
import json
from typing import Any

import pytest
from flask.testing import FlaskClient
from marshmallow import fields
from werkzeug.test import TestResponse

from backend.web.fields import List, Schema

from .support.openapi import NOTHING
from .support.people import Person
from .support.problems import assert_problem

KEYS = "/v1/api-keys"
VERIFY = "/v1/api-keys/verify"
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
KIB = 1024
MIB = 1024 * KIB
PUBLIC = 32 * KIB
MANY = 200_000


def padded(size: int, kind: str = JSON) -> bytes:
    """A body of `size` bytes: valid JSON, with an unknown field; or a form."""
    before, after = (b'{"x": "', b'"}') if kind == JSON else (b"token=", b"")
    return before + b"a" * (size - len(before) - len(after)) + after


def chunked(body: bytes) -> dict[str, Any]:
    """How a server hands over a body that came in chunks, without a length."""
    return {
        "input_stream": io.BytesIO(body),
        "headers": {"Transfer-Encoding": "chunked"},
        "environ_overrides": {"wsgi.input_terminated": True, "CONTENT_LENGTH": ""},
    }


def routes(client: FlaskClient) -> list[tuple[str, str, Any]]:
    """(method, path, view) of each route that judges its body; an id in a path is of nothing."""
    app = client.application
    found = []
    for rule in app.url_map.iter_rules():
        view = app.view_functions[rule.endpoint]
        if rule.methods and not view.access.checks_itself:
            with app.test_request_context():
                path = rule.build(dict.fromkeys(rule.arguments, NOTHING))[1]
            found += [(method, path, view) for method in sorted(rule.methods - {"OPTIONS"})]
    return found


# --- how much it may be ----------------------------------------------------------------------


@pytest.mark.slow
def test_public_routes_take_32_kibibytes_and_authenticated_ones_a_mebibyte(root: Person) -> None:
    authorization = root.headers
    for method, path, view in routes(root.client):
        limit = PUBLIC if view.access.requirement is None else MIB
        kind = FORM if hasattr(view, "form") else JSON

        def send(size: int, *, method: str = method, path: str = path, kind: str = kind) -> list:
            body = padded(size, kind)
            sized: dict[str, Any] = {"data": body, "headers": {}}
            found = []
            for form in (sized, chunked(body)):
                form["headers"] |= authorization
                answer = root.client.open(path, method=method, content_type=kind, **form)
                found.append(answer.status_code)
            return found

        for size in (limit + 1, MIB + 1, 2 * MIB):
            assert send(size) == [413, 413], (method, path, size)
        if hasattr(view, "form") or getattr(view, "takes_json", False):
            assert 413 not in send(limit), (method, path)


def test_revoking_by_possession_takes_32_kibibytes(bare: FlaskClient) -> None:
    for path, kind in (("/v1/auth/revoke", FORM), ("/v1/api-keys/revoke", JSON)):
        for form in ({"data": padded(PUBLIC + 1, kind)}, chunked(padded(PUBLIC + 1, kind))):
            response = bare.post(path, content_type=kind, **form)
            assert_problem(response, 413, "payload_too_large")
    assert bare.post("/v1/auth/revoke", data=padded(PUBLIC, FORM), content_type=FORM).text == ""


@pytest.mark.parametrize("path", ["/v1/auth/login", "/v1/auth/revoke", "/healthz"])
def test_no_more_is_read_of_a_public_body_than_shows_that_it_is_too_large(
    bare: FlaskClient, path: str
) -> None:
    method = "GET" if path == "/healthz" else "POST"
    sent = chunked(padded(2 * MIB))
    assert bare.open(path, method=method, content_type=JSON, **sent).status_code == 413
    assert sent["input_stream"].tell() == PUBLIC + 1
    stream = io.BytesIO(padded(2 * MIB))
    sized = {"input_stream": stream, "environ_overrides": {"CONTENT_LENGTH": str(2 * MIB)}}
    assert bare.open(path, method=method, content_type=JSON, **sized).status_code == 413
    assert stream.tell() == 0


def test_a_proxys_question_may_have_any_body_and_none_is_read(alice: Person) -> None:
    for size in (PUBLIC + 1, 2 * MIB):
        sent = chunked(padded(size))
        sent["headers"] |= alice.headers
        assert alice.client.post("/v1/verify", **sent).status_code == 200
        assert sent["input_stream"].tell() == 0


def test_who_may_not_call_is_refused_before_the_size_is(alice: Person) -> None:
    big, client = padded(MIB + 1), alice.client
    for sent in ({"data": big, "headers": {}}, chunked(big)):
        own = {"headers": sent["headers"]}
        response = client.post("/v1/auth/register", **(sent | own))
        assert_problem(response, 401, "unauthenticated")
    for sent in ({"data": big, "headers": {}}, chunked(big)):
        sent["headers"] |= alice.headers
        assert_problem(client.post("/v1/auth/register", **sent), 403, "forbidden")


# --- how much is said of it ------------------------------------------------------------------


def sentences(response: TestResponse) -> list[str]:
    """All faults that a refusal names; it is as small as it is promised to be."""
    assert (response.status_code, response.json["code"]) == (422, "validation_error")
    assert len(response.data) <= 16 * KIB
    found = [
        f"{field}: {text}"
        for fields in response.json["errors"].values()
        for field, texts in fields.items()
        for text in texts
    ]
    assert 1 <= len(found) <= 20
    return found


WIDE = "\U0001f511" * 200  # twelve bytes a character in JSON
UNKNOWN = {f"{WIDE[: number % 64]}{number}": 1 for number in range(1000)}
TOO_MUCH: list[Any] = [
    {"allowed_ips": ["x"] * MANY},
    {"allowed_ips": [1] * 50},
    {"scopes": [WIDE] * 50},
    {"scopes": [{}] * MANY},
    {"quota": [1] * MANY},
    {"quota": UNKNOWN},
    {"quota": {"remaining": [1] * MANY, **UNKNOWN}},
    {"rate_limit": {str(number): number for number in range(50_000)}},
    {"rate_limit": ["x"] * MANY},
    {"metadata": [1] * MANY},
    {"metadata": {"x": [1] * MANY}},
    {"metadata": {str(number): number for number in range(50_000)}},
    {"name": ["x"] * 100_000, "ip": [1] * 100_000, "key": {}},
    {"name": "x\n", "key": [["\x00"]], WIDE: "\x07"},
    {f"{WIDE}{number}": "\n" for number in range(200)},
    {f"{number}\n": 1 for number in range(50_000)},
    UNKNOWN,
    {"scopes": ["x"] * 50, "allowed_ips": ["x"] * 50, "quota": UNKNOWN, **UNKNOWN},
    [1] * MANY,
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "body", TOO_MUCH, ids=lambda body: str(body)[:20].encode("ascii", "replace")
)
def test_a_refusal_names_at_most_20_faults_and_has_at_most_16_kibibytes(
    root: Person, body: Any
) -> None:
    key_id = root.new_key()["id"]
    for path in (KEYS, VERIFY, f"{KEYS}/{key_id}/explain", f"{KEYS}/{key_id}/rotate"):
        sentences(root.post(path, body))
    sentences(root.patch(f"{KEYS}/{key_id}", body))


def test_a_refusal_of_a_public_route_is_as_small(bare: FlaskClient) -> None:
    names = "\x00\U0001f511\ud800" * 21
    body = json.dumps({f"{names}{number}": 1 for number in range(200)})[: PUBLIC // 2]
    body = body[: body.rindex(", ")] + "}"
    response = bare.post("/v1/auth/login", data=body, content_type=JSON)
    assert len(sentences(response)) >= 10


def test_a_refusal_of_a_query_is_as_small(root: Person) -> None:
    for query in ["&".join(f"{number}=1" for number in range(99)), f"{'%F0%9F%94%91' * 99}=1"]:
        sentences(root.get(f"/v1/users?{query}"))
    for query in ["a&" * 30_000, "limit=1&" * 100]:
        assert sentences(root.get(f"/v1/users?{query}")) == ["_schema: At most 100 parameters."]


def test_of_many_faults_the_first_20_are_named(alice: Person) -> None:
    wanted = {"name": "x", "scopes": ["x"] * 15, "allowed_ips": ["x"] * 15, "y": 1}
    found = sentences(alice.post(KEYS, wanted))
    assert [each.partition(":")[0] for each in found] == ["scopes"] * 15 + ["allowed_ips"] * 5
    assert found[14].startswith("scopes: 14: ")
    body = {f"field{number}": 1 for number in range(10_000)}
    found = sentences(alice.post(KEYS, body))
    assert found[0] == "name: Missing data for required field."
    assert len(found) == 20
    assert all(each.endswith(": Unknown field.") for each in found[1:])


def test_the_items_of_a_list_are_counted_before_they_are_looked_at(root: Person) -> None:
    document = root.client.get("/v1/openapi.json").json
    found = set()
    for path, item in document["paths"].items():
        for method, operation in item.items():
            content = (
                operation.get("requestBody", {}).get("content", {})
                if method != "parameters"
                else {}
            )
            if JSON not in content:
                continue
            name = content[JSON]["schema"]["$ref"].rpartition("/")[2]
            for field, schema in document["components"]["schemas"][name]["properties"].items():
                if schema.get("type") != "array":
                    continue
                found.add(field)
                body = {field: [{"x": 1}] * (schema["maxItems"] + 1)}
                own = path.replace("{key_id}", root.new_key()["id"])
                response = root.client.open(own, method=method, json=body, headers=root.headers)
                said = response.json["errors"]["json"][field]
                assert said == [f"Longer than maximum length {schema['maxItems']}."]
    assert {"scopes", "allowed_ips"} <= found


def test_a_list_that_comes_in_must_have_an_end() -> None:
    class Endless(Schema):
        names = fields.List(fields.String())

    class Bounded(Schema):
        names = List(fields.String(), most=2)

    with pytest.raises(TypeError, match="names"):
        Endless()
    assert Bounded().load({"names": ["a", "b"]}) == {"names": ["a", "b"]}


# --- what is left of it ----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "body",
    [
        {"name": [1] * 12_345},
        {"name": "x", "scopes": [1] * 12_345},
        {"name": "x", "quota": {str(number): 1 for number in range(12_345)}},
        {"name": "x", "metadata": {"x": [1] * 12_345}},
        {"name": "x", "scopes": ["\n"] * 12_345},
        {str(number): 1 for number in range(12_345)},
    ],
    ids=["text", "list", "object", "metadata", "control characters", "unknown"],
)
def test_a_body_that_was_refused_does_not_wait_for_the_garbage_collector(
    alice: Person, body: dict[str, Any]
) -> None:
    raw = json.dumps(body)

    def large() -> int:
        found = [each for each in gc.get_objects() if isinstance(each, dict | list)]
        return sum(12_345 <= len(each) < 12_350 for each in found)

    alice.post(KEYS, {})  # what is made once is made
    gc.collect()
    before = large()
    gc.disable()
    try:
        response = alice.post(KEYS, None, data=raw, content_type=JSON)
        assert response.status_code == 422
        assert large() == before
    finally:
        gc.enable()
