"""The WSGI middleware that every request passes through, even one that ends as 404 or 500.

It finds the real client behind trusted proxies, gives the request an id, activates the service for
the code inside, completes the headers, and writes one line to the log.
"""

from __future__ import annotations

import functools
import ipaddress
import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from ..core import context
from ..core.context import Call
from ..core.settings_parsers import Network
from ..services import Services
from . import problems
from .headers import completer, rate_headers

log = logging.getLogger(__name__)

_REQUEST_ID = re.compile("[A-Za-z0-9._-]{1,64}")
# W3C Trace Context section 3.2: version 00 ends with the flags, a later one may continue.
_TRACE = re.compile(
    "(?!ff|00.{54})[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?"
)
_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+")
# RFC 3986 section 3.2.2, without the comma with which some servers join two hosts.
_HOST = re.compile(r"([A-Za-z0-9._~!$&'()*+;=%-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{0,5})?")
# Machines call these without a host name, and proxies with the name of the site behind them.
_ALWAYS_OPEN = frozenset({"/healthz", "/readyz", "/v1/verify"})


class RequestMiddleware:
    """WSGI middleware around the application of one service."""

    def __init__(
        self, app: WSGIApplication, service: Services, on_forwarded: Callable[[], None]
    ) -> None:
        self._app = app
        self._on_forwarded = on_forwarded
        self._service = service
        self._complete = completer(service.settings)
        self._has_checked_proxies = bool(service.settings.trusted_proxies)
        self._has_checked_threads = False
        self._hosts = frozenset(host.lower() for host in service.settings.trusted_hosts)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        started = time.perf_counter()
        see_through_proxies(environ, self._service.settings.trusted_proxies)
        environ["PATH_INFO"] = environ.get("PATH_INFO") or "/"  # the mount point itself
        environ.pop("HTTP_UPGRADE", None)  # or Werkzeug would look for a websocket route
        call = call_of(environ)
        status = "500"

        def start(line: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            nonlocal status
            status = line[:3]
            headers = [*self._complete(environ, headers), ("X-Request-ID", call.request_id)]
            if call.rate:
                headers += rate_headers(call.rate)
            return start_response(line, headers, *exc_info)

        outer_call, outer_service = context.call.set(call), context.service.set(self._service)
        try:
            if not self._has_checked_proxies and "HTTP_X_FORWARDED_FOR" in environ:
                self._warn_of_proxy()
            if not self._has_checked_threads:
                self._has_checked_threads = True
                _check_threads(environ)
            return self._inside(environ, start)
        finally:
            context.service.reset(outer_service)
            seconds = time.perf_counter() - started
            self._service.metrics.request(call.method, call.route, int(status), seconds)
            _log(call, int(status), seconds * 1000)
            context.call.reset(outer_call)

    def _inside(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        if not _has_host(environ):
            return _refuse("bad_request", "The Host header is missing or invalid.", start)
        if self._hosts and not _is_always_open(environ["PATH_INFO"]):
            host = environ.get("HTTP_HOST", "").lower()
            if host not in self._hosts and re.sub(":[0-9]+$", "", host) not in self._hosts:
                return _refuse("bad_request", "This host name is not served here.", start)
        try:
            return self._app(environ, start)
        except Exception as error:
            # The last resort, for errors that even the error handlers did not catch.
            log.exception("unexpected error", exc_info=error)
            return _refuse("internal_error", None, start)

    def _warn_of_proxy(self) -> None:
        """Warn once per process that there seems to be a proxy in front, which is not trusted."""
        self._has_checked_proxies = True
        log.warning("ignoring X-Forwarded-For, because TRUSTED_PROXIES is not set")
        self._service.tasks.submit(self._on_forwarded)


def _check_threads(environ: WSGIEnvironment) -> None:
    """Log an error if this is uWSGI without threads that run between requests."""
    uwsgi = sys.modules.get("uwsgi")  # exists only inside uWSGI
    if uwsgi is None or "uwsgi.version" not in environ or environ.get("wsgi.multithread"):
        return
    if uwsgi.opt.get("enable-threads", b"false") in {b"false", b"off", b"no", b"0"}:
        log.error(
            "uWSGI runs without --enable-threads: mail is not sent, and usage, last-used times and"
            " the audit chain are not written. Start it with --enable-threads"
        )


def _is_always_open(path: str) -> bool:
    return path in _ALWAYS_OPEN or path.startswith("/v1/verify/")


def _has_host(environ: WSGIEnvironment) -> bool:
    """Return whether the Host header meets RFC 9112 section 3.2, which allows an empty one."""
    host = environ.get("HTTP_HOST")
    if host is None:
        return environ.get("SERVER_PROTOCOL") != "HTTP/1.1"
    return not host or bool(_HOST.fullmatch(host))


def call_of(environ: WSGIEnvironment) -> Call:
    """Return the call for a request, with the id that the client gave it, or a new one."""
    request_id = environ.get("HTTP_X_REQUEST_ID", "")
    if not _REQUEST_ID.fullmatch(request_id):
        request_id = os.urandom(8).hex()
    call = Call(
        request_id,
        address=environ.get("REMOTE_ADDR") or "",
        method=environ["REQUEST_METHOD"],
        user_agent=environ.get("HTTP_USER_AGENT", ""),
    )
    if "HTTP_TRACEPARENT" in environ:
        traced = _TRACE.fullmatch(environ["HTTP_TRACEPARENT"])
        call.trace_id = traced and traced[1]
    return call


def _refuse(code: str, detail: str | None, start: StartResponse) -> Iterable[bytes]:
    status = problems.CODES[code][0]
    body = json.dumps(problems.problem(code, detail)).encode()
    headers = [("Content-Type", problems.MEDIA_TYPE), ("Content-Length", str(len(body)))]
    start(f"{status} {problems.title(status)}", headers)
    return [body]


def _log(call: Call, status: int, milliseconds: float) -> None:
    if not log.isEnabledFor(logging.INFO):
        return
    # Like log.info, which would also look up the calling line of code and check each name.
    text, args = "%s %s %s", (call.method, call.route or "-", status)
    record = log.makeRecord(log.name, logging.INFO, "", 0, text, args, None)
    record.__dict__.update(
        method=call.method,
        route=call.route,
        status=status,
        ms=round(milliseconds, 2),
        who=call.who,
        ip=call.address,
    )
    log.handle(record)


def see_through_proxies(environ: WSGIEnvironment, trusted: tuple[Network, ...]) -> None:
    """Replace the address, scheme, host and prefix with those that trusted proxies report.

    X-Forwarded-For is read from the right: the first address that is not a trusted proxy's is the
    client's. Such headers are ignored if an untrusted peer sends them.
    """
    peer, environ["REMOTE_ADDR"] = _address(environ.get("REMOTE_ADDR") or "")
    if peer is None or not trusted or not _is_trusted(peer, trusted):
        return
    for hop in reversed(environ.get("HTTP_X_FORWARDED_FOR", "").split(",")):
        client, spelled = _address(hop.strip())
        if client is None:
            break  # trust nothing to the left of an unreadable entry
        environ["REMOTE_ADDR"] = spelled
        if not _is_trusted(client, trusted):
            break
    scheme = _last(environ, "HTTP_X_FORWARDED_PROTO").lower()
    if scheme in {"http", "https"}:
        environ["wsgi.url_scheme"] = scheme
    host = _last(environ, "HTTP_X_FORWARDED_HOST")
    if _HOST.fullmatch(host):
        environ["HTTP_HOST"] = host
    prefix = _last(environ, "HTTP_X_FORWARDED_PREFIX").rstrip("/")
    if _PREFIX.fullmatch(prefix):
        environ["SCRIPT_NAME"] = prefix + environ.get("SCRIPT_NAME", "")


def _last(environ: WSGIEnvironment, name: str) -> str:
    return str(environ.get(name, "")).rpartition(",")[2].strip()


@functools.lru_cache(1024)
def _address(text: str) -> tuple[Any, str]:
    """Return the IP address in `text`, and its usual spelling; an IPv4-mapped one as IPv4.

    Returns (None, "") for anything else, such as the path of a local socket or an empty text.
    """
    if text.startswith("["):  # some proxies add the port: [2001:db8::1]:4711, 192.0.2.1:4711
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])  # without a zone: it is free text
    except ValueError:
        return None, ""
    address = getattr(address, "ipv4_mapped", None) or address
    return address, str(address)


def _is_trusted(address: Any, trusted: tuple[Network, ...]) -> bool:
    return any(address in network for network in trusted)
