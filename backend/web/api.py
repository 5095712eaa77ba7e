"""Api, Blueprint, Schema and fields: flask-smorest and marshmallow, made strict.

Every subject writes its routes and schemas with these.
"""

from __future__ import annotations

import functools
import itertools
import re
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

import flask_smorest
import marshmallow as ma
from flask import Flask, Response
from flask_smorest.utils import (
    get_appcontext,
    set_status_and_headers_in_response,
    unpack_tuple_response,
)
from marshmallow import fields, validate
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter
from werkzeug.wrappers import Response as BaseResponse

from ..crypto.keyring import from_base64url, to_base64url
from . import problems
from .application import Empty, Ready, to_json
from .parsing import MAX_FAULTS, RequestParser

View = TypeVar("View", bound=Callable[..., Any])

_ID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_RFC3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)", re.ASCII
)


class Schema(ma.Schema):
    """Base of request schemas. Refuses fields that are not declared."""

    class Meta:
        unknown = ma.RAISE

    def on_bind_field(self, field_name: str, field_obj: fields.Field) -> None:
        """Raise TypeError for a list without a maximum number of items."""
        if isinstance(field_obj, fields.List) and not isinstance(field_obj, List):
            raise TypeError(
                f"{field_name}: in a request, use List with the maximum number of items"
            )

    def load(self, data: Any, **kwargs: Any) -> Any:
        """Load like marshmallow, but report only some of 100,000 unknown members."""
        known = self.fields
        if isinstance(data, dict) and len(data) > len(known) + MAX_FAULTS:
            unknown = itertools.filterfalse(known.__contains__, data)
            some = itertools.islice(unknown, MAX_FAULTS)
            data = {name: data[name] for name in (*known, *some) if name in data}
        try:
            return super().load(data, **kwargs)
        except ma.ValidationError as error:
            # Break the reference cycle of error and traceback, which would keep the body in memory.
            raise error.with_traceback(None) from None


class ResponseSchema(ma.Schema):
    """Base of response schemas. All members are always present, except those in `sometimes`.

    The documentation does not exclude other members, so that new ones can be added.
    """

    sometimes: frozenset[str] = frozenset()

    class Meta:
        unknown = ma.EXCLUDE

    def on_bind_field(self, field_name: str, field_obj: fields.Field) -> None:
        """Document the field as required. Raises TypeError if `_serialize` does not support it."""
        _require_zone(field_obj, f"{type(self).__name__}.{field_name}")
        computed = not field_obj._CHECK_ATTRIBUTE  # a Function, Method or Constant
        if computed or field_obj.data_key or field_obj.dump_default is not ma.missing:
            raise TypeError(f"{field_name}: use a plain member of what the view returns")
        field_obj.required = field_name not in self.sometimes

    def _serialize(self, obj: Any, *, many: bool = False) -> Any:
        """Serialize like marshmallow, but without data keys, defaults and functions.

        This saves 15 us for an account.
        """
        if many:
            return [self._serialize(each) for each in obj]
        read = obj.get if isinstance(obj, dict) else functools.partial(getattr, obj)
        missing, dumped = ma.missing, {}
        for name, attribute, serialize in self._members:
            value = read(attribute, missing)
            if value is not missing:
                dumped[name] = serialize(value, name, obj)
        return dumped

    @functools.cached_property
    def _members(self) -> list[tuple[str, str, Callable[..., Any]]]:
        """Return (name, attribute to read, function that serializes it) for each field."""
        named = self.dump_fields.items()
        return [(name, field.attribute or name, field._serialize) for name, field in named]


def _require_zone(field: fields.Field, name: str) -> None:
    """Raise TypeError for a field that could answer with a time without a zone."""
    for part in (field, getattr(field, "inner", None), getattr(field, "value_field", None)):
        if isinstance(part, fields.DateTime) and not isinstance(part, Timestamp):
            raise TypeError(f"{name}: use Timestamp, which always has a zone")


class Pattern(validate.Regexp):
    """Validates that the whole text matches `pattern`, which is documented with ^ and $."""

    def __init__(self, pattern: str, error: str) -> None:
        super().__init__(f"^({pattern})$", error=error)
        self._whole = re.compile(pattern)

    def __call__(self, value: Any) -> Any:
        """Return the value, or raise ValidationError."""
        if not self._whole.fullmatch(value):  # $ would let a line feed pass
            raise ma.ValidationError(str(self.error))
        return value


