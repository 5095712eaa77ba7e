"""/v1/verify: a proxy asks whether a request may pass to the service behind it.

The answer is in the status and the headers. Since every request to the services behind the proxy
causes one here, this uses no schema, reads no body, and writes no row for a refusal.
"""

from __future__ import annotations

import functools
from typing import Any
from urllib.parse import parse_qs, quote

from flask import Flask, Response, request
from flask_smorest import Api
from werkzeug.routing import BaseConverter, Rule

from ..api_keys.scopes import PATTERN
from ..auth.guard import authorize, denied, requirement
from ..core.errors import Failure
from ..core.identity import Identity, Requirement
from ..web import problems
from ..web.access import checks_itself
from ..web.application import Empty

MOST_PARAMETERS = 64

# nginx treats any status other than 2xx, 401 and 403 as an error of this service.
_STATUS = {"ambiguous_credentials": 401, "bad_request": 403}


class _Anything(BaseConverter):
    """The rest of a path, whatever it contains: several slashes, line feeds, or nothing."""

    regex = r"[\s\S]*"
    part_isolating = False


def init_app(app: Flask, api: Api) -> None:
    """Register /v1/verify and everything below it, for all methods."""
    app.url_map.converters["anything"] = _Anything
    rule, below = (
        Rule(path, endpoint="forward_auth.verify", methods=None)
        for path in ("/v1/verify", "/v1/verify/<anything:rest>")
    )
    app.url_map.add(rule)
    app.url_map.add(below)
    app.view_functions[rule.endpoint] = verify
    api.spec.path(rule=rule, operations={"get": _documentation()})


@checks_itself
def verify(rest: str | None = None) -> Response:
    """Return 200 with the caller in the headers, or a refusal, both without a body.

    Below /v1/verify/, the path and the query come from the proxy's client and are ignored.
    """
    query = request.environ.get("QUERY_STRING", "") if rest is None else ""
    accepts_429 = True
    try:
        wanted, accepts_429 = _read_query(query)
        return Empty(headers=_headers(authorize(request.environ, wanted)))
    except Exception as error:
        return _refusal(denied(error), accepts_429=accepts_429)


@functools.lru_cache(256)  # a proxy always sends the same query
def _read_query(query: str) -> tuple[Requirement, bool]:
    """Return (what the caller must have, whether the proxy accepts 429)."""
    try:
        given = parse_qs(
            query,
            keep_blank_values=True,
            strict_parsing=bool(query),
            errors="strict",
            max_num_fields=MOST_PARAMETERS,
        )
        scopes = given.pop("scope", [])
        [role], [limited] = given.pop("role", [None]), given.pop("limited", [None])
        if given or limited not in (None, "403"):
            raise ValueError
        return requirement(scopes, role), limited is None
    except ValueError:
        raise Failure("bad_request", "These parameters are not valid for /v1/verify.") from None


def _headers(identity: Identity) -> dict[str, str]:
    headers = {
        "X-Auth-User-Id": str(identity.user_id),
        "X-Auth-Username": quote(identity.username),
        "X-Auth-Role": identity.role,
        "X-Auth-Method": identity.method,
    }
    if identity.scopes is not None:
        headers["X-Auth-Key-Id"] = str(identity.key_id)
        headers["X-Auth-Scopes"] = " ".join(sorted(identity.scopes))
    return headers


def _refusal(failure: Failure, *, accepts_429: bool) -> Response:
    status = _STATUS.get(failure.code) or problems.CODES[failure.code][0]
    headers = problems.headers_of(failure, status) | {"X-Auth-Code": failure.code}
    if status == 429 and not accepts_429:
        status = 403
    return Empty(status=f"{status} {problems.title(status)}", headers=headers)


# --- documentation ---

_PARAMETERS = {
    "scope": (
        "A scope that the caller must have; repeat it for several.",
        {"type": "string", "pattern": f"^({PATTERN})$"},
    ),
    "role": (
        "The role that the caller must have; an `admin` also passes as `user`.",
        {"$ref": "#/components/schemas/Role"},
    ),
    "limited": ("Return 403 instead of 429, for nginx.", {"type": "string", "pattern": "^(403)$"}),
}
_CODES = (
    "ambiguous_credentials",
    "bad_request",
    "unauthenticated",
    "invalid_credentials",
    "forbidden",
    "insufficient_scope",
    "ip_not_allowed",
    "mfa_enrolment_required",
    "rate_limited",
    "usage_exceeded",
    "internal_error",
    "unavailable",
)
_ABOUT = {
    "X-Auth-User-Id": "The user's id.",
    "X-Auth-Username": "The username, percent-encoded.",
    "X-Auth-Role": "The role: `user` or `admin`.",
    "X-Auth-Method": "The credential: `session` or `api_key`.",
    "X-Auth-Key-Id": "For API keys, the key's id.",
    "X-Auth-Scopes": "For API keys, the scopes that the owner's role allows, separated by spaces.",
}


def _documentation() -> dict[str, Any]:
    """Return the operation for the OpenAPI document, which can show it for one method only."""

    def header(about: str) -> dict[str, Any]:
        return {"description": about, "schema": {"type": "string"}}

    responses: dict[str, Any] = {
        "200": {
            "description": "The request may pass.",
            "headers": {name: header(about) for name, about in _ABOUT.items()},
        }
    }
    for code in _CODES:
        status = str(_STATUS.get(code) or problems.CODES[code][0])
        empty = {"description": "", "headers": {"X-Auth-Code": header("The code of the refusal.")}}
        response = responses.setdefault(status, empty)
        response["description"] += f" `{code}`: {problems.CODES[code][1]}"
    for response in responses.values():
        response["description"] = response["description"].strip()
    parameters = [
        {"in": "query", "name": name, "description": about, "schema": schema}
        for name, (about, schema) in _PARAMETERS.items()
    ]
    parameters[0]["schema"] = {"type": "array", "items": parameters[0]["schema"]}
    return {
        "tags": ["forward_auth"],
        "operationId": "forward_auth_verify",
        "summary": "Check whether a proxied request may pass",
        "description": "Call it with any method; the response has no body. At `/v1/verify/` and"
        " any path below it, only authentication is checked: proxies such as Envoy append the"
        " client's path and query there, and both are ignored.",
        "security": [{"session": []}, {"apiKey": []}],
        "parameters": parameters,
        "responses": responses,
    }
