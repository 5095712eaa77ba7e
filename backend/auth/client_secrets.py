"""API keys that come as the secret of an OAuth client (RFC 6749 section 2.3.1).

Libraries that introspect tokens send a client's id and secret, by HTTP Basic or in the form, and
cannot be brought to send anything else. The secret is an API key; the id may be any text.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from urllib.parse import parse_qsl, unquote_plus
from wsgiref.types import WSGIEnvironment

from flask import request

from ..core.errors import Failure, InvalidCredentials
from ..core.identity import Identity
from ..web.headers import bearer_of
from ..web.parsing import FORM, MAX_PARAMETERS, MAX_PUBLIC_BODY
from .guard import by_api_key, identify_caller


def identify_client(
    environ: WSGIEnvironment, scopes: Sequence[str] = (), *, cost: int = 1
) -> Identity:
    """The identity behind the request's credential, as `identify_caller`, or behind its secret.

    Failure `ambiguous_credentials` if credentials came in more than one way.
    """
    basic, posted = _basic(environ), _posted()
    if basic is None and not posted:
        return identify_caller(environ, scopes, cost=cost)
    others = bearer_of(environ) or environ.get("HTTP_X_API_KEY", "").strip(" \t")
    if others or (basic is not None and posted):
        raise Failure("ambiguous_credentials", "Credentials were sent in more than one way.")
    try:
        return by_api_key(posted if basic is None else basic, scopes, None, cost)
    except InvalidCredentials as refusal:
        if basic is not None:
            refusal.scheme, refusal.challenge = "Basic", 'realm="introspection"'
        raise


def _basic(environ: WSGIEnvironment) -> str | None:
    """The secret that was sent by HTTP Basic, empty if it cannot be read; None if none was."""
    scheme, _, text = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        pair = base64.b64decode(text.strip(" \t"), validate=True).decode("utf-8")
        return unquote_plus(pair.partition(":")[2], errors="strict")
    except ValueError:
        return ""


def _posted() -> str:
    """The `client_secret` of the form; empty if there is none, or no form that can be read."""
    # A larger form is read once its sender is known, which it is by its headers alone.
    if request.mimetype != FORM or (request.content_length or 0) > MAX_PUBLIC_BODY:
        return ""
    try:
        raw = request.get_data()
    except Exception:  # of a server's own, or 413: `parsing` meets it again
        return ""
    if len(raw) > MAX_PUBLIC_BODY:
        return ""
    try:
        pairs = parse_qsl(raw.decode("utf-8"), errors="strict", max_num_fields=MAX_PARAMETERS)
    except ValueError:
        return ""
    return dict(pairs).get("client_secret", "")
