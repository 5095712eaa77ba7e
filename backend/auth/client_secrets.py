"""API keys sent as the secret of an OAuth client (RFC 6749 section 2.3.1).

Skip it on a first reading. Libraries that introspect tokens can only send a client's id and secret,
by HTTP Basic or in the form. The secret is an API key; the id may be any text.
"""

from __future__ import annotations

import base64
from urllib.parse import parse_qsl, unquote_plus
from wsgiref.types import WSGIEnvironment

from flask import request

from ..core.errors import Failure, InvalidCredentials
from ..core.identity import Identity, Need
from ..web.headers import api_key_of, bearer_of
from ..web.parsing import FORM, MAX_PARAMETERS, MAX_PUBLIC_BODY
from .authentication import authenticate, by_api_key


def authenticate_client(environ: WSGIEnvironment, need: Need | None) -> Identity:
    """Return the identity behind the request's client secret, or as `authenticate` does.

    Raises Failure `ambiguous_credentials` if credentials were sent in more than one way.
    """
    basic, posted = _basic(environ), _posted()
    if basic is None and not posted:
        return authenticate(environ, need)
    others = bearer_of(environ) or api_key_of(environ)
    if others or (basic is not None and posted):
        raise Failure("ambiguous_credentials", "Credentials were sent in more than one way.")
    try:
        return by_api_key(posted if basic is None else basic, need)
    except InvalidCredentials as refusal:
        if basic is not None:
            refusal.scheme, refusal.challenge = "Basic", 'realm="introspection"'
        raise


def _basic(environ: WSGIEnvironment) -> str | None:
    """Return the secret sent by HTTP Basic: empty if unreadable, None if there is none."""
    scheme, _, text = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        pair = base64.b64decode(text.strip(" \t"), validate=True).decode("utf-8")
        return unquote_plus(pair.partition(":")[2], errors="strict")
    except ValueError:
        return ""


def _posted() -> str:
    """Return the form's `client_secret`; empty if there is none, or the form is unreadable."""
    # A larger form is read only after its sender has been identified by the headers.
    if request.mimetype != FORM or (request.content_length or 0) > MAX_PUBLIC_BODY:
        return ""
    try:
        raw = request.get_data()
    except Exception:  # a server's own error, or 413: `parsing` raises it again
        return ""
    if len(raw) > MAX_PUBLIC_BODY:
        return ""
    try:
        pairs = parse_qsl(raw.decode("utf-8"), errors="strict", max_num_fields=MAX_PARAMETERS)
    except ValueError:
        return ""
    return dict(pairs).get("client_secret", "")
