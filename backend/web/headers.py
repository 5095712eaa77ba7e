"""Headers that every response carries, and CORS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core.rate_limits import Rate
from ..core.settings import Settings

Headers = list[tuple[str, str]]

# ASVS 5.0 V3.4, V14.3; a response that needs another value (a page, an asset) sets its own.
STANDARD: Headers = [
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    (
        "Content-Security-Policy",
        "default-src 'none'; base-uri 'none'; frame-ancestors 'none'",
    ),
    ("Cache-Control", "no-store"),
]
HSTS = ("Strict-Transport-Security", "max-age=63072000; includeSubDomains")

_EXPOSED = "X-Request-ID, Retry-After, RateLimit, RateLimit-Policy, Location, WWW-Authenticate"
_PREFLIGHT: Headers = [
    ("Access-Control-Allow-Methods", "GET, POST, PATCH, DELETE"),
    ("Access-Control-Allow-Headers", "Authorization, Content-Type, X-API-Key, X-Request-ID"),
    ("Access-Control-Max-Age", "600"),
]


def completer(settings: Settings) -> Callable[[dict[str, Any], Headers], Headers]:
    """Return a function that adds the headers that a response lacks."""
    standard = [*STANDARD, HSTS] if settings.public_url.startswith("https:") else STANDARD
    names = frozenset(name.lower() for name, _ in standard)
    origins = frozenset(settings.cors_origins)

    def complete(environ: dict[str, Any], headers: Headers) -> Headers:
        present = {name.lower() for name, _ in headers}
        if present.isdisjoint(names):  # nearly always
            result = headers + standard
        else:
            result = headers + [each for each in standard if each[0].lower() not in present]
        if origins:
            result.append(("Vary", "Origin"))
            origin = environ.get("HTTP_ORIGIN")
            if origin in origins:
                result.append(("Access-Control-Allow-Origin", origin))
                result.append(("Access-Control-Expose-Headers", _EXPOSED))
                if "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ:
                    result += _PREFLIGHT
        return result

    return complete


def rate_headers(rate: Rate) -> Headers:
    """Return the state of a key's limit as headers (draft-ietf-httpapi-ratelimit-headers-11)."""
    return [
        ("RateLimit-Policy", f'"key";q={rate.limit};w={rate.window_seconds}'),
        ("RateLimit", f'"key";r={rate.remaining};t={rate.reset_seconds}'),
    ]


def api_key_of(environ: dict[str, Any]) -> str:
    """Return the API key in X-API-Key; empty if there is none."""
    return str(environ.get("HTTP_X_API_KEY", "")).strip(" \t")


def bearer_of(environ: dict[str, Any]) -> str:
    """Return the bearer token that was sent (RFC 6750 section 2.1), or an empty string."""
    scheme, _, token = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    return token.strip(" \t") if scheme.lower() == "bearer" else ""
