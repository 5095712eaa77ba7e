"""/v1/verify: a proxy asks whether a request may pass on to the service behind it.

The answer is in the status and the headers. It is asked at each request to other services: no
schema, no body read, no row written for a refusal.
"""

from __future__ import annotations

import functools
from typing import Any
from urllib.parse import parse_qs, quote

from flask import Flask, Response, request
from flask_smorest import Api
from werkzeug.routing import BaseConverter, Rule

from ..api_keys.scopes import PATTERN
from ..auth.guard import Asked, admit, denied
from ..core.errors import Failure
from ..core.identity import Identity
from ..web import problems
from ..web.access import by_itself
from ..web.application import Empty

MOST_PARAMETERS = 64

# To nginx all but 2xx, 401 and 403 are faults of the service that it asks.
_STATUS = {"ambiguous_credentials": 401, "bad_request": 403}


class _Anything(BaseConverter):
    """The rest of a path, whatever it holds: several slashes, line feeds, nothing."""

    regex = r"[\s\S]*"
    part_isolating = False


def init_app(app: Flask, api: Api) -> None:
    """Answer at /v1/verify and below, whatever the method is."""
    app.url_map.converters["anything"] = _Anything
    rule, below = (
        Rule(path, endpoint="forward_auth.verify", methods=None)
        for path in ("/v1/verify", "/v1/verify/<anything:rest>")
    )
    app.url_map.add(rule)
    app.url_map.add(below)
    app.view_functions[rule.endpoint] = verify
    api.spec.path(rule=rule, operations={"get": _documentation()})


@by_itself
def verify(rest: str | None = None) -> Response:
    """200 and who is calling, if they may pass; else why not. There is no body.

    Below /v1/verify/ the path and the query are those of the proxy's client and are ignored.
    """
    query = request.environ.get("QUERY_STRING", "") if rest is None else ""
    says_429 = True
    try:
        asked, says_429 = _question(query)
        return Empty(headers=_headers(admit(request.environ, asked)))
    except Exception as error:
        return _refusal(denied(error), says_429=says_429)


@functools.lru_cache(256)  # a proxy always asks the same
def _question(query: str) -> tuple[Asked, bool]:
    """(what is asked of the caller, whether 429 may be said)."""
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
        return Asked(tuple(scopes), role), limited is None
    except ValueError:
        raise Failure("bad_request", "Not what /v1/verify may be asked.") from None


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


def _refusal(failure: Failure, *, says_429: bool) -> Response:
    status = _STATUS.get(failure.code) or problems.CODES[failure.code][0]
    headers = problems.headers_of(failure, status) | {"X-Auth-Code": failure.code}
    if status == 429 and not says_429:
        status = 403
    return Empty(status=f"{status} {problems.title(status)}", headers=headers)


# --- what the documentation says of it ---

_PARAMETERS = {
    "scope": ("Each must be held.", {"type": "string", "pattern": f"^({PATTERN})$"}),
    "role": ("An administrator passes for `user` too.", {"$ref": "#/components/schemas/Role"}),
    "limited": ("Say 403 in place of 429, for nginx.", {"type": "string", "pattern": "^(403)$"}),
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
    "X-Auth-User-Id": "The id of the user.",
    "X-Auth-Username": "Percent-encoded.",
    "X-Auth-Role": "`user` or `admin`.",
    "X-Auth-Method": "`session` or `api_key`.",
    "X-Auth-Key-Id": "With a key: its id.",
    "X-Auth-Scopes": "With a key: what its owner's role allows now, by blanks.",
}


def _documentation() -> dict[str, Any]:
    """The operation, of which OpenAPI can show but one method."""

    def header(about: str) -> dict[str, Any]:
        return {"description": about, "schema": {"type": "string"}}

    responses: dict[str, Any] = {
        "200": {
            "description": "The request may pass on.",
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
        "summary": "Tell a proxy whether a request may pass on, whatever its method; no body",
        "description": "Below it, at `/v1/verify/` and any path that follows, only authentication"
        " is asked for: proxies such as Envoy append the path and the query of their client there,"
        " and both are ignored.",
        "security": [{"session": []}, {"apiKey": []}],
        "parameters": parameters,
        "responses": responses,
    }