class List(fields.List):
    """A list of at most `most` items, which are validated only if there are no more."""

    def __init__(self, inner: fields.Field, *, most: int, **kwargs: Any) -> None:
        self._count = validate.Length(max=most)
        super().__init__(inner, validate=self._count, **kwargs)

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> list[Any]:
        if isinstance(value, list):
            self._count(value)
        return super()._deserialize(value, *args, **kwargs)


class _OneOf(validate.OneOf):
    """Like the library's, for choices to which subjects add theirs until the app is built."""

    def _format_error(self, value: Any) -> str:
        self.choices_text = ", ".join(self.choices)
        return super()._format_error(value)


class EnumString(fields.String):
    """One of a few texts, documented once as a schema called `title`."""

    def __init__(self, title: str, choices: Iterable[str], **kwargs: Any) -> None:
        self.title = title
        super().__init__(validate=_OneOf(choices), **kwargs)


class StrictBoolean(fields.Boolean):
    """true or false, not "yes" or 1."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


class QueryBoolean(fields.Boolean):
    """The text true or false."""

    truthy, falsy = {"true"}, {"false"}


class StrictInteger(fields.Integer):
    """A whole number, not 1.0, "1" or true."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> int:
        if type(value) is not int:
            raise self.make_error("invalid", input=value)
        return value


class QueryInteger(fields.Integer):
    """A whole number in plain decimal digits."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> int:
        if not re.fullmatch("0|[1-9][0-9]{0,8}", value):
            raise self.make_error("invalid", input=value)
        return int(value)


class Id(fields.UUID):
    """A UUID in lower case."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> UUID:
        if not isinstance(value, str) or not re.fullmatch(_ID, value):
            raise self.make_error("invalid_uuid")
        return UUID(value)


class Timestamp(fields.AwareDateTime):
    """A time (RFC 3339); in responses always in UTC, with Z."""

    def _serialize(self, value: Any, *args: Any, **kwargs: Any) -> str | None:
        return None if value is None else value.isoformat().replace("+00:00", "Z")

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> datetime:
        if not isinstance(value, str) or not _RFC3339.fullmatch(value):
            raise self.make_error("invalid", input=value, obj_type="datetime")
        try:
            return datetime.fromisoformat(value.upper()).astimezone(UTC)
        except (ValueError, OverflowError):
            raise self.make_error("invalid", input=value, obj_type="datetime") from None


class Cursor(fields.String):
    """The id after which the next page starts, as 22 characters without a meaning to clients."""

    def _serialize(self, value: Any, *args: Any, **kwargs: Any) -> str | None:
        return None if value is None else to_base64url(value.bytes)

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        raw = from_base64url(value)
        if raw is None or len(raw) != 16:
            raise self.make_error("invalid")
        return UUID(bytes=raw)


def about(description: str, example: Any = ma.missing, **members: Any) -> dict[str, Any]:
    """Return the `metadata` of a field: its description, an example, other members of OpenAPI."""
    shown = {} if example is ma.missing else {"example": example}
    return {**shown, **members, "description": description}


class PageQuery(Schema):
    """`limit` and `cursor`, which every list takes."""

    limit = QueryInteger(
        load_default=50,
        validate=validate.Range(1, 100),
        metadata=about("The maximum number of items on a page.", 50),
    )
    cursor = Cursor(metadata=about("`next` from the previous page."))


@functools.cache  # one class, so that the documentation has one schema
def page_of(schema: type[ResponseSchema]) -> type[ResponseSchema]:
    """Return the schema of a page of `schema`: `items`, newest first, and `next`."""
    name = schema.__name__.removesuffix("Schema")
    members: dict[str, Any] = {
        "items": fields.List(fields.Nested(schema()), metadata=about("The items, newest first.")),
        "next": Cursor(
            allow_none=True, metadata=about("The cursor for the next page; null on the last.", None)
        ),
    }
    return ResponseSchema.from_dict(members, name=f"{name}Page")  # type: ignore[return-value]


def page(result: tuple[list[Any], UUID | None]) -> dict[str, Any]:
    """Return a page, as `page_of` describes it, from the result of a service's list function."""
    items, after = result
    return {"items": items, "next": after}


def example(schema: ma.Schema) -> dict[str, Any]:
    """Return an example of the schema, from the `example` in its fields' metadata."""
    examples = {name: _field_example(field) for name, field in schema.fields.items()}
    return {name: value for name, value in examples.items() if value is not ma.missing}


