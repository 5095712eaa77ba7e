"""Strict JSON (RFC 8259) with limits, at little more than the cost of `json.loads`.

A Python callback for each number, text and object would make a body of small values cost twenty
times as much to parse. So most of what the parser should not accept is searched for in the bytes,
at the speed of C. A callback is used only if the bytes show that it may be needed.
"""

from __future__ import annotations

import json
import marshal
import math
import re
import struct
from collections.abc import Generator
from typing import Any, NoReturn

MAX_DEPTH = 64
MAX_DIGITS = 400

_AS_DIGITS = bytes(ord("0") if byte in b"0123456789.eE+-" else ord(" ") for byte in range(256))
_TOO_LONG = b"0" * (MAX_DIGITS + 1)
_AS_EXPONENTS = bytes.maketrans(b"123456789E", b"000000000e")
_INFINITIES = (math.inf, -math.inf)
# Up to this many floats, a callback for each is faster than searching all values for infinity.
_FEW_FLOATS = 100_000
_AS_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NO_STRUCTURE = bytes(set(range(256)) - set(b'"[]{},:.eE'))
_nested = ""
for _ in range(MAX_DEPTH):
    _nested = rf"(?:\[{_nested}\])*+"
_NESTED = re.compile(_nested.encode())

# An infinite float of either sign as marshal writes it, without the last byte.
_INFINITE = b"g" + struct.pack("<d", math.inf)[:-1]

# Escaped control characters and lone surrogates. Raw ones of the kinds below are valid JSON.
_CONTROL_ESCAPE = re.compile(
    rb"\\(?:[bfnrt]|u(?:00(?:[0189]|7[fF])|[dD](?:"
    rb"[89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..\\u[dD])[c-fC-F])))"
)
_RAW_CONTROL = re.compile(rb"\xc2[\x80-\x9f]")
_DELETE = b"\x7f"


def loads(raw: bytes) -> tuple[Any, bool]:
    """Parse a JSON text in UTF-8: (value, whether it has control characters or lone surrogates).

    Raises ValueError or RecursionError for anything else, including NaN and infinite numbers,
    duplicate members, and a text that exceeds MAX_DEPTH or MAX_DIGITS.
    """
    text = _without_escaped(raw + b" ")  # the space ends a text that is only a number
    structure = _outside_strings(text.translate(_AS_BRACKETS, _NO_STRUCTURE))
    members, floats = _count_members(), _finite_floats()
    next(members), next(floats)
    may_repeat = b",:" in structure  # some object has at least two members
    may_overflow = _may_overflow(text)
    has_few_floats = sum(map(structure.count, (b".", b"e", b"E"))) <= _FEW_FLOATS
    value = json.loads(
        raw.decode("utf-8"),
        object_hook=members.send if may_repeat else None,
        parse_float=floats.send if may_overflow and has_few_floats else None,
        parse_constant=_refuse,
    )
    if may_repeat and structure.count(b":") != members.send(None):
        raise ValueError("a member is given twice")
    if not _NESTED.fullmatch(structure.translate(None, b",:.eE")):
        raise ValueError("nested too deep")
    if _has_too_long_number(text):
        raise ValueError("a number has too many digits")
    if may_overflow and not has_few_floats and _INFINITE in marshal.dumps(value, 2):
        raise ValueError("a number is too large")
    return value, _holds_control_characters(raw, text)


def _without_escaped(raw: bytes) -> bytes:
    """Return the text with escaped backslashes and quotes replaced by other characters."""
    return raw.replace(rb"\\", b"__").replace(rb"\"", b"__") if b"\\" in raw else raw


def _outside_strings(text: bytes) -> bytes:
    """Return what is outside the quotes."""
    text = text.replace(b'""', b"")  # does not change what is inside and outside
    return b"".join(text.split(b'"')[::2]) if b'"' in text else text


def _count_members() -> Generator[Any, Any, None]:
    """Give back each object that is sent; for None, yield the number of members of all of them.

    All empty objects become the same one, which saves more time than the counting takes.
    """
    count, empty, each = 0, {}, (yield)  # type: ignore[var-annotated]
    while each is not None:
        if each:
            count += len(each)
        else:
            each = empty
        each = yield each
    yield count


def _finite_floats() -> Generator[Any, Any, None]:
    """Yield the value of each text that is sent; raises ValueError if it is infinite."""
    value = None
    while True:
        value = float((yield value))
        if value in _INFINITIES:
            raise ValueError("a number is too large")


def _may_overflow(text: bytes) -> bool:
    """Return False unless an exponent has three digits, or a number has enough to overflow."""
    exponents = text.translate(_AS_EXPONENTS, b"+")
    return b"e000" in exponents or b"0" * 200 in exponents


def _has_too_long_number(text: bytes) -> bool:
    digits = text.translate(_AS_DIGITS)
    quotes = end = 0
    while (start := digits.find(_TOO_LONG, end)) >= 0:
        quotes += text.count(b'"', end, start)
        end = digits.index(b" ", start)
        is_outside = quotes % 2 == 0
        if is_outside and len(text[start:end].translate(None, b".eE+-")) > MAX_DIGITS:
            return True
    return False


def _holds_control_characters(raw: bytes, text: bytes) -> bool:
    return bool(_DELETE in raw or _RAW_CONTROL.search(raw) or _CONTROL_ESCAPE.search(text))


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)  # NaN, Infinity
