"""The OpenAPI document: what flask-smorest gathers, completed from the marks of the views."""

from __future__ import annotations

import re
from typing import Any

from flask import Flask
from marshmallow import fields

from . import problems
from .api import Api, Id, IdConverter, Schema
from .guard import ANY_KEY, Access

TITLE = "Backend"
DESCRIPTION = """Accounts, sessions and API keys for your services.

Sign in with `POST /v1/auth/login` and send the access token as `Authorization: Bearer <token>`, or
make an API key and send it as `X-API-Key: <key>`. Errors are problem documents (RFC 9457) with a
stable `code`; each operation lists its own."""

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
        "description": "An API key; it may also be sent as a bearer token.",
    },
}


class ProblemSchema(Schema):
    """Problem details (RFC 9457)."""

    type = fields.String(required=True, metadata={"description": "Always about:blank."})
    title = fields.String(required=True, metadata={"description": "The phrase of the status."})
    status = fields.Integer(required=True)
    code = fields.String(
        required=True,
        metadata={"description": "What happened, for programs.", "enum": sorted(problems.CODES)},
    )
    detail = fields.String(required=True, metadata={"description": "What happened, for people."})
    request_id = fields.String(required=True, metadata={"description": "Find it in the log."})
    errors = fields.Dict(metadata={"description": "{location: {field: [sentence]}}"})
    mfa_token = fields.String(
        metadata={"description": "With `mfa_required` alone: what takes the second step."}
    )


def init_app(app: Flask, version: str) -> Api:
    """The Api that the blueprints are registered with."""
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
    api.spec.components.schema("Problem", schema=ProblemSchema)
    for name, scheme in SECURITY_SCHEMES.items():
        api.spec.components.security_scheme(name, scheme)
    return api


def document(api: Api, app: Flask) -> dict[str, Any]:
    """The whole document, with the security and the error codes of each operation."""
    spec: dict[str, Any] = api.spec.to_dict()
    spec["components"].pop("responses", None)  # flask-smorest's own errors, which nothing uses
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        view = app.view_functions[rule.endpoint]
        for method in sorted((rule.methods or set()) & {"GET", "POST", "PATCH", "DELETE"}):
            operation = spec["paths"].get(path, {}).get(method.lower())
            if operation is not None:
                _complete(operation, rule.endpoint, view, has_id="{" in path)
    return spec


def codes_of(view: Any, *, has_id: bool) -> list[str]:
    """All error codes that an operation may answer with, in the order of the table."""
    codes = {"bad_request", "payload_too_large", "validation_error"}
    codes |= {"internal_error", "unavailable"}
    codes.update(view.access.codes(), getattr(view, "fails", ()))
    if has_id:
        codes.add("not_found")
    if getattr(view, "takes_json", False):
        codes |= {"malformed_json", "unsupported_media_type"}
    return [code for code in problems.CODES if code in codes]


def _complete(operation: dict[str, Any], endpoint: str, view: Any, *, has_id: bool) -> None:
    operation["operationId"] = endpoint.replace(".", "_")
    operation["security"] = _security(view.access)
    responses = operation["responses"]
    responses.pop("default", None)
    responses.pop("422", None)
    by_status: dict[int, list[str]] = {}
    for code in codes_of(view, has_id=has_id):
        by_status.setdefault(problems.CODES[code][0], []).append(code)
    for status, codes in sorted(by_status.items()):
        responses[str(status)] = _problem_response(status, codes)


def _security(access: Access) -> list[dict[str, list[str]]]:
    if access.public:
        return []
    schemes: list[dict[str, list[str]]] = [{"session": []}]
    if access.key is not None:
        schemes.append({"apiKey": [access.key] if access.key != ANY_KEY else []})
    return schemes


def _problem_response(status: int, codes: list[str]) -> dict[str, Any]:
    examples = {
        code: {
            "summary": problems.CODES[code][1],
            "value": problems.problem(code) | {"request_id": "8f14e45fceea167a"},
        }
        for code in codes
    }
    return {
        "description": " ".join(f"`{code}`: {problems.CODES[code][1]}" for code in codes),
        "content": {
            problems.MEDIA_TYPE: {
                "schema": {"$ref": "#/components/schemas/Problem"},
                "examples": examples,
            }
        },
    }
