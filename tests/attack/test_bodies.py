"""No body costs much more than to parse it, whatever its shape, its route and its member.

What a request takes of the processor is compared with what `json.loads` takes for its body. The
short form asks all public routes, and two others; the full one all routes, with each member.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
from collections.abc import Callable, Iterator
from time import thread_time
from typing import Any, NamedTuple

import pytest
from flask import Flask
from werkzeug.test import EnvironBuilder, run_wsgi_app

from backend.web.parsing import FORM, MAX_BODY, MAX_PUBLIC_BODY

from ..support.apps import client_of
from ..support.databases import ON_SQLITE
from ..support.long_runs import FULL
from ..support.openapi import NOTHING
from ..support.people import add_user, by_token, sign_in

JSON = "application/json"
ALLOWED = 20.0 if FULL else 40.0  # milliseconds; CI also runs on machines that are slower or busy
SHORT = {"/v1/api-keys": "allowed_ips", "/v1/auth/introspect": "token"}

ITEMS = [
    *(b"1", b"0.1", b"1e3", b"1e300", b"9" * 400, b"null", b"[]", b"{}", b"[[],[[]]]"),
    *(b'{"":0}', b'{"a":1,"b":2}', b"[" * 60 + b"]" * 60, b'""', b'"a"', b'"[["', b'"a:b"'),
    *(b'"1.2.3.4"', b'"::/0"', rb'"\u0041"', rb'"\""', b'"' + b"9" * 401 + b'"', b'"1e400"'),
]
TEXTS = [
    *(b"x", rb"\"", rb"\\", rb"\/", rb"\u0041", rb"\ud83d\udd11", rb"\t", rb"\ud800"),
    *("\u00a0".encode(), "é".encode(), "鍵".encode(), "\u0308\u0323".encode(), "🔑".encode()),
    *(b"9", b"::", b"..", b"@.", b"[", b"{", b"a."),
]
# Each takes what is only looked at where it may be needed.
TRIGGERS = b'{"x":[1e300,' + b"9" * 250 + b"],"
CONTROL = rb',"\t"]}'
FORM_PARTS = [b"a", b"%41", b"%C3%A9", b"%25", b"%00", b"%ff", b"+", b"=", b"&", b"a=&", b"a."]


class Body(NamedTuple):
    """A body, and what it is full of."""

    label: str
    raw: bytes
    kind: str = JSON


def filled(size: int, before: bytes, part: bytes, after: bytes, between: bytes = b"") -> bytes:
    """As many parts as fit."""
    count = (size - len(before) - len(after)) // len(part + between)
    return before + between.join([part] * count) + after


def bodies(member: str, size: int) -> Iterator[Body]:
    """Bodies of up to `size` bytes that are full of the same, in this member."""
    name = b'"%s":' % member.encode()
    for item in ITEMS:
        label = item[:16].decode()
        yield Body(f"[{label}]", filled(size, b"{%s[" % name, item, b"]}", b","))
        if size > 1024 + len(TRIGGERS):
            raw = filled(size, TRIGGERS + name + b"[", item, CONTROL, b",")
            yield Body(f"all checks, [{label}]", raw)
    for part in TEXTS:
        yield Body(f'"{part.decode()}"', filled(size, b'{%s"' % name, part, b'"}'))
    for value in (b"1", b"{}", b'"x"'):
        count = size // (len(value) + 9)
        members = b",".join(b'"%x":%s' % (number, value) for number in range(count))
        yield Body(f"members, {value.decode()}", b"{%s{%s}}" % (name, members))
        yield Body(f"unknown members, {value.decode()}", b"{%s1,%s}" % (name, members))


def forms(member: str, size: int) -> Iterator[Body]:
    """As `bodies`, for a form."""
    for part in FORM_PARTS:
        raw = filled(size, b"%s=" % member.encode(), part, b"")
        yield Body(part.decode(), raw, FORM)
    raw = b"&".join(filled(size // 99 - 1, b"x%d=" % number, b"%41", b"") for number in range(99))
    yield Body("99 parameters", raw, FORM)


def members_of(view: Any) -> list[str]:
    """The names of what the body of this view may hold."""
    if hasattr(view, "form"):
        return [*view.form.fields]
    documented = view._apidoc["arguments"]["parameters"]
    [schema] = [each["schema"] for each in documented if each["in"] == "json"]
    return [*schema.fields]


def milliseconds(work: Callable[[], object]) -> float:
    """The least that it took of the processor, in three times."""
    taken = []
    for _ in range(3):
        begun = thread_time()
        work()
        taken.append(thread_time() - begun)
    return min(taken) * 1000


def loads(raw: bytes) -> None:
    """Parse, if it can be parsed."""
    with contextlib.suppress(ValueError):
        json.loads(raw)


def beyond(app: Flask, method: str, path: str, body: Body, headers: dict[str, str]) -> float:
    """What the request takes beyond `json.loads`, in milliseconds."""

    fine = {"200", "204", "400", "404", "422"}  # so that it was looked at
    if len(body.raw) <= MAX_PUBLIC_BODY:
        fine.add("401")  # no token, but a text that might be one
    asked = EnvironBuilder(
        method=method, path=path, data=body.raw, content_type=body.kind, headers=headers
    )

    def ask() -> None:
        asked.input_stream = io.BytesIO(body.raw)
        parts, status, _ = run_wsgi_app(app.wsgi_app, asked.get_environ())
        assert status[:3] in fine, (path, body.label, status)
        assert sum(map(len, parts)) <= 16 * 1024

    return milliseconds(ask) - milliseconds(lambda: loads(body.raw))


@pytest.fixture
def no_garbage_collection() -> Iterator[None]:
    """It takes its time from whoever comes next."""
    gc.collect()
    gc.freeze()
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()


@ON_SQLITE
@pytest.mark.usefixtures("no_garbage_collection")
def test_no_body_costs_much_more_than_to_parse_it(
    make_app: Callable[..., Flask], figure: Callable[[str, str], None]
) -> None:
    app = make_app(jwt_access_token_expire_minutes=60)  # a refusal of the caller would be cheap
    client = client_of(app)
    add_user(client, "root", role="admin")
    headers = by_token(sign_in(client, "root").access_token)
    worst: dict[str, tuple[float, str]] = {}
    for rule in app.url_map.iter_rules():
        view = app.view_functions[rule.endpoint]
        if not (hasattr(view, "form") or getattr(view, "takes_json", False)):
            continue
        public = view.access.requirement is None
        with app.test_request_context():
            path = rule.build(dict.fromkeys(rule.arguments, NOTHING))[1]
        [method] = rule.methods - {"OPTIONS"}
        members = members_of(view)
        if not FULL and not public:
            members = [SHORT[rule.rule]] if rule.rule in SHORT and method == "POST" else []
        size, make = (
            MAX_PUBLIC_BODY if public else MAX_BODY,
            forms if hasattr(view, "form") else bodies,
        )
        for member in members:
            for body in make(member, size):
                taken = beyond(app, method, path, body, headers)
                for _ in range(4):  # what is slow is slow each time; what the machine does, is not
                    if taken > ALLOWED:
                        taken = min(taken, beyond(app, method, path, body, headers))
                place = f"{method} {rule.rule}"
                worst[place] = max(worst.get(place, (0.0, "")), (taken, f"{member}: {body.label}"))
    for place, (taken, label) in worst.items():
        figure(f"most beyond parsing, {place}"[:60], f"{taken:.1f} ms, {label}")
    assert {place: each for place, each in worst.items() if each[0] > ALLOWED} == {}
