"""The meaning of a database error: an outage, pending migrations, missing privileges, or a bug.

Skip it on a first reading.
"""

from __future__ import annotations

import re
import sqlite3
from typing import Any

import peewee as pw
from playhouse.pool import MaxConnectionsExceeded


class UnsuitableDatabase(Exception):
    """The database answers, but the service cannot use it. The message says what to do."""


_UNAVAILABLE = (
    UnsuitableDatabase,
    pw.OperationalError,
    pw.InterfaceError,
    MaxConnectionsExceeded,
    sqlite3.OperationalError,
)

# PostgreSQL's SQLSTATEs.
_MISSING = {"42P01", "42703", "42P10"}  # a table, a column, a unique index for ON CONFLICT
_CLASHES = {"42P07", "42701", "42710", "42704"}  # something exists already; an index does not
_REFUSED = {
    "42501",  # the role lacks a privilege
    "3F000",  # the schema does not exist
    "25006",  # a standby, or a read-only database
    "25P03",  # the server ended our transaction because it was idle,
    "25P04",  # or because it took too long
}
# SQLite has a single code for all errors in a statement.
_SQLITE_MISSING = re.compile(
    "no such (table|column)|has no column named|ON CONFLICT clause does not match"
)
_SQLITE_CLASHES = re.compile("already exists|duplicate column name|no such index")


def is_unavailable(error: BaseException) -> bool:
    """Return whether the database is down, full, locked, overloaded or not migrated.

    Such a state passes, or the operator can end it. Any other database error is a bug.
    """
    cause = _cause(error)
    if getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR:
        return is_missing(error)
    if isinstance(error, _UNAVAILABLE) or type(error) in (pw.DatabaseError, sqlite3.DatabaseError):
        return True
    return is_missing(error) or getattr(cause, "sqlstate", "") in _REFUSED


def is_missing(error: BaseException) -> bool:
    """Return whether a statement named a table, column or unique index that does not exist."""
    return _matches(error, _MISSING, _SQLITE_MISSING)


def is_clash(error: BaseException) -> bool:
    """Return whether a migration creates what exists, or changes what is missing."""
    return is_missing(error) or _matches(error, _CLASHES, _SQLITE_CLASHES)


def explain(error: BaseException) -> str:
    """Return the database's error and what to do about it, for the log and the console."""
    text = " ".join(str(error).split())
    if isinstance(error, UnsuitableDatabase):
        return text
    if is_missing(error):
        return f"migrations are pending: run `flask db upgrade` ({first_line(error)})"
    if getattr(_cause(error), "sqlstate", "") in _REFUSED:
        return f"the database refuses: {first_line(error)}; check the role of DATABASE_URL"
    return f"the database does not answer: {text}"


def first_line(error: BaseException) -> str:
    """Return the first line of the error; the others may repeat statements and values."""
    return str(error).strip().partition("\n")[0]


def is_unique_violation(error: pw.IntegrityError, table: str, column: str) -> bool:
    """Return whether the value of this unique column is taken, on either database."""
    cause = _cause(error)
    if isinstance(cause, sqlite3.Error):
        return f"{table}.{column}" in str(cause)
    return bool(cause.diag.constraint_name == f"{table}_{column}")  # messages may be translated


def missing_reference(error: pw.IntegrityError) -> str | None:
    """Return the id in a foreign key for which there is no row, if that is the error."""
    cause = _cause(error)
    if isinstance(cause, sqlite3.Error):
        return getattr(error, "missing", None)  # from SqliteDatabase.execute
    if cause.sqlstate != "23503":
        return None
    # Key (note_id)=(0192...) is not present in table "notes". The words may be translated.
    found = re.search(r"\((\w+)\)=\((.*?)\)", cause.diag.message_detail or "")
    # "id" would be that of a row which cannot be deleted, since others refer to it.
    return found[2] if found and found[1] != "id" else None


def _cause(error: BaseException) -> Any:
    """Return the driver's error, which Peewee wraps."""
    return error.__cause__ or error.__context__ or error


def _matches(error: BaseException, states: set[str], texts: re.Pattern[str]) -> bool:
    cause = _cause(error)
    if isinstance(cause, sqlite3.Error):
        return bool(texts.search(str(cause)))
    return getattr(cause, "sqlstate", "") in states
