"""`flask db backup` and `flask db verify`: copy a database in use, and check it for damage.

Skip it on a first reading.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import peewee as pw

from ..core.errors import Conflict, Unavailable
from ..core.settings import child_environ
from ..core.words import counted
from . import schema_check
from .sqlite import copy_sqlite

PATIENCE = 3600.0  # seconds for a statement that reads the whole database
MOST_FAULTS = 20  # reported at most


def backup(database: pw.Database, path: Path) -> None:
    """Copy a consistent snapshot of the database to a new file, readable only by its owner.

    This does not block other clients. The file appears when the copy is complete. Raises Conflict
    if it exists, and Unavailable if it cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path.exists():
            raise FileExistsError
        os.close(os.open(part, os.O_CREAT | os.O_EXCL, 0o600))
        try:
            sqlite = isinstance(database, pw.SqliteDatabase)
            (copy_sqlite if sqlite else _dump_postgres)(database, part)
            with part.open("rb+") as written:
                os.fsync(written.fileno())
            os.link(part, path)  # unlike a rename, this never replaces a file
        finally:
            part.unlink()
    except FileExistsError:
        raise Conflict("conflict", f"{path} exists; nothing was written.") from None
    except OSError as error:
        raise Unavailable(f"{path} cannot be written: {error.strerror}.") from None


def _dump_postgres(database: Any, path: Path) -> None:
    from psycopg import conninfo

    parameters = conninfo.conninfo_to_dict(database.database)
    secrets = {name: parameters.pop(name) for name in _secret_parameters() & parameters.keys()}
    password = str(secrets.pop("password", "")).replace("\\", r"\\").replace(":", r"\:")
    if secrets and "service" in parameters:
        names = ", ".join(sorted(secrets))
        raise Unavailable(f"DATABASE_URL names a service: move {names} into the service file.")
    environ = child_environ()
    # All users of a machine see the arguments of its processes; only the owner reads these files.
    with _secret_file(path) as passwords, _secret_file(path) as service, path.open("wb") as target:
        if password:
            _write(passwords, f"*:*:*:*:{password}")
            parameters["passfile"] = passwords.name
        if secrets:
            _write(service, "[backup]", *[f"{name}={value}" for name, value in secrets.items()])
            parameters["service"], environ["PGSERVICEFILE"] = "backup", service.name
        source = conninfo.make_conninfo("", **parameters)
        command = ["pg_dump", "-Fc", "--no-owner", "--no-privileges", f"--dbname={source}"]
        try:
            done = subprocess.run(  # noqa: S603
                command, stdout=target, stderr=subprocess.PIPE, check=False, env=environ
            )
        except FileNotFoundError:
            raise Unavailable("pg_dump is not installed (Debian: postgresql-client).") from None
    if done.returncode:
        raise Unavailable(done.stderr.decode(errors="replace").strip())


def _secret_parameters() -> set[str]:
    """Return the connection parameters that libpq marks as secret."""
    from psycopg import pq

    return {each.keyword.decode() for each in pq.Conninfo.get_defaults() if each.dispchar == b"*"}


def _secret_file(path: Path) -> Any:
    """Open a temporary file beside the backup, where there is room even if /tmp is read-only."""
    return NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=f"{path.name}.")


def _write(file: Any, *lines: str) -> None:
    file.writelines(f"{line}\n" for line in lines)
    file.flush()


def verify(database: pw.Database) -> list[str]:
    """Read the whole database; return a sentence for each fault.

    Checks pages, indexes, references and migrations.
    """
    sqlite = isinstance(database, pw.SqliteDatabase)
    faults = (_verify_sqlite if sqlite else _verify_postgres)(database)
    return faults + schema_check.faults(database)


def _verify_sqlite(database: Any) -> list[str]:
    found = database.execute_sql(f"PRAGMA integrity_check({MOST_FAULTS})").fetchall()
    faults = [text for (text,) in found if text != "ok"]
    for table, row, target, _ in database.execute_sql("PRAGMA foreign_key_check").fetchmany(
        MOST_FAULTS
    ):
        faults.append(f"{table}, row {row}: the row of {target} that it refers to is missing.")
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
# Builds a statement for each foreign key; all of ours have one column.
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
    """Check the database; with the extension amcheck, also check B-trees against their tables."""

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
                    faults.append(f"{table}: {counted(missing, 'row')} without the row for {name}.")
            if ask(_AMCHECK) == [(1,)]:
                ask(_INDEXES)
    except pw.InternalError as error:  # a page or an index that cannot be read
        faults = [str(error).strip()]
    finally:
        database.manual_close()
    return faults
