"""Checks before a request reaches its schema: size, type, JSON or form, known parameters.

Webargs treats a body of another type as empty, keeps the last of duplicate keys, ignores unknown
query parameters, and accepts texts that a database cannot store. So the body is read and checked
here, in the order in which the API promises its errors, and the parser only gets the result.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any, NoReturn
from wsgiref.types import WSGIEnvironment

import marshmallow as ma
from flask import g, request
from webargs.flaskparser import FlaskParser
from werkzeug.exceptions import BadRequest, HTTPException, RequestEntityTooLarge

from ..core.errors import Failure, Invalid, NotFound
from . import strict_json

MAX_BODY = 1024 * 1024  # bytes
MAX_PUBLIC_BODY = 32 * 1024  # bytes, on routes that need no credential
MAX_NAME = 64  # characters of a faulty field's name that an error repeats
MAX_FAULTS = 20  # that one error reports
MAX_FAULTS_TEXT = 15 * 1024  # bytes of those, which leaves 1 KiB for the rest of an error
MAX_PARAMETERS = 100  # in a form or a query

FORM = "application/x-www-form-urlencoded"

# Control characters and lone surrogates: PostgreSQL refuses some, and they garble logs.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_CONTROL = "Contains control characters."

_NO_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def check_request(view: Any, environ: WSGIEnvironment) -> None:
    """Raise an error if the body or the query of the current request is not acceptable."""
    limit = MAX_PUBLIC_BODY if view.access.requirement is None else MAX_BODY
    if environ.get("CONTENT_LENGTH") and (request.content_length or 0) > limit:
        raise RequestEntityTooLarge
    if getattr(view, "takes_json", False):
        g.body = _body(limit, needed=view.body_needed)
    elif hasattr(view, "form"):
        g.body = _form(limit, view.form)
    elif "HTTP_TRANSFER_ENCODING" in environ:
        _read(limit)
    if environ.get("QUERY_STRING"):
        _check_query(environ["QUERY_STRING"], getattr(view, "query_names", frozenset()))


def _read(limit: int) -> bytes:
    """Return the body. Reads at most one byte beyond `limit`, to detect that it is too large."""
    request.max_content_length = limit + 1
    try:
        raw = request.get_data()
    except HTTPException:
        raise
    except Exception:  # servers raise various errors for broken chunks
        raise BadRequest from None
    if len(raw) > limit:
        raise RequestEntityTooLarge
    if len(raw) < (request.content_length or 0):
        raise BadRequest  # the client disconnected early (RFC 9112 section 8)
    return raw


def _body(limit: int, *, needed: bool) -> dict[str, Any]:
    """Return the JSON object in the request's body; an empty one if there is none."""
    raw = _read(limit)
    if not raw and not needed:
        return {}
    if not raw:
        _invalid("json", {"_schema": ["A body is required."]})
    _require_type("application/json")
    body, holds_control_characters = _parse(raw)
    if not isinstance(body, dict):
        _invalid("json", {"_schema": ["Must be an object."]})
    if holds_control_characters:
        require_printable(body)
        _invalid("json", {"_schema": [_CONTROL]})  # too deep in a large body to be named
    return body


def _require_type(media_type: str) -> None:
    charset = request.mimetype_params.get("charset", "utf-8").lower()
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        detail = "Encodings such as gzip are not accepted: send the body without Content-Encoding."
        raise Failure("unsupported_media_type", detail)
    if (request.mimetype, charset) != (media_type, "utf-8"):
        raise Failure("unsupported_media_type", f"The body must be {media_type} in UTF-8.")


def _form(limit: int, schema: ma.Schema) -> dict[str, str]:
    """Return the parameters of an OAuth form (RFC 6749 section 3.2).

    A parameter without a value counts as missing. Raises Failure `bad_request`, with the RFC's
    `error` (section 5.2), if the form cannot be parsed, repeats a parameter or lacks one.
    """
    raw = _read(limit)
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
        raw.decode("utf-8")
        if raw.count(b"&") >= MAX_PARAMETERS or _NO_ESCAPE.search(raw):
            raise ValueError
        pairs = (part.partition(b"=") for part in raw.split(b"&") if part)
        return [(_unquote(name), _unquote(value)) for name, _, value in pairs]
    except ValueError:
        raise _invalid_request(
            "The body is not a valid form, or has too many parameters."
        ) from None


