"""Api, Blueprint and pages: flask-smorest, made strict. Every subject has its routes from these."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
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

from . import problems
from .application import Empty, Ready, to_json
from .fields import ID, Cursor, QueryInteger, ResponseSchema, Schema, about
from .parsing import RequestParser

View = TypeVar("View", bound=Callable[..., Any])


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

    regex = ID

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
