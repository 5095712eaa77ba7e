"""Errors as HTTP problem details (RFC 9457), from one table of codes."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

import peewee as pw
from flask import Flask, Response
from werkzeug.exceptions import HTTPException

from ..core import context
from ..core.errors import Failure, InvalidCredentials, Unavailable
from ..db.errors import explain, is_unavailable, missing_reference
from .parsing import unknown_id

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

# Each stable code with its status and its meaning, as the API documentation shows it.
CODES: dict[str, tuple[int, str]] = {
    "malformed_json": (400, "The body is not valid JSON (RFC 8259) in UTF-8."),
    "ambiguous_credentials": (400, "Two different credentials were sent."),
    "invalid_token": (400, "The link has been used or replaced by a newer one, or is too old."),
    "bad_request": (400, "The request cannot be understood."),
    "unauthenticated": (401, "No credential was sent."),
    "invalid_credentials": (401, "The credentials are not valid."),
    "mfa_required": (401, "The password is right; send `mfa_token` and a code to sign in."),
    "forbidden": (403, "You are not allowed to do this."),
    "insufficient_scope": (403, "The API key lacks the scope for this."),
    "session_required": (403, "This requires a signed-in person, not an API key."),
    "ip_not_allowed": (403, "The API key may not be used from this address."),
    "wrong_password": (403, "The current password is wrong."),
    "wrong_code": (403, "The one-time or recovery code is wrong, has been used, or is too old."),
    "mfa_enrolment_required": (403, "This requires a second factor: set one up first."),
    "not_found": (404, "There is no such resource."),
    "method_not_allowed": (405, "The resource does not support this method."),
    "username_taken": (409, "That username is taken."),
    "email_taken": (409, "That e-mail address is taken."),
    "last_admin": (409, "The last administrator cannot be removed."),
    "limit_reached": (409, "The maximum number has been reached."),
    "conflict": (409, "The current state does not allow this."),
    "precondition_failed": (412, "The resource has changed: `If-Match` names another version."),
    "payload_too_large": (413, "The body is larger than 32 KiB (public routes) or 1 MiB (others)."),
    "unsupported_media_type": (415, "The body must be of the documented type, in UTF-8."),
    "validation_error": (422, "The input is not valid; `errors` shows what and where."),
    "password_too_weak": (422, "The password does not meet the policy."),
    "precondition_required": (428, "This requires `If-Match` with the `ETag` that you read."),
    "rate_limited": (429, "Too many attempts or uses; try again after `Retry-After` seconds."),
    "usage_exceeded": (429, "The API key's quota is used up."),
    "internal_error": (500, "Unexpected server error."),
    "unavailable": (503, "Temporarily unavailable; try again after `Retry-After` seconds."),
}


def define_codes(codes: Mapping[str, tuple[int, str]]) -> None:
    """Define codes of a subject, with status and meaning. Raises ValueError if one exists."""
    if clash := CODES.keys() & codes:
        raise ValueError(f"error codes defined twice: {', '.join(sorted(clash))}")
    CODES.update(codes)


# Codes that deny an authenticated caller something; each denial is audited.
DENIALS = frozenset(
    {
        "forbidden",
        "insufficient_scope",
        "session_required",
        "ip_not_allowed",
        "mfa_enrolment_required",
    }
)

# The codes for errors raised by Werkzeug, or by a view with `abort`.
_OF_STATUS = {
    400: "bad_request",
    401: "invalid_credentials",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    412: "precondition_failed",
    413: "payload_too_large",
    415: "unsupported_media_type",
    422: "validation_error",
    428: "precondition_required",
    503: "unavailable",
}

# Python uses these two phrases of RFC 9110 only from 3.13 on.
_TITLES = {413: "Content Too Large", 422: "Unprocessable Content"}


def title(status: int) -> str:
    """Return the reason phrase of a status (RFC 9110 section 15)."""
    return _TITLES.get(status) or HTTPStatus(status).phrase


def problem(
    code: str, detail: str | None = None, errors: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the members of the problem document for `code`."""
    status, meaning = CODES[code]
    call = context.call.get()
    members: dict[str, Any] = {
        "type": "about:blank",
        "title": title(status),
        "status": status,
        "code": code,
        "detail": detail or meaning,
        "request_id": call.request_id if call else None,
    }
    if errors:
        members["errors"] = errors
    return members


def answer(failure: Failure) -> Response:
    """Return the response for `failure`."""
    status = CODES[failure.code][0]
    body = json.dumps(
        problem(failure.code, failure.detail, failure.errors) | dict(failure.members or {})
    )
    headers = headers_of(failure, status)
    return Response(body, f"{status} {title(status)}", headers, content_type=MEDIA_TYPE)


def headers_of(failure: Failure, status: int) -> dict[str, str]:
    """Return the headers that describe `failure`, sent with this status."""
    headers = {}
    if failure.retry_after is not None:
        headers["Retry-After"] = str(failure.retry_after)
    if status == 401 or failure.challenge:
        headers["WWW-Authenticate"] = f"{failure.scheme} {failure.challenge or ''}".rstrip()
    if status == 415:
        headers["Accept-Encoding"] = "identity"  # RFC 9110 section 15.5.16
    return headers


def from_http(error: HTTPException) -> Response:
    """Return the response for a Werkzeug error, with the headers it set (such as `Allow`)."""
    if error.code == 304:  # not an error: the client's copy is current
        return Response(status=304, headers=error.get_headers())
    code = _OF_STATUS.get(error.code or 500)
    if code is None:
        log.error("no error code for HTTP %s", error.code)
        code = "internal_error"
    response = answer(Failure(code, CODES[code][1]))
    for name, value in error.get_headers():
        if name.lower() not in {"content-type", "content-length"}:
            response.headers[name] = value
    return response


def init_app(app: Flask, on_denied: Callable[..., None]) -> None:
    """Answer every error with a problem document.

    `on_denied(identity, code=, method=, route=)` records a denial before it is answered.
    """

    def refuse(failure: Failure) -> Response:
        call = context.call.get()
        if failure.code in DENIALS and call:
            try:
                on_denied(call.identity, code=failure.code, method=call.method, route=call.route)
            except Exception as error:
                failure = failure_of(error)
        return answer(failure)

    app.register_error_handler(Failure, refuse)
    app.register_error_handler(pw.IntegrityError, _refuse_reference)
    app.register_error_handler(HTTPException, from_http)
    app.register_error_handler(Exception, unexpected)


def _refuse_reference(error: pw.IntegrityError) -> Response:
    """Return the response for a foreign key for which there is no row, or no row any more."""
    missing, identity = missing_reference(error), context.current_call().identity
    if missing is None:
        return unexpected(error)
    if identity and missing in {str(identity.user_id), str(identity.key_id)}:
        return answer(InvalidCredentials())  # deleted while the request was being answered
    return answer(unknown_id(missing) or failure_of(error))


def unexpected(error: Exception) -> Response:
    """Return the response for an exception that nothing else handles."""
    return answer(failure_of(error))


def failure_of(error: Exception) -> Failure:
    """Return the failure for `error`. Details of an unexpected one go to the log only."""
    if isinstance(error, Failure):
        return error
    if is_unavailable(error):
        log.error("database unavailable: %s", explain(error))
        return Unavailable("The database is unavailable. Try again shortly.")
    log.exception("unexpected error", exc_info=error)
    return Failure("internal_error", CODES["internal_error"][1])
