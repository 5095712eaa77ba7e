"""The text of an API key: its form, its checksum, and what is kept of it."""

import hashlib
import re
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from .support.apps import client_of, service_of, statements
from .support.databases import stored
from .support.people import Person, add_user, by_key, sign_in
from .support.problems import assert_problem

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
HASHES: list[Any] = [hashlib.md5, hashlib.sha1, hashlib.sha256, hashlib.sha512]


def checksum(text: str) -> str:
    """The six characters that follow `text`, by the published rule."""
    number = zlib.crc32(text.encode("ascii"))
    return "".join(ALPHABET[number // 62**place % 62] for place in range(5, -1, -1))


def key_text(body: str, prefix: str = "bt") -> str:
    """A text of the right form that belongs to no key."""
    return f"{prefix}_{body}{checksum(f'{prefix}_{body}')}"


def test_a_text_is_prefix_then_32_characters_then_a_checksum(alice: Person) -> None:
    bodies = set()
    for _ in range(20):
        text = alice.new_key()["key"]
        assert re.fullmatch("bt_[0-9A-Za-z]{38}", text)
        assert text[-6:] == checksum(text[:-6])
        bodies.add(text[3:-6])
    assert len(bodies) == 20
    used = set("".join(bodies))
    assert used & set("0123456789")
    assert used & set("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    assert used & set("abcdefghijklmnopqrstuvwxyz")


@pytest.mark.parametrize("prefix", ["ab", "a1", "acme", "a123456789012345"])
def test_the_prefix_is_a_setting(make_app: Callable[..., Flask], prefix: str) -> None:
    client = client_of(make_app(api_key_prefix=prefix))
    add_user(client, "alice")
    key = sign_in(client, "alice").new_key()
    assert re.fullmatch(f"{prefix}_[0-9A-Za-z]{{38}}", key["key"])
    assert key["key"][-6:] == checksum(key["key"][:-6])
    assert key["hint"].startswith(prefix)
    assert client.get("/v1/auth/me", headers=by_key(key["key"])).status_code == 200


def test_a_short_checksum_is_padded_with_zeros(client: FlaskClient, app: Flask) -> None:
    """A text with a checksum below 62**5 is looked for, and so was found to be well formed."""
    bodies = (f"{number:032}" for number in range(1000))
    text = next(text for text in map(key_text, bodies) if text[-6] == "0")
    with statements(app) as ran:
        response = client.get("/v1/auth/me", headers=by_key(text))
    assert_problem(response, 401, "invalid_credentials")
    assert len(ran) == 1


def test_text_that_cannot_be_a_key_is_refused_without_a_query(
    client: FlaskClient, app: Flask, alice: Person, subtests: pytest.Subtests
) -> None:
    good = alice.new_key()["key"]
    body = good[3:-6]
    wrong = {
        "checksum": good[:-1] + ("0" if good[-1] != "0" else "1"),
        "checksum of another text": good[:-6] + checksum(body),
        "checksum in other letters": good[:-6] + good[-6:].swapcase(),
        "two characters changed places": f"bt_{body[::-1]}{good[-6:]}",
        "something before": "x" + good,
        "not ASCII": good[:-1] + "é",
        "a space": f"{good} {good}",
        "much": "x" * 513,
    }
    # These might be keys of another system, by the digests of which one query asks.
    unknown = {
        "too short": key_text(body[:-1]),
        "too long": key_text(body + "0"),
        "a character that is none of the 62": key_text(body[:-1] + "-"),
        "no checksum": good[:-6],
        "no prefix": f"_{body}{checksum('_' + body)}",
        "prefix of one letter": key_text(body, "b"),
        "prefix of seventeen letters": key_text(body, "b" * 17),
        "prefix in capitals": key_text(body, "BT"),
        "prefix that begins with a digit": key_text(body, "1bt"),
        "something behind": good + "x",
        "another key behind": f"{good},{good}",
        "quotes": f'"{good}"',
        "a refresh token": alice.refresh_token,
        "an id": alice.id,
        "one character": "x",
        "much": "x" * 512,
    }
    wrong = {what: text for what, text in wrong.items() if text != good}
    for what, text in (
        wrong | {f"{what}, unknown": text for what, text in unknown.items()}
    ).items():
        for headers in (by_key(text), {"Authorization": f"Bearer {text}"}):
            with subtests.test(what), statements(app) as ran:
                response = client.get("/v1/auth/me", headers=headers)
                assert_problem(response, 401, "invalid_credentials")
                assert len(ran) == what.endswith("unknown")
    for what, text in wrong.items():
        with subtests.test(what), statements(app) as ran:
            sent = client.post("/v1/api-keys/revoke", json={"key": text})
            assert sent.status_code == 204
            assert not [sql for sql in ran if "api_key" in sql]
    assert client.get("/v1/auth/me", headers=by_key(good)).status_code == 200


def test_the_database_holds_neither_the_text_nor_a_plain_digest_of_it(
    client: FlaskClient, app: Flask, alice: Person
) -> None:
    key = alice.new_key()
    assert client.get("/v1/auth/me", headers=by_key(key["key"])).status_code == 200
    service_of(app).flush()
    kept = stored(app)
    assert key["id"] in kept or key["id"].replace("-", "") in kept
    assert key["hint"] in kept
    texts = [key["key"], key["key"][3:], key["key"][:-6], key["key"][3:-6]]
    digests = [hash_(text.encode()).hexdigest() for text in texts for hash_ in HASHES]
    for found in [*texts, *digests]:
        assert found not in kept
        assert found.upper() not in kept
