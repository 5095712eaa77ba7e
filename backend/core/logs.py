"""Logs: JSON lines or readable text on the console, JSON lines in a file.

Skip it on a first reading. Only our own entry points call `configure`. Code of the service logs
under its module's name and passes facts as `extra`; when the service is embedded, the host decides
what happens to them.
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
from typing import TextIO

from . import context
from .paths import ROOT
from .settings import Settings, SettingsError

# The attributes that every record has; any others were passed as `extra`.
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_BARE = len(logging.makeLogRecord({}).__dict__)

# Secrets, wherever they appear: JWTs (three parts), our own keys and tokens, passwords in URLs,
# bcrypt hashes.
_SECRETS = re.compile(
    r"\beyJ[\w-]+\.[\w-]+\.[\w-]*"
    r"|\b[a-z][a-z0-9]{1,15}_[0-9A-Za-z]{38}\b"
    r"|\b[a-z][a-z0-9]{1,15}[rpem]_[\w-]{20,}\.[\w-]+"
    r"|(?<=://)[^\s/:@]+:[^\s/@]+(?=@)"
    r"|\$2[aby]\$\d\d\$[./0-9A-Za-z]{53}"
)
_LONGEST = 8192  # characters in one value

_encode = json.JSONEncoder(default=str, separators=(",", ":")).encode


def redact(text: str) -> str:
    """Return `text` without anything that looks like a token, a key or a hash.

    A text that is too long loses its middle, since the end of a traceback says what went wrong.
    """
    # Every match contains one of these, and checking for them is faster than the pattern.
    if "_" in text or "eyJ" in text or "@" in text or "$2" in text:
        text = _SECRETS.sub("[redacted]", text)
    if len(text) <= _LONGEST:
        return text
    half = _LONGEST // 2
    return f"{text[:half]} [...] {text[-half:]}"


def _facts(record: logging.LogRecord) -> dict[str, object]:
    """Return the record's extra facts, and the ids of its request and trace."""
    call = context.call.get()
    facts: dict[str, object] = {"request_id": call.request_id} if call else {}
    if call and call.trace_id:
        facts["trace_id"] = call.trace_id
    # `extra` comes after the attributes that every record has.
    for name, value in itertools.islice(record.__dict__.items(), _BARE, None):
        if name not in _STANDARD and value is not None:
            facts[name] = redact(value) if isinstance(value, str) else value
    return facts


def _exception(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    return redact(formatter.formatException(record.exc_info)) if record.exc_info else ""


class JSONFormatter(logging.Formatter):
    """One JSON object per line: ts (RFC 3339, UTC), level, logger, msg, the facts, exc."""

    def format(self, record: logging.LogRecord) -> str:
        """Format the record as one line of ASCII."""
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


class TextFormatter(logging.Formatter):
    """One line for people: time, level, message, facts; a traceback below it."""

    def format(self, record: logging.LogRecord) -> str:
        """Format the record as one line, plus the lines of a traceback."""
        facts = " ".join(
            f"{name}={json.dumps(value, default=str)}" for name, value in _facts(record).items()
        )
        message = printable(redact(record.getMessage()))
        at = _utc(int(record.created), "%H:%M:%S")
        line = f"{at} {record.levelname:<7} {message}  {facts}".rstrip()
        # Indented, so that the message of an exception cannot pass for a log line.
        below = [f"    {printable(each)}" for each in _exception(self, record).splitlines()]
        return "\n".join([line, *below])


def printable(text: str) -> str:
    """Escape control characters, which terminals obey.

    Also escape characters that change the writing direction or end a line.
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
        # Appends, and reopens the file after logrotate has moved it. With several processes, a
        # handler that rotates the file itself would lose lines.
        path = ROOT / settings.log_file
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            in_file = WatchedFileHandler(path, encoding="utf-8")
        except OSError as error:
            raise SettingsError([f"LOG_FILE cannot be written: {error.strerror}."]) from None
        in_file.setFormatter(JSONFormatter())
        handlers.append(in_file)
    logging.basicConfig(level=settings.log_level, handlers=handlers, force=True)
    # No line shows these, so do not collect them.
    logging.logThreads = logging.logMultiprocessing = False
    # Log only the problems of libraries. waitress warns of each request that is queued.
    for name in ("peewee", "peewee_migrate", "werkzeug", "psycopg"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
