"""Logs: JSON lines or readable text on the console, JSON lines in a file.

`configure` is called by our own entry points alone. Code of the service logs under its module's
name and gives facts as `extra`; what becomes of it in another process is for its host to say.
"""

from __future__ import annotations

import functools
import itertools
import json
import logging
import re
import sys
import time
from logging.handlers import WatchedFileHandler
from typing import Any, TextIO

from . import context
from .paths import ROOT
from .settings import Settings, SettingsError

# What every record has; all else came in as `extra`.
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_BARE = len(logging.makeLogRecord({}).__dict__)

# Tokens and keys, wherever they may turn up: the three parts of a JWT, our own, passwords in
# URLs, bcrypt hashes.
_SECRETS = re.compile(
    r"\beyJ[\w-]+\.[\w-]+\.[\w-]*"
    r"|\b[a-z][a-z0-9]{1,15}_[0-9A-Za-z]{38}\b"
    r"|\b[a-z][a-z0-9]{1,15}[rpem]_[\w-]{20,}\.[\w-]+"
    r"|(?<=://)[^\s/:@]+:[^\s/@]+(?=@)"
    r"|\$2[aby]\$\d\d\$[./0-9A-Za-z]{53}"
)
_LONGEST = 8192  # characters of one value

_encode = json.JSONEncoder(default=str, separators=(",", ":")).encode
_quote = json.encoder.encode_basestring_ascii
_ANSWERS = "backend.web.middleware"  # the logger of the lines that tell of whole requests


def redact(text: str) -> str:
    """`text` with anything that looks like a token, a key or a hash taken out.

    What is too long loses its middle: a traceback says at its end what went wrong.
    """
    # One of these is in whatever the pattern finds, and finding out takes it longer.
    if "_" in text or "eyJ" in text or "@" in text or "$2" in text:
        text = _SECRETS.sub("[redacted]", text)
    if len(text) <= _LONGEST:
        return text
    half = _LONGEST // 2
    return f"{text[:half]} [...] {text[-half:]}"


def _facts(record: logging.LogRecord) -> dict[str, object]:
    """The record's extra facts, and the ids of the request and the trace it belongs to."""
    call = context.call.get()
    facts: dict[str, object] = {"request_id": call.request_id} if call else {}
    if call and call.trace_id:
        facts["trace_id"] = call.trace_id
    # What came in as `extra` stands behind what every record has.
    for name, value in itertools.islice(record.__dict__.items(), _BARE, None):
        if name not in _STANDARD and value is not None:
            facts[name] = redact(value) if isinstance(value, str) else value
    return facts


def _exception(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    return redact(formatter.formatException(record.exc_info)) if record.exc_info else ""


class JSONFormatter(logging.Formatter):
    """One JSON object a line: ts (RFC 3339, UTC), level, logger, msg, the facts, exc."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of ASCII."""
        call = context.call.get()
        if call and record.name == _ANSWERS and "ms" in record.__dict__:
            return _answer(record, call)
        line: dict[str, object] = {
            "ts": _timestamp(record),
            "level": record.levelname,
            "logger": record.name,
            "msg": redact(record.getMessage()),
            **_facts(record),
        }
        if record.exc_info:
            line["exc"] = _exception(self, record)
        return _encode(line)


def _answer(record: Any, call: context.Call) -> str:
    """The line of a request's end, as `format` has it, put together by hand.

    With the record that is made by hand in web/middleware.py this saves 9 us a request.

    What the client says of itself is redacted; the rest is the service's own.
    """
    trace = f'"trace_id":"{call.trace_id}",' if call.trace_id else ""
    route = f'"route":{_quote(call.route)},' if call.route else ""
    who = f'"who":{_quote(call.who)},' if call.who else ""
    return (
        f'{{"ts":"{_timestamp(record)}","level":"{record.levelname}","logger":"{record.name}",'
        f'"msg":{_quote(redact(record.getMessage()))},"request_id":"{call.request_id}",{trace}'
        f'"method":{_quote(redact(call.method))},{route}"status":{record.status},"ms":{record.ms},'
        f'{who}"ip":{_quote(call.address)}}}'
    )


class TextFormatter(logging.Formatter):
    """A line for people: time, level, message, facts; a traceback below it."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line, plus the lines of a traceback."""
        facts = " ".join(
            f"{name}={json.dumps(value, default=str)}" for name, value in _facts(record).items()
        )
        message = printable(redact(record.getMessage()))
        at = _utc(int(record.created), "%H:%M:%S")
        line = f"{at} {record.levelname:<7} {message}  {facts}".rstrip()
        # Indented, so that no message of an exception can pass for a line of the log.
        below = [f"    {printable(each)}" for each in _exception(self, record).splitlines()]
        return "\n".join([line, *below])


def printable(text: str) -> str:
    """`text` with control characters and their like as escapes: terminals obey them.

    That includes characters that turn the direction of writing or end a line.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _timestamp(record: logging.LogRecord) -> str:
    return f"{_utc(int(record.created), '%Y-%m-%dT%H:%M:%S')}.{int(record.msecs):03}Z"


@functools.lru_cache(4)
def _utc(seconds: int, form: str) -> str:
    return time.strftime(form, time.gmtime(seconds))


def configure(settings: Settings, console: TextIO = sys.stdout) -> None:
    """Send all logs of this process to the console, and to LOG_FILE if that is set."""
    on_console = logging.StreamHandler(console)
    as_text = settings.log_format == "text"
    on_console.setFormatter(TextFormatter() if as_text else JSONFormatter())
    handlers: list[logging.Handler] = [on_console]
    if settings.log_file:
        # Appends, and opens the file anew when logrotate has moved it: right with many processes,
        # where a handler that rotates by itself loses lines.
        path = ROOT / settings.log_file
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            in_file = WatchedFileHandler(path, encoding="utf-8")
        except OSError as error:
            raise SettingsError([f"LOG_FILE cannot be written: {error.strerror}."]) from None
        in_file.setFormatter(JSONFormatter())
        handlers.append(in_file)
    logging.basicConfig(level=settings.log_level, handlers=handlers, force=True)
    # What no line tells need not be found out.
    logging.logThreads = logging.logMultiprocessing = False
    # Libraries: what goes wrong, not what they do. waitress warns of each request that queues.
    for name in ("peewee", "peewee_migrate", "werkzeug", "psycopg"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
