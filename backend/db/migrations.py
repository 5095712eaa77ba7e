"""Migrations: the work of `flask db`, on top of peewee-migrate.

Do not use this in a server, except for `pending`: to replay history, peewee-migrate patches peewee
for the whole process. This module adds what peewee-migrate lacks: a lock against a second process,
no cascade when SQLite rebuilds a table, the same index names in both directions, and a copy before
a downgrade. Skip it on a first reading.
"""

from __future__ import annotations

import logging
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import peewee as pw

from ..core import clock
from ..core.paths import DATA, IS_CHECKOUT
from .database import Model
from .errors import first_line, is_clash
from .sqlite import copy_sqlite, create_private

log = logging.getLogger(__name__)

FOLDER = DATA / "migrations"
HISTORY = "migratehistory"  # peewee-migrate's table
LOCK_SECONDS = 300

TEMPLATE = '''"""{message}"""

import peewee as pw
import playhouse.postgres_ext as pw_pext
from peewee_migrate import Migrator


def migrate(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    {forwards}


def rollback(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    {backwards}
'''


class MigrationError(Exception):
    """The command cannot be carried out. The message says why."""


def known() -> list[str]:
    """Return the names of all migrations, oldest first. Raises MigrationError if there are none."""
    names = sorted(path.stem for path in FOLDER.glob("[0-9][0-9][0-9]_*.py"))
    if not names:
        raise MigrationError(f"There are no migrations in {FOLDER}.")
    return names


def applied(database: pw.Database) -> list[str]:
    """Return the names of the migrations applied to this database, oldest first."""
    if not database.table_exists(HISTORY):
        return []
    rows = database.execute_sql(f"SELECT name FROM {HISTORY} ORDER BY id").fetchall()  # noqa: S608
    return [name for (name,) in rows]


def pending(database: pw.Database) -> list[str]:
    """Return the names of the migrations that this database still needs."""
    done = set(applied(database))
    return [name for name in known() if name not in done]


def upgrade(database: pw.Database) -> list[str]:
    """Apply all pending migrations; return their names. A second process waits its turn."""
    with _alone(database):
        names = pending(database)
        if names:
            _require_known_history(database)
        router = _router(database)
        for name in names:
            with _clashes_explained(f"{name} cannot be applied"):
                router.run(name)
        return names


def downgrade(database: pw.Database, target: str) -> list[str]:
    """Undo migrations, newest first, until `target` is the newest; "-1" undoes one.

    Returns the names of the undone migrations. On SQLite, first keeps a copy beside the file.
    """
    with _alone(database):
        done = applied(database)
        if target == "-1":
            undo = done[-1:]
        elif target in done:
            undo = done[done.index(target) + 1 :]
        else:
            raise MigrationError(f"{target} is not among the applied migrations.")
        if not undo:
            raise MigrationError("There is nothing to undo.")
        if isinstance(database, pw.SqliteDatabase):
            _copy(database, undo[0])
        _require_known_history(database)
        for name in reversed(undo):
            with _clashes_explained(f"{name} cannot be undone"):
                _router(database).rollback()
        return undo[::-1]


def stamp(database: pw.Database, target: str) -> None:
    """Record `target` and all before it as applied, and none after it, without running any.

    "none" clears the record.
    """
    names = known()
    if target not in [*names, "none"]:
        raise MigrationError(f"There is no migration {target}.")
    done = [] if target == "none" else names[: names.index(target) + 1]
    with _alone(database):
        history = _router(database).model
        with database.atomic():
            history.delete().execute()
            for name in done:
                history.create(name=name)


def drift(database: pw.Database, *, reverse: bool = False) -> str:
    """Return the code of a migration from the last one to the models; empty if they match.

    With `reverse`, returns the code of the way back.
    """
    from peewee_migrate.router import compile_migrations

    return str(compile_migrations(_state(database), models(), reverse=reverse)).strip()


def revision(database: pw.Database, message: str) -> Path | None:
    """Write the migration from the last one to the models; return its path, None if they match.

    The result is a draft: CHECK constraints, server defaults and partial indexes are not detected.
    """
    if not IS_CHECKOUT:
        raise MigrationError("Write migrations in a checkout, not where a wheel is installed.")
    forwards = drift(database)
    if not forwards:
        return None
    backwards = drift(database, reverse=True)
    slug = re.sub("[^a-z0-9]+", "_", message.lower())[:60].strip("_") or "change"
    path = FOLDER / f"{int(known()[-1][:3]) + 1:03}_{slug}.py"
    text = TEMPLATE.format(
        message=re.sub(r'[\\"]+', "'", message), forwards=forwards, backwards=backwards or "pass"
    )
    # Otherwise an index is created with the class's name and dropped with the table's.
    named = re.compile(r"^( +)(table_name = .+)$", re.MULTILINE)
    path.write_text(named.sub(r"\1\2\n\1legacy_table_names = False", text), "utf-8")
    return path