def _unquote(part: bytes) -> str:
    """Decode like `urllib.parse.unquote_plus`, but in C: quoted-printable only has = for %."""
    plain = part.replace(b"+", b" ").replace(b"=", b"=3D").replace(b"%", b"=")
    return binascii.a2b_qp(plain).decode("utf-8")


def _invalid_request(detail: str) -> Failure:
    return Failure("bad_request", detail, members={"error": "invalid_request"})


def parse_json(raw: bytes) -> Any:
    """Return the value of a strict JSON text (RFC 8259), or raise Failure `malformed_json`."""
    return _parse(raw)[0]


def _parse(raw: bytes) -> tuple[Any, bool]:
    try:
        return strict_json.loads(raw)
    except (ValueError, RecursionError):
        raise Failure("malformed_json", "The body is not valid JSON, or exceeds a limit.") from None


def require_printable(body: dict[str, Any], location: str = "json") -> None:
    """Raise Failure `validation_error` naming each member that contains control characters.

    Does not check more values than any schema accepts: 4,096 bytes of metadata have 2,048.
    """
    texts = ((name, text) for name, value in body.items() for text in _texts(name, value))
    faults = {name: [_CONTROL] for name, text in islice(texts, 10_000) if _UNPRINTABLE.search(text)}
    if faults:
        _invalid(location, faults)


def _texts(*values: Any) -> Iterator[str]:
    """Yield each text among the first 2,500 values, also nested ones; "" for other values."""
    todo = list(values)
    for _ in range(2_500):
        if not todo:
            return
        each = todo.pop()
        if isinstance(each, dict):
            todo.extend(islice(each.keys(), 2_500))
            todo.extend(islice(each.values(), 2_500))
        elif isinstance(each, list):
            todo.extend(islice(each, 2_500))
        yield each if isinstance(each, str) else ""


def unknown_id(missing: str) -> Failure | None:
    """Return the refusal if the current request names this id, for which there is no row."""
    if missing in map(str, (request.view_args or {}).values()):
        return NotFound()
    for name, value in g.get("body", {}).items():
        if missing in _texts(value):
            return Invalid(name, "There is no such resource.")
    return None


def _check_query(text: str, known: frozenset[str]) -> None:
    if text.count("&") >= MAX_PARAMETERS:
        _invalid("query", {"_schema": [f"At most {MAX_PARAMETERS} parameters."]})
    faults: dict[str, list[str]] = {}
    for name, values in request.args.lists():
        if name not in known:
            faults[name] = ["Unknown parameter."]
        elif len(values) > 1:
            faults[name] = ["Given more than once."]
        elif _UNPRINTABLE.search(values[0]):
            faults[name] = [_CONTROL]
    if faults:
        _invalid("query", faults)


def _invalid(location: str, faults: dict[str, Any]) -> NoReturn:
    """Raise Failure `validation_error` with the first of these faults, in the API's format."""
    named: dict[str, list[str]] = {}
    left = MAX_FAULTS_TEXT
    sentences = ((str(name), text) for name, found in faults.items() for text in flat(found))
    for name, text in islice(sentences, MAX_FAULTS):
        left -= len(json.dumps([name[:MAX_NAME], text]))
        if left >= 0:
            named.setdefault(name[:MAX_NAME], []).append(text)
    raise Failure("validation_error", "The input is not valid.", errors={location: named})


def flat(messages: Any, place: str = "") -> Iterator[str]:
    """Yield marshmallow's nested messages as sentences that begin with the part they are about."""
    if isinstance(messages, dict):
        for part, inner in messages.items():
            yield from flat(inner, f"{place}{str(part)[:MAX_NAME]}: ")
    else:
        yield from (f"{place}{text}" for text in messages)


class RequestParser(FlaskParser):
    """Passes on what `check_request` read, and reports faults in the API's format."""

    def load_json(self, req: Any, schema: Any) -> Any:
        """Return the object or form that `check_request` read."""
        return g.body

    load_form = load_json

    def handle_error(self, error: Any, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise Failure with the field errors that marshmallow found."""
        [(location, faults)] = error.messages.items()
        _invalid(location, faults)
