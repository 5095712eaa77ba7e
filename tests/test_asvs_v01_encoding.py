"""ASVS 5.0 chapter 1: encoding and sanitisation."""

from __future__ import annotations

import pickle
import socket

import pytest
from flask import Flask
from flask.testing import FlaskClient

from .support.mail import mails_of
from .support.people import PASSWORD, Person
from .support.problems import assert_problem
from .support.tokens import forged, me

HEADER = "a\r\nX-Evil: 1"


def test_1_2_1_nothing_that_is_sent_becomes_a_header(root: Person) -> None:
    account = {"email": "carol@example.com", "password": PASSWORD}
    for name in (HEADER, "日本語", "a\0b"):
        answer = root.post("/v1/auth/register", {**account, "username": name})
        assert_problem(answer, 422, "validation_error", "json.username")
    evil = {"HTTP_X_REQUEST_ID": HEADER, "HTTP_ORIGIN": HEADER, "HTTP_HOST": "localhost"}
    for path in ("/v1/auth/me", "/v1/docs", "/nothing"):
        answer = root.client.get(path, environ_overrides=evil)
        assert str(answer.headers).isascii()
        assert "evil" not in str(answer.headers).lower()


def test_1_2_4_a_statement_in_a_text_is_a_text(root: Person, alice: Person) -> None:
    for text in ("' OR 1=1--", "'; DROP TABLE users;--", "%' OR '1'='1", "\\' OR 1=1--"):
        for path in ("/v1/users", "/v1/api-keys"):
            assert root.get(path, query_string={"search": text}).json["items"] == []
            both = {"search": text, "sort": "id;DROP TABLE users"}
            assert_problem(root.get(path, query_string=both), 422, "validation_error", "query.sort")
        guess = {"username": text, "password": text}
        answer = root.client.post("/v1/auth/login", json=guess)
        assert_problem(answer, 401, "invalid_credentials")
        assert alice.new_key(name=text)["name"] == text
    assert len(root.get("/v1/users").json["items"]) == 2


def test_1_3_3_dangerous_and_endless_texts_are_refused(root: Person) -> None:
    account = {"email": "carol@example.com", "password": PASSWORD}
    place = (422, "validation_error", "json.username")
    for text in ("nul\0", "\ud800", "\u202ebob", "x" * 10_000):
        answer = root.post("/v1/auth/register", {**account, "username": text})
        assert_problem(answer, *place)
        assert_problem(root.patch(f"/v1/users/{root.id}", {"username": text}), *place)


def test_1_3_6_no_address_in_a_token_is_called(
    app: Flask, client: FlaskClient, alice: Person
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/keys.json"
        for name in ("jku", "x5u", "kid", "iss"):
            token = forged(app, alice.access_token, header={name: url}, claims={"iss": url})
            assert_problem(me(client, token), 401, "invalid_credentials")
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_1_3_11_no_header_is_smuggled_into_mail(
    client: FlaskClient, root: Person, alice: Person
) -> None:
    evil = "v@x.co\nBcc: e@x.co"
    place = (422, "validation_error", "json.email")
    assert_problem(client.post("/v1/auth/password/forgot", json={"email": evil}), *place)
    account = {"username": "carol", "email": evil, "password": PASSWORD}
    assert_problem(root.post("/v1/auth/register", account), *place)
    changes = {"email": evil, "current_password": PASSWORD}
    assert_problem(alice.patch("/v1/auth/me", changes), *place)
    assert mails_of(client) == []


def test_1_4_2_numbers_beyond_their_range_are_refused(alice: Person) -> None:
    for number in ("9223372036854775808", "-1", "1e30"):
        assert_problem(alice.get(f"/v1/api-keys/{number}"), 404, "not_found")
        for query in (f"limit={number}", f"page={number}"):
            answer = alice.get(f"/v1/api-keys?{query}")
            assert_problem(answer, 422, "validation_error", f"query.{query.partition('=')[0]}")
    for days in (2**63, 10**30, -1, 3651):
        answer = alice.post("/v1/api-keys", {"name": "x", "expires_in_days": days})
        assert_problem(answer, 422, "validation_error", "json.expires_in_days")


def test_1_5_2_only_json_is_read(client: FlaskClient) -> None:
    for kind, body in {
        "application/octet-stream": pickle.dumps({"username": "alice"}),
        "application/x-python-pickle": pickle.dumps({"username": "alice"}),
        "application/xml": b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
        "application/yaml": b"!!python/object/apply:os.system ['true']",
        "text/json": b'{"username": "alice", "password": "x"}',
    }.items():
        answer = client.post("/v1/auth/login", data=body, content_type=kind)
        assert_problem(answer, 415, "unsupported_media_type")


def test_1_5_3_a_name_that_stands_twice_is_refused(root: Person, alice: Person) -> None:
    for method, path in (("POST", "/v1/auth/register"), ("PATCH", f"/v1/users/{alice.id}")):
        for body in ('{"role":"user","role":"admin"}', '{"role":"user","\\u0072ole":"admin"}'):
            answer = root.client.open(
                path,
                method=method,
                headers=root.headers,
                data=body,
                content_type="application/json",
            )
            assert_problem(answer, 400, "malformed_json")
    assert root.get(f"/v1/users/{alice.id}").json["role"] == "user"
