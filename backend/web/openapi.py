"""The OpenAPI document: flask-smorest's own, completed with the marks on the views."""

from __future__ import annotations

import re
from typing import Any

from apispec.ext.marshmallow import OpenAPIConverter
from flask import Flask
from marshmallow import fields

from . import problems
from .access import Access
from .api import Api, IdConverter
from .fields import EnumString, Id, ResponseSchema, about

TITLE = "Backend"
DESCRIPTION = """Accounts, sessions and API keys for your services.

Sign in with `POST /v1/auth/login` and send the access token as `Authorization: Bearer <token>`, or
create an API key and send it as `X-API-Key: <key>`. Errors are problem documents (RFC 9457) with a
stable `code`; each operation lists the codes it may return."""

SECURITY_SCHEMES = {
    "session": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "The access token of a session, from login or refresh.",
    },
    "apiKey": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "An API key; you can also send it as a bearer token.",
    },
    "client": {
        "type": "http",
        "scheme": "basic",
        "description": "An API key, as the secret of an OAuth client whose id can be any text. You"
        " can also send it in the form, as `client_secret` (RFC 6749 section 2.3.1).",
    },
}

_ETAG_CODES = frozenset({"precondition_failed", "precondition_required"})


class ProblemSchema(ResponseSchema):
    """Problem details (RFC 9457)."""

    sometimes = frozenset({"errors", "mfa_token", "error"})

    type = fields.String(metadata=about("Always about:blank."))
    title = fields.String(metadata=about("The reason phrase of the status."))
    status = fields.Integer(metadata=about("The HTTP status."))
    code = EnumString(
        "ProblemCode", problems.CODES, metadata=about("The stable name of the error, for programs.")
    )
    detail = fields.String(metadata=about("An explanation of the error, for people."))
    request_id = fields.String(
        metadata=about("The id of the request, with which you can find it in the log.")
    )
    errors = fields.Dict(
        keys=fields.String(),
        values=fields.Dict(keys=fields.String(), values=fields.List(fields.String())),
        metadata=about("The invalid fields: {location: {field: [sentence]}}."),
    )
    mfa_token = fields.String(
        metadata=about("Only with `mfa_required`: send it with a code to sign in.")
    )
    error = fields.String(metadata=about("Only for forms: invalid_request (RFC 6749 section 5.2)."))


def init_app(app: Flask, version: str) -> Api:
    """Return the Api to register the blueprints with."""
    app.url_map.converters["id"] = IdConverter
    app.config.update(
        API_TITLE=TITLE,
        API_VERSION=version,
        OPENAPI_VERSION="3.1.0",
        API_SPEC_OPTIONS={
            "info": {
                "description": DESCRIPTION,
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            }
        },
    )
    api = Api(app)
    api.register_field(Id, "string", "uuid")
    api.register_converter(IdConverter, lambda _: {"type": "string", "format": "uuid"})
    api.ma_plugin.converter.add_attribute_function(_refer_to_choices)
    api.spec.components.schema("Problem", schema=ProblemSchema)
    for name, scheme in SECURITY_SCHEMES.items():
        api.spec.components.security_scheme(name, scheme)
    return api


def document(api: Api, app: Flask) -> dict[str, Any]:
    """Return the whole document, with the security and error codes of each operation."""
    api.complete()
    spec: dict[str, Any] = api.spec.to_dict()
    spec["components"]["schemas"].pop("PaginationMetadata")  # flask-smorest's own
    for item in spec["paths"].values():
        for parameter in item.get("parameters", ()):
            what = parameter["name"].removesuffix("_id").replace("_", " ")
            parameter.setdefault("description", f"The id of the {what}.")
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        view = app.view_functions[rule.endpoint]
        for method in sorted((rule.methods or set()) & {"GET", "POST", "PATCH", "DELETE"}):
            operation = spec["paths"].get(path, {}).get(method.lower())
            if operation is not None:
                _complete(operation, rule.endpoint, view, has_id="{" in path)
    return spec


def _refer_to_choices(
    converter: OpenAPIConverter, field: fields.Field, *, ret: dict[str, Any]
) -> dict[str, Any]:
    """Replace the choices of an EnumString with a reference to the schema that lists them."""
    if not isinstance(field, EnumString):
        return {}
    texts = [each for each in ret.pop("enum") if each is not None]
    schema, components = {"type": "string", "enum": texts}, converter.spec.components
    if components.schemas.setdefault(field.title, schema) != schema:
        raise ValueError(f"different choices are called {field.title}")
    del ret["type"]
    ref = components.get_ref("schema", field.title)
    return {"anyOf": [ref, {"type": "null"}]} if field.allow_none else ref


def codes_of(view: Any, *, has_id: bool) -> list[str]:
    """Return all error codes that an operation may return, in the order of the table."""
    codes = {"bad_request", "payload_too_large", "validation_error"}
    codes |= {"internal_error", "unavailable"}
    codes.update(view.access.codes(), getattr(view, "fails", ()))
    if has_id:
        codes.add("not_found")
    if getattr(view, "takes_json", False):
        codes |= {"malformed_json", "unsupported_media_type"}
    if hasattr(view, "form"):
        codes.add("unsupported_media_type")
    if getattr(view, "_apidoc", {}).get("etag"):
        codes |= _ETAG_CODES
    return [code for code in problems.CODES if code in codes]


def _complete(operation: dict[str, Any], endpoint: str, view: Any, *, has_id: bool) -> None:
    operation.setdefault("operationId", endpoint.replace(".", "_"))
    operation["security"] = _security(view.access)
    for parameter in operation.get("parameters", ()):
        parameter.get("schema", {}).pop("example", None)  # Swagger UI would send it as a filter
    responses = operation["responses"]
    responses.pop("422", None)
    if "304" in responses:
        responses["304"] = {"description": "Not modified: `If-None-Match` names this version."}
    codes = codes_of(view, has_id=has_id)
    if "412" not in responses:  # flask-smorest knows which methods need If-Match
        codes = [code for code in codes if code not in _ETAG_CODES]
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(problems.CODES[code][0], []).append(code)
    for status, codes in sorted(by_status.items()):
        responses[str(status)] = _problem_response(codes)
    responses["default"] = _problem("Any other error.")


def _security(access: Access) -> list[dict[str, list[str]]]:
    wanted = access.requirement
    if wanted is None:
        return []
    schemes: list[dict[str, list[str]]] = [{"session": []}]
    if wanted.key:
        schemes.append({"apiKey": list(wanted.key.scopes)})
        if wanted.as_client:
            schemes.append({"client": list(wanted.key.scopes)})
    return schemes


def _problem_response(codes: list[str]) -> dict[str, Any]:
    text = " ".join(f"`{code}`: {problems.CODES[code][1]}" for code in codes)
    examples = {
        code: {
            "summary": problems.CODES[code][1],
            "value": problems.problem(code) | {"request_id": "8f14e45fceea167a"},
        }
        for code in codes
    }
    return _problem(text, examples=examples)


def _problem(description: str, **more: Any) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    content = {problems.MEDIA_TYPE: {"schema": schema, **more}}
    return {"description": description, "content": content}