def _field_example(field: fields.Field) -> Any:
    if isinstance(field, fields.Nested):
        return example(field.schema)
    if isinstance(field, fields.List) and isinstance(field.inner, fields.Nested):
        return [_field_example(field.inner)]
    return field.metadata.get("example", ma.missing)


class Blueprint(flask_smorest.Blueprint):
    """A subject's routes. Parses requests strictly, and takes examples from the schemas."""

    ARGUMENTS_PARSER = RequestParser()

    def arguments(
        self, schema: type[ma.Schema], *, location: str = "json", required: bool = True
    ) -> Callable[[View], View]:
        """Decorator: validate the body (JSON or form) or the query and pass it on as a dict.

        A JSON body may be missing if it is not `required`.
        """
        instance = schema()  # once, not for each request
        shown = {} if location == "query" else {"example": example(instance)}
        parse = super().arguments(instance, location=location, required=required, **shown)

        def decorate(view: View) -> View:
            parsed = parse(view)
            if location == "json":
                parsed.takes_json, parsed.body_needed = True, required
            elif location == "form":
                parsed.form = instance
            else:
                parsed.query_names = frozenset(instance.fields)
            return parsed

        return decorate

    def response(
        self, status: int, schema: type[ResponseSchema] | None = None, **kwargs: Any
    ) -> Callable[[View], View]:
        """Decorator: dump what the view returns, with an example in the documentation."""
        if schema is None:
            return self._without_body(status, **kwargs)
        instance = schema()
        kwargs.setdefault("example", example(instance))
        document = super().response(status, instance, **kwargs)

        def decorate(view: View) -> View:
            documented = document(view)

            @functools.wraps(documented)
            def wrapper(*args: Any, **kwargs: Any) -> BaseResponse:
                # Like flask-smorest, which first creates a response and then changes it, in 20 us.
                result, code, headers = unpack_tuple_response(view(*args, **kwargs))
                if isinstance(result, BaseResponse):
                    set_status_and_headers_in_response(result, code, headers)
                    return result
                dumped = get_appcontext()["result_dump"] = instance.dump(result)  # for ETags
                body = to_json(dumped) + "\n"
                return Ready(body, code or status, headers, content_type="application/json")

            return wrapper  # type: ignore[return-value]

        return decorate

    def _without_body(self, status: int, **kwargs: Any) -> Callable[[View], View]:
        document = super().response(status, **kwargs)

        def decorate(view: View) -> View:
            @functools.wraps(view)
            def wrapper(*args: Any, **kwargs: Any) -> Response:
                view(*args, **kwargs)
                return Empty(status=status)

            return document(wrapper)

        return decorate

    @staticmethod
    def fails(*codes: str) -> Callable[[View], View]:
        """Decorator: document the error codes that the view's service raises."""

        def decorate(view: View) -> View:
            view.fails = codes  # type: ignore[attr-defined]
            return view

        return decorate


class IdConverter(BaseConverter):
    """A UUID in lower case as part of a path. Anything else does not match the route."""

    regex = _ID

    def to_python(self, value: str) -> UUID:
        return UUID(value)


class Api(flask_smorest.Api):
    """flask-smorest's Api with problem documents as errors, and with documentation on demand.

    Documenting all routes takes 20 ms, four times as long as creating the rest of an app.
    """

    def __init__(self, app: Flask) -> None:
        self._undocumented: list[tuple[flask_smorest.Blueprint, str]] = []
        self._lock = threading.Lock()
        super().__init__(app)

    def register_blueprint(self, blp: flask_smorest.Blueprint, **options: Any) -> None:
        """Register the routes of a blueprint; `options` are Flask's."""
        name = options.get("name", blp.name)
        self._app.extensions["flask-smorest"]["blp_name_to_api"][name] = self
        self._app.register_blueprint(blp, **options)
        self._undocumented.append((blp, name))

    def complete(self) -> None:
        """Add the routes of all blueprints to `spec`."""
        with self._lock:
            for blp, name in self._undocumented:
                blp.register_views_in_doc(self, self._app, self.spec, name=name, parameters=None)
                self.spec.tag({"name": name, "description": blp.description})
            self._undocumented.clear()

    def _register_responses(self) -> None:
        """Do nothing: nothing refers to flask-smorest's own responses, one for each HTTP status."""

    def handle_http_exception(self, error: HTTPException) -> Any:
        """Return a problem document instead of flask-smorest's own format, with the headers."""
        return problems.from_http(error)
