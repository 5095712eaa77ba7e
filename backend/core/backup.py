"""`flask db backup` and `flask db verify`: a copy of a database in use, and whether it is sound."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import peewee as pw

from . import migrations
from .errors import Conflict, Unavailable

PATIENCE = 3600.0  # seconds for a statement that reads all there is
MOST_FAULTS = 20  # that are told of


def backup(database: pw.Database, path: Path) -> None:
    """Copy the database as it is at one moment to a new file, readable for its owner only.

    Nobody waits meanwhile. Conflict if the file exists, Unavailable if it cannot be written; the
    file is there when the copy is whole.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path.exists():
            raise FileExistsError
        os.close(os.open(part, os.O_CREAT | os.O_EXCL, 0o600))
        try:
            sqlite = isinstance(database, pw.SqliteDatabase)
            (_copy_sqlite if sqlite else _dump_postgres)(database, part)
            with part.open("rb+") as written:
                os.fsync(written.fileno())
            os.link(part, path)  # unlike a rename it never replaces a file
        finally:
            part.unlink()
    except FileExistsError:
        raise Conflict("conflict", f"{path} exists; nothing was written.") from None
    except OSError as error:
        raise Unavailable(f"{path} cannot be written: {error.strerror}.") from None


def _copy_sqlite(database: Any, path: Path) -> None:
    with closing(sqlite3.connect(path)) as target:
        database.connection().backup(target)


def _dump_postgres(database: Any, path: Path) -> None:
    from psycopg import conninfo

    parameters = conninfo.conninfo_to_dict(database.database)
    # Arguments can be seen by all users of a machine.
    password = str(parameters.pop("password", "")).replace("\\", r"\\").replace(":", r"\:")
    with NamedTemporaryFile("w", encoding="utf-8") as secret, path.open("wb") as target:
        if password:
            secret.write(f"*:*:*:*:{password}\n")
            secret.flush()
            parameters["passfile"] = secret.name
        source = conninfo.make_conninfo("", **parameters)
        command = ["pg_dump", "-Fc", "--no-owner", "--no-privileges", f"--dbname={source}"]
        try:
            done = subprocess.run(command, stdout=target, stderr=subprocess.PIPE, check=False)  # noqa: S603
        except FileNotFoundError:
            raise Unavailable("pg_dump is not installed (Debian: postgresql-client).") from None
    if done.returncode:
        raise Unavailable(done.stderr.decode(errors="replace").strip())


def verify(database: pw.Database) -> list[str]:
    """A sentence for each fault: pages, indexes, references, migrations. It reads all there is."""
    sqlite = isinstance(database, pw.SqliteDatabase)
    faults = (_verify_sqlite if sqlite else _verify_postgres)(database)
    pending = migrations.pending(database)
    if pending:
        faults.append(f"Migrations are pending: {', '.join(pending)}.")
    return faults


def _verify_sqlite(database: Any) -> list[str]:
    said = database.execute_sql(f"PRAGMA integrity_check({MOST_FAULTS})").fetchall()
    faults = [text for (text,) in said if text != "ok"]
    for table, row, target, _ in database.execute_sql("PRAGMA foreign_key_check").fetchmany(
        MOST_FAULTS
    ):
        faults.append(f"{table}, row {row}: what it points to in {target} is missing.")
    return faults


_NOT_VALID = (
    "SELECT format('%s: the constraint %s is not validated.', conrelid::regclass, conname)"
    " FROM pg_constraint WHERE NOT convalidated AND connamespace = current_schema()::regnamespace"
)
_BROKEN_INDEX = (
    "SELECT format('The index %s is not valid; run REINDEX.', indexrelid::regclass)"
    " FROM pg_index JOIN pg_class c ON c.oid = indexrelid"
    " WHERE NOT indisvalid AND relnamespace = current_schema()::regnamespace"
)
_CHECKSUMS = (
    "SELECT format('%s pages failed their checksum since %s.', checksum_failures,"
    " checksum_last_failure) FROM pg_stat_database"
    " WHERE datname = current_database() AND checksum_failures > 0"
)
# A statement for each foreign key, all of which have one column here.
_REFERENCES = (
    "SELECT format('SELECT count(*) FROM %s a LEFT JOIN %s b ON a.%I = b.%I"
    " WHERE b.%I IS NULL AND a.%I IS NOT NULL', conrelid::regclass, confrelid::regclass,"
    " f.attname, t.attname, t.attname, f.attname), conrelid::regclass::text, conname"
    " FROM pg_constraint JOIN pg_attribute f ON f.attrelid = conrelid AND f.attnum = conkey[1]"
    " JOIN pg_attribute t ON t.attrelid = confrelid AND t.attnum = confkey[1]"
    " WHERE contype = 'f' AND connamespace = current_schema()::regnamespace"
)
_AMCHECK = "SELECT count(*) FROM pg_extension WHERE extname = 'amcheck'"
_INDEXES = (
    "SELECT bt_index_check(indexrelid, true) FROM pg_index JOIN pg_class c ON c.oid = indexrelid"
    " JOIN pg_am ON pg_am.oid = relam"
    " WHERE amname = 'btree' AND relnamespace = current_schema()::regnamespace"
)


def _verify_postgres(database: Any) -> list[str]:
    """With the extension amcheck, B-tree indexes are held against their tables too."""

    def ask(statement: str) -> list[Any]:
        return list(database.execute_sql(statement.replace("%", "%%"), ()).fetchall())

    database.connection().patience = PATIENCE
    try:
        with database.atomic():
            database.execute_sql("SET LOCAL statement_timeout = 0")
            faults = [
                text for query in (_NOT_VALID, _BROKEN_INDEX, _CHECKSUMS) for (text,) in ask(query)
            ]
            for query, table, name in ask(_REFERENCES):
                [(missing,)] = ask(query)
                if missing:
                    faults.append(f"{table}: what {missing} rows point to ({name}) is missing.")
            if ask(_AMCHECK) == [(1,)]:
                ask(_INDEXES)
    except pw.InternalError as error:  # a page or an index that cannot be read as one
        faults = [str(error).strip()]
    finally:
        database.manual_close()
    return faults
