"""Find errors and risks in an installation, and say in sentences what to do.

Skip it on a first reading.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import peewee as pw
from dotenv import dotenv_values, find_dotenv

from ..core import clock, redis_url
from ..core.paths import ROOT
from ..core.settings import Settings, setting_names
from ..core.settings_checks import SECRET_BYTES
from ..crypto import signing_keys
from ..db import schema_check
from ..db.errors import explain, is_unavailable
from ..db.sqlite import sqlite_path
from ..services import Services

PROBE_SECONDS = 3  # for each server to answer
CLOCK_SECONDS = 2  # difference from the database's clock that is worth reporting


def findings(settings: Settings, database: pw.Database) -> tuple[list[str], list[str]]:
    """Return (problems that make serving impossible or unsafe, warnings)."""
    fatal: list[str] = []  # unsafe settings have already been refused
    warnings = _about_dotenv()
    try:
        fatal += schema_check.faults(database)
    except Exception as error:
        if not is_unavailable(error):
            raise
        fatal.append(f"DATABASE_URL: {explain(error).rstrip('.')}.")
    else:
        warnings += _about_clock(database) + _about_case(database)
        warnings += _about_pooler(settings, database)
    if settings.database_url.startswith("sqlite:"):
        fatal += _about_folder(sqlite_path(settings).parent)
        warnings += _about_sqlite(settings)
    if 0 < len(settings.secret_key.encode()) < SECRET_BYTES:
        warnings.append(f"SECRET_KEY is shorter than {SECRET_BYTES} bytes.")
    warnings += _about_signing_keys(settings)
    if settings.workers > 1 and not settings.redis_url:
        warnings.append(
            "REDIS_URL is not set: each of the WORKERS counts rate limits of keys separately."
        )
    if settings.database_pool_size < settings.threads:
        warnings.append("DATABASE_POOL_SIZE is less than THREADS: requests wait for connections.")
    if settings.strict:
        warnings += _about_production(settings)
    return fatal, warnings


def servers(service: Services) -> list[str]:
    """Return a warning for each server, Redis or the mail server, that cannot be used now."""
    result = []
    settings, mailer = service.settings, service.mailer
    if settings.redis_url:
        redis = redis_url.connect(settings.redis_url, PROBE_SECONDS)
        if fault := _fault(redis.ping):
            result.append(
                f"REDIS_URL: {fault}; each process counts rate limits of keys separately."
            )
    if mailer.smtp_server and (fault := _fault(lambda: mailer.probe(PROBE_SECONDS))):
        result.append(f"MAIL_URL: {fault}; mail waits for up to 24 hours.")
    return result


def _fault(attempt: Callable[[], object]) -> str | None:
    """Return why the attempt failed, or that it takes too long; None if it succeeded.

    It runs in a thread, because socket timeouts do not apply to resolving a host name.
    """
    faults: list[str] = []

    def run() -> None:
        try:
            attempt()
        except Exception as error:
            faults.append(str(error).rstrip(".") or type(error).__name__)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    if thread.is_alive():
        return f"no answer within {PROBE_SECONDS} s"
    return faults[0] if faults else None


def _about_production(settings: Settings) -> list[str]:
    result = []
    if settings.metrics_enabled and not settings.metrics_token:
        result.append(
            "METRICS_ENABLED without METRICS_TOKEN: anyone who reaches /metrics can read it; set a"
            " token, or block /metrics in the proxy."
        )
    if settings.mail_url in {"console:", "memory:"}:
        result.append("MAIL_URL sends no mail, and shows the links; set it to an smtp:// server.")
    return result


def _about_dotenv() -> list[str]:
    given, known = dotenv_values(ROOT / ".env"), setting_names()
    result = [f".env: there is no setting {name}." for name in given if name not in known]
    nearest = find_dotenv(usecwd=True)
    if nearest and Path(nearest) != ROOT / ".env":
        result.append(f"The `flask` command reads {nearest}, but servers do not; rename it.")
    return result


def _about_clock(database: pw.Database) -> list[str]:
    """Compare the clocks: the one of this machine decides what has expired."""
    if not isinstance(database, pw.PostgresqlDatabase):
        return []
    [there] = database.execute_sql("SELECT clock_timestamp()").fetchone()
    seconds = abs((there - clock.now()).total_seconds())
    if seconds < CLOCK_SECONDS:
        return []
    return [f"The clocks here and on the database server differ by {seconds:.0f} s; use NTP."]


def _about_case(database: pw.Database) -> list[str]:
    """Check case folding: PostgreSQL uses the database's locale, which may fold only a to z."""
    if isinstance(database, pw.SqliteDatabase):
        return []
    if database.execute_sql("SELECT 'É' ILIKE 'é'").fetchone() == (True,):
        return []
    remedy = "create a database with LC_CTYPE 'C.UTF-8' TEMPLATE template0"
    return [f"LC_CTYPE ignores case only for a to z, and so does `?search=`: {remedy}."]


def _about_pooler(settings: Settings, database: pw.Database) -> list[str]:
    """Check the session parameters, which the service cannot set behind PgBouncer."""
    if settings.database_prepared_statements or isinstance(database, pw.SqliteDatabase):
        return []
    begin, result = "DATABASE_PREPARED_STATEMENTS=false, but", []
    if database.execute_sql("SHOW statement_timeout").fetchone() == ("0",):
        remedy = f"ALTER ROLE ... SET statement_timeout = '{settings.database_timeout}s'"
        result.append(f"{begin} there is no statement_timeout: run `{remedy}`.")
    [isolation] = database.execute_sql("SHOW default_transaction_isolation").fetchone()
    if isolation != "read committed":
        remedy = "ALTER ROLE ... SET default_transaction_isolation = 'read committed'"
        result.append(f"{begin} transactions are {isolation}: run `{remedy}`.")
    return result


def _about_folder(folder: Path) -> list[str]:
    """Check that SQLite can create files beside the database."""
    if not os.access(folder, os.F_OK) or os.access(folder, os.W_OK | os.X_OK):
        return []
    who = f" (uid {os.geteuid()}, gid {os.getegid()})" if os.name == "posix" else ""
    return [f"DATABASE_URL: {folder} is not writable by the user of this process{who}."]


def _about_sqlite(settings: Settings) -> list[str]:
    path = sqlite_path(settings)
    result = _about_mode(*(path.with_name(path.name + end) for end in ("", "-wal", "-shm")))
    if settings.workers > 1:
        result.append("With several WORKERS, prefer PostgreSQL: SQLite writes one at a time.")
    return result


def _about_signing_keys(settings: Settings) -> list[str]:
    if settings.jwt_algorithm != "HS256":
        return _about_mode(signing_keys.path_of(settings))
    if settings.jwt_private_key_file:
        return ["JWT_PRIVATE_KEY_FILE is not used: JWT_ALGORITHM is HS256."]
    return []


def _about_mode(*paths: Path) -> list[str]:
    loose = ", ".join(str(path) for path in paths if _is_readable_by_others(path))
    if not loose:
        return []
    return [f"{loose} can be read by other users of this machine; run `chmod 600`."]


def _is_readable_by_others(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:  # there is no such file, or its folder is not accessible
        return False
    return os.name == "posix" and bool(mode & (stat.S_IRGRP | stat.S_IROTH))
