"""What a request must be before its schema looks at it: size, type, JSON or form, known parameters.

Webargs takes a body of another type for an empty one, keeps the last of duplicate keys, ignores
unknown query parameters, and lets texts through that a database cannot store. So the body is read
and judged here, in the order in which the API promises its refusals, and the parser is handed the
result.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any, NoReturn
from urllib.parse import parse_qsl
from wsgiref.types import WSGIEnvironment

import marshmallow as ma
from flask import g, request
from webargs.flaskparser import FlaskParser
from werkzeug.exceptions import BadRequest, HTTPException, RequestEntityTooLarge

from ..core.errors import Failure

MAX_BODY = 1024 * 1024  # bytes
MAX_DEPTH = 64
MAX_DIGITS = 400
MAX_NAME = 64  # characters of a faulty field's name that are repeated
MAX_FAULTS = 20  # faulty fields that are told of at once
MAX_PARAMETERS = 100  # of a form

FORM = "application/x-www-form-urlencoded"

# Control characters and lone surrogates: PostgreSQL refuses some, logs and terminals suffer.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

_NO_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")


def admit(view: Any, environ: WSGIEnvironment) -> None:
    """Raise the refusal that the body or the query of the current request deserves, if any."""
    if environ.get("CONTENT_LENGTH") and (request.content_length or 0) > MAX_BODY:
        raise RequestEntityTooLarge
    if getattr(view, "takes_json", False):
        g.body = _body(needed=view.body_needed)
    elif hasattr(view, "form"):
        g.body = _form(view.form)
    elif "HTTP_TRANSFER_ENCODING" in environ:
        _read()
    if environ.get("QUERY_STRING"):
        _check_query(getattr(view, "query_names", frozenset()))


def _read() -> bytes:
    """The body. Reading stops a byte after MAX_BODY, so that one can tell (MAX_CONTENT_LENGTH)."""
    try:
        raw = request.get_data()
    except HTTPException:
        raise
    except Exception:  # what a server raises for broken chunks
        raise BadRequest from None
    if len(raw) > MAX_BODY:
        raise RequestEntityTooLarge
    if len(raw) < (request.content_length or 0):
        raise BadRequest  # the client went away in the middle (RFC 9112 section 8)
    return raw


def _body(*, needed: bool) -> dict[str, Any]:
    """The JSON object that is the request's body; an empty one if there is none."""
    raw = _read()
    if not raw and not needed:
        return {}
    if not raw:
        _invalid("json", {"_schema": ["A body is needed."]})
    _require_type("application/json")
    body = parse_json(raw)
    if not isinstance(body, dict):
        _invalid("json", {"_schema": ["Must be an object."]})
    require_printable(body)
    return body


def _require_type(media_type: str) -> None:
    charset = request.mimetype_params.get("charset", "utf-8").lower()
    coding = request.headers.get("Content-Encoding", "identity").lower()
    if (request.mimetype, charset, coding) != (media_type, "utf-8", "identity"):
        raise Failure("unsupported_media_type", f"The body must be {media_type} in UTF-8.")


def _form(schema: ma.Schema) -> dict[str, str]:
    """The parameters of a form, as OAuth has them (RFC 6749 section 3.2).

    One without a value counts as missing. Failure `bad_request`, with the `error` that the RFC
    names (section 5.2), if the form cannot be read, repeats a parameter or lacks one.
    """
    raw = _read()
    if raw:
        _require_type(FORM)
    pairs = _parse_form(raw)
    form = {name: value for name, value in pairs if value}
    if len(dict(pairs)) != len(pairs):
        raise _invalid_request("A parameter is given more than once.")
    for name, field in schema.fields.items():
        if field.required and name not in form:
            raise _invalid_request(f"The parameter {name} is missing.")
    require_printable(form, "form")
    return form


def _parse_form(raw: bytes) -> list[tuple[str, str]]:
    try:
        text = raw.decode("utf-8")
        if _NO_ESCAPE.search(text):
            raise ValueError
        return parse_qsl(
            text, keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS
        )
    except ValueError:
        raise _invalid_request("The body is not an acceptable form.") from None


def _invalid_request(detail: str) -> Failure:
    return Failure("bad_request", detail, members={"error": "invalid_request"})


def parse_json(raw: bytes) -> Any:
    """The value of a JSON text (RFC 8259), strictly; Failure `malformed_json` otherwise."""
    try:
        value = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse,
            parse_int=_number(int),
            parse_float=_number(float),
        )
        # Only where there are that many brackets can they be nested that deep.
        if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
            raise ValueError
    except (ValueError, RecursionError):
        raise Failure("malformed_json", "The body is not acceptable JSON.") from None
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("duplicate key")
    return result


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)  # NaN, Infinity


def _number(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        if sum(map(str.isdigit, text)) > MAX_DIGITS:
            raise ValueError("too many digits")
        value = kind(text)
        if kind is float and math.isinf(value):
            raise ValueError("too large")
        return value

    return parse


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level:
        children: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                children.extend(each.values())
            elif isinstance(each, list):
                children.extend(each)
        depth += any(isinstance(each, dict | list) for each in level)
        level = children
    return depth


def require_printable(body: dict[str, Any], location: str = "json") -> None:
    """Raise Failure `validation_error` for each member that holds control characters."""
    faults = {
        name: ["Holds control characters."]
        for name, value in body.items()
        if any(_UNPRINTABLE.search(text) for text in _texts(name, value))
    }
    if faults:
        _invalid(location, faults)


def _texts(*values: Any) -> Iterator[str]:
    todo = list(values)
    while todo:
        each = todo.pop()
        if isinstance(each, str):
            yield each
        elif isinstance(each, dict):
            todo.extend(each.keys())
            todo.extend(each.values())
        elif isinstance(each, list):
            todo.extend(each)


def _check_query(known: frozenset[str]) -> None:
    faults: dict[str, list[str]] = {}
    for name, values in request.args.lists():
        if name not in known:
            faults[name] = ["Unknown parameter."]
        elif len(values) > 1:
            faults[name] = ["Given more than once."]
        elif _UNPRINTABLE.search(values[0]):
            faults[name] = ["Holds control characters."]
    if faults:
        _invalid("query", faults)


def _invalid(location: str, faults: dict[str, Any]) -> NoReturn:
    first = itertools.islice(faults.items(), MAX_FAULTS)
    errors = {location: {str(name)[:MAX_NAME]: flat(said) for name, said in first}}
    raise Failure("validation_error", "The input is not acceptable.", errors=errors)


def flat(said: Any, place: str = "") -> list[str]:
    """Marshmallow's messages as sentences; those about a part of a field name the part."""
    if isinstance(said, dict):
        return [text for part, inner in said.items() for text in flat(inner, f"{place}{part}: ")]
    return [f"{place}{text}" for text in said]


class AdmittedParser(FlaskParser):
    """Hands on what was admitted, and tells faults in our own form."""

    def load_json(self, req: Any, schema: Any) -> Any:
        """The object, or the form, that `admit` read."""
        return g.body

    load_form = load_json

    def handle_error(self, error: Any, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse with the field errors that marshmallow found."""
        [(location, faults)] = error.messages.items()
        _invalid(location, faults)
