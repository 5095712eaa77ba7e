"""What is wrong or doubtful about an installation, in sentences that say what to do."""

from __future__ import annotations

import stat
from dataclasses import fields

import peewee as pw
from dotenv import dotenv_values

from . import migrations
from .database import is_down, sqlite_path
from .settings import ROOT, SECRET_BYTES, Settings, unsafe


def findings(settings: Settings, database: pw.Database) -> tuple[list[str], list[str]]:
    """(what makes serving impossible or unsafe, what is doubtful)."""
    fatal, doubtful = unsafe(settings), _unknown_names()
    try:
        pending = migrations.pending(database)
    except Exception as error:
        if not is_down(error):
            raise
        fatal.append(f"DATABASE_URL: the database does not answer: {str(error).strip()}.")
    else:
        if pending:
            fatal.append(f"Migrations are pending: {', '.join(pending)}; run `flask db upgrade`.")
    if settings.database_url.startswith("sqlite:"):
        doubtful += _about_sqlite(settings)
    if 0 < len(settings.secret_key.encode()) < SECRET_BYTES:
        doubtful.append(f"SECRET_KEY is shorter than {SECRET_BYTES} bytes.")
    if settings.database_pool_size < settings.threads:
        doubtful.append("DATABASE_POOL_SIZE is less than THREADS: requests wait for connections.")
    return fatal, doubtful


def _unknown_names() -> list[str]:
    known = {each.name.upper() for each in fields(Settings)}
    known |= {f"{each.name.upper()}_FILE" for each in fields(Settings) if each.metadata["file"]}
    given = dotenv_values(ROOT / ".env")
    return [f".env: there is no setting {name}." for name in given if name not in known]


def _about_sqlite(settings: Settings) -> list[str]:
    path = sqlite_path(settings)
    result = []
    if path.exists() and path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        result.append(f"{path} can be read by other users of the machine; run `chmod 600` on it.")
    if settings.workers > 1:
        result.append("SQLite with several WORKERS: right, but PostgreSQL writes in parallel.")
    return result
