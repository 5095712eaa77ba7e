"""What a request must be before its schema looks at it: size, type, JSON or form, known parameters.

Webargs takes a body of another type for an empty one, keeps the last of duplicate keys, ignores
unknown query parameters, and lets texts through that a database cannot store. So the body is read
and judged here, in the order in which the API promises its refusals, and the parser is handed the
result.
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

from ..core.errors import Failure
from . import strict_json

MAX_BODY = 1024 * 1024  # bytes
MAX_PUBLIC_BODY = 32 * 1024  # bytes, where anybody may send one
MAX_NAME = 64  # characters of a faulty field's name that are repeated
MAX_FAULTS = 20  # that one refusal names
MAX_FAULTS_TEXT = 15 * 1024  # bytes that they take, which leaves 1 KiB for the rest of a refusal
MAX_PARAMETERS = 100  # of a form, or a query

FORM = "application/x-www-form-urlencoded"

# Control characters and lone surrogates: PostgreSQL refuses some, logs and terminals suffer.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_CONTROL = "Holds control characters."

_NO_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def admit(view: Any, environ: WSGIEnvironment) -> None:
    """Raise the refusal that the body or the query of the current request deserves, if any."""
    limit = MAX_PUBLIC_BODY if view.access.public else MAX_BODY
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
    """The body, of which at most a byte more than `limit` is read: that shows it is too large."""
    request.max_content_length = limit + 1
    try:
        raw = request.get_data()
    except HTTPException:
        raise
    except Exception:  # what a server raises for broken chunks
        raise BadRequest from None
    if len(raw) > limit:
        raise RequestEntityTooLarge
    if len(raw) < (request.content_length or 0):
        raise BadRequest  # the client went away in the middle (RFC 9112 section 8)
    return raw


def _body(limit: int, *, needed: bool) -> dict[str, Any]:
    """The JSON object that is the request's body; an empty one if there is none."""
    raw = _read(limit)
    if not raw and not needed:
        return {}
    if not raw:
        _invalid("json", {"_schema": ["A body is needed."]})
    _require_type("application/json")
    body, holds_control_characters = _parse(raw)
    if not isinstance(body, dict):
        _invalid("json", {"_schema": ["Must be an object."]})
    if holds_control_characters:
        require_printable(body)
        _invalid("json", {"_schema": [_CONTROL]})  # it is too deep inside of a large body
    return body


def _require_type(media_type: str) -> None:
    charset = request.mimetype_params.get("charset", "utf-8").lower()
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        detail = "Encodings such as gzip are not accepted: send the body without Content-Encoding."
        raise Failure("unsupported_media_type", detail)
    if (request.mimetype, charset) != (media_type, "utf-8"):
        raise Failure("unsupported_media_type", f"The body must be {media_type} in UTF-8.")


def _form(limit: int, schema: ma.Schema) -> dict[str, str]:
    """The parameters of a form, as OAuth has them (RFC 6749 section 3.2).

    One without a value counts as missing. Failure `bad_request`, with the `error` that the RFC
    names (section 5.2), if the form cannot be read, repeats a parameter or lacks one.
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
        raise _invalid_request("The body is not an acceptable form.") from None


def _unquote(part: bytes) -> str:
    """As `urllib.parse.unquote_plus`, at the speed of C: for quoted-printable the sign is `=`."""
    plain = part.replace(b"+", b" ").replace(b"=", b"=3D").replace(b"%", b"=")
    return binascii.a2b_qp(plain).decode("utf-8")


def _invalid_request(detail: str) -> Failure:
    return Failure("bad_request", detail, members={"error": "invalid_request"})


def parse_json(raw: bytes) -> Any:
    """The value of a JSON text (RFC 8259), strictly; Failure `malformed_json` otherwise."""
    return _parse(raw)[0]


def _parse(raw: bytes) -> tuple[Any, bool]:
    try:
        return strict_json.loads(raw)
    except (ValueError, RecursionError):
        raise Failure("malformed_json", "The body is not acceptable JSON.") from None


def require_printable(body: dict[str, Any], location: str = "json") -> None:
    """Raise Failure `validation_error` for each member that holds control characters.

    Looks at no more values than any schema lets pass: metadata of 4,096 bytes has 2,048.
    """
    texts = ((name, text) for name, value in body.items() for text in _texts(name, value))
    faults = {name: [_CONTROL] for name, text in islice(texts, 10_000) if _UNPRINTABLE.search(text)}
    if faults:
        _invalid(location, faults)


def _texts(*values: Any) -> Iterator[str]:
    """For each of the first 2,500 values, and of those inside, the text it is, or an empty one."""
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
    """Raise Failure `validation_error` with the first of these faults, in our own form."""
    named: dict[str, list[str]] = {}
    left = MAX_FAULTS_TEXT
    sentences = ((str(name), text) for name, said in faults.items() for text in flat(said))
    for name, text in islice(sentences, MAX_FAULTS):
        left -= len(json.dumps([name[:MAX_NAME], text]))
        if left >= 0:
            named.setdefault(name[:MAX_NAME], []).append(text)
    raise Failure("validation_error", "The input is not acceptable.", errors={location: named})


def flat(said: Any, place: str = "") -> Iterator[str]:
    """Marshmallow's messages as sentences; those about a part of a field name the part."""
    if isinstance(said, dict):
        for part, inner in said.items():
            yield from flat(inner, f"{place}{str(part)[:MAX_NAME]}: ")
    else:
        yield from (f"{place}{text}" for text in said)


class RequestParser(FlaskParser):
    """Hands on what was admitted, and tells faults in our own form."""

    def load_json(self, req: Any, schema: Any) -> Any:
        """The object, or the form, that `admit` read."""
        return g.body

    load_form = load_json

    def handle_error(self, error: Any, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse with the field errors that marshmallow found."""
        [(location, faults)] = error.messages.items()
        _invalid(location, faults)