def models() -> list[type[pw.Model]]:
    """Return all models of all subjects, from each `models.py` in a folder of this package."""
    package = Path(__file__).parents[1]
    name = __package__.rpartition(".")[0]
    modules = [
        import_module(f"{name}.{path.parent.name}.models")
        for path in sorted(package.glob("*/models.py"))
    ]
    found = {
        each
        for module in modules
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, Model) and each is not Model
    }
    return list(pw.sort_models(found))


def migrated_models(database: pw.Database) -> list[type[pw.Model]]:
    """Return all models as the last migration leaves them."""
    return list(_state(database).orm)


# peewee-migrate is imported where it is used, because importing it takes 0.2 s.


def _router(database: pw.Database) -> Any:
    from peewee_migrate import Router
    from peewee_migrate.logs import logger

    logger.addFilter(_is_no_error)
    return Router(database, migrate_dir=FOLDER)


def _is_no_error(record: logging.LogRecord) -> bool:
    """Keep errors out of the log: they are also raised, and reported without a traceback."""
    return record.levelno < logging.ERROR


def _require_known_history(database: pw.Database) -> None:
    """Raise MigrationError if the recorded migrations do not explain the tables."""
    done = applied(database)
    unknown = [name for name in done if name not in known()]
    if unknown:
        raise MigrationError(
            f"The database has migrations that are not in {FOLDER}: {', '.join(unknown)}."
            " Use the release that they belong to."
        )
    ours = {model._meta.table_name for model in models()}
    taken = ", ".join(sorted(ours.intersection(database.get_tables())))
    if taken and not done:  # on SQLite, an existing table with other columns would be accepted
        raise MigrationError(
            f"No migration is recorded, but these tables exist: {taken}. If they belong to another"
            " program, give the service its own database or schema; if they belong to the service,"
            " record the last migration that was applied with `flask db stamp`."
        )


@contextmanager
def _clashes_explained(what: str) -> Iterator[None]:
    """Raise MigrationError if the tables do not match the recorded migrations."""
    try:
        yield
    except pw.DatabaseError as error:
        if not is_clash(error):
            raise
        raise MigrationError(
            f"{what}: {first_line(error)}. The tables do not match the recorded migrations: either"
            " tables of another program are in the way, or `flask db stamp` recorded the wrong"
            " migration. `flask db history` lists the recorded ones."
        ) from None


def _state(database: pw.Database) -> Any:
    """Return the models as the migrations leave them. Reads only files, not the database."""
    from peewee_migrate import Migrator

    router = _router(database)
    migrator = Migrator(database)
    for name in known():
        router.run_one(name, migrator, fake=True)
    return migrator


@contextmanager
def _alone(database: pw.Database) -> Iterator[None]:
    """Hold the lock that lets one process at a time migrate this database."""
    sqlite = isinstance(database, pw.SqliteDatabase)
    try:
        with (_alone_on_sqlite if sqlite else _alone_on_postgres)(database):
            yield
    finally:
        # The connection was set up for migrating, and must not return to the pool.
        database.manual_close()


@contextmanager
def _alone_on_sqlite(database: Any) -> Iterator[None]:
    path = Path(database.database)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        create_private(path)
        if not path.stat().st_size:
            path.chmod(0o600)
        create_private(Path(f"{path}.migrate"))
    except OSError as error:
        raise MigrationError(f"{error.filename} cannot be created: {error.strerror}.") from None
    # SQLite's lock on a file beside the database works everywhere, and ends with the process.
    with closing(
        sqlite3.connect(f"{path}.migrate", timeout=LOCK_SECONDS, isolation_level=None)
    ) as beside:
        beside.execute("BEGIN EXCLUSIVE")
        # A rebuild drops the old table. With foreign keys on, this would delete all child rows.
        database.pragma("foreign_keys", 0)
        yield
        broken = database.execute_sql("PRAGMA foreign_key_check").fetchall()
        if broken:
            raise MigrationError(f"Rows refer to missing rows: {broken[:5]}")


@contextmanager
def _alone_on_postgres(database: Any) -> Iterator[None]:
    """Migrate in one transaction, because session state is lost behind PgBouncer."""
    database.connection().patience = LOCK_SECONDS  # the lock may be held by another process
    with database.atomic():
        database.execute_sql("SET LOCAL statement_timeout = 0")
        lock = "SELECT pg_advisory_xact_lock(hashtext(%s))"
        database.execute_sql(lock, (f"{__package__}:migrate",))
        yield


def _copy(database: Any, name: str) -> None:
    """Keep a copy of the database, readable only by its owner."""
    kept = Path(f"{database.database}.before-{name}-{clock.now():%Y%m%d%H%M%S%f}")
    kept.touch(mode=0o600)
    copy_sqlite(database, kept)
    log.warning("database copied to %s", kept)
