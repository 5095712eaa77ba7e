"""Migrations: what `flask db` does, around peewee-migrate.

Never called while serving: peewee-migrate replays history under a process-wide patch of peewee.
What it lacks is added here: a lock against a second process, no cascade when SQLite rebuilds a
table, names of indexes that are the same in both directions, a copy before a downgrade.
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
from .sqlite import create_private

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
    """The command cannot be carried out, for the reason that the text gives."""


def known() -> list[str]:
    """The names of all migrations in the folder, oldest first. MigrationError if there are none."""
    names = sorted(path.stem for path in FOLDER.glob("[0-9][0-9][0-9]_*.py"))
    if not names:
        raise MigrationError(f"There are no migrations in {FOLDER}.")
    return names


def applied(database: pw.Database) -> list[str]:
    """The names of the migrations that this database has had, oldest first."""
    if not database.table_exists(HISTORY):
        return []
    rows = database.execute_sql(f"SELECT name FROM {HISTORY} ORDER BY id").fetchall()  # noqa: S608
    return [name for (name,) in rows]


def pending(database: pw.Database) -> list[str]:
    """The names of the migrations that this database still needs."""
    done = set(applied(database))
    return [name for name in known() if name not in done]


def upgrade(database: pw.Database) -> list[str]:
    """Apply all pending migrations and return their names. A second process waits its turn."""
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

    Returns the names of what was undone. On SQLite a copy of the file is kept beside it first.
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

    "none" records that none is.
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
    """The code of a migration that leads from the last one to the models; empty if they match.

    `reverse` is the way back.
    """
    from peewee_migrate.router import compile_migrations

    return str(compile_migrations(_state(database), models(), reverse=reverse)).strip()


def revision(database: pw.Database, message: str) -> Path | None:
    """Write the migration that leads from the last one to the models; None if they match.

    The result is a draft: CHECK constraints, server defaults and partial indexes are not seen.
    """
    if not IS_CHECKOUT:
        raise MigrationError(
            "Migrations are written in a checkout, not where a wheel is installed."
        )
    forwards = drift(database)
    if not forwards:
        return None
    backwards = drift(database, reverse=True)
    slug = re.sub("[^a-z0-9]+", "_", message.lower())[:60].strip("_") or "change"
    path = FOLDER / f"{int(known()[-1][:3]) + 1:03}_{slug}.py"
    text = TEMPLATE.format(
        message=re.sub(r'[\\"]+', "'", message), forwards=forwards, backwards=backwards or "pass"
    )
    # Otherwise an index is created under the name of the class and dropped under the table's.
    named = re.compile(r"^( +)(table_name = .+)$", re.MULTILINE)
    path.write_text(named.sub(r"\1\2\n\1legacy_table_names = False", text), "utf-8")
    return path


def models() -> list[type[pw.Model]]:
    """All models of all subjects: of each `models.py` in a folder of this package."""
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
    """All models as the last migration leaves them."""
    return list(_state(database).orm)


# peewee-migrate is imported where it is used: serving needs `pending` alone, and not its 0.2 s.


def _router(database: pw.Database) -> Any:
    from peewee_migrate import Router
    from peewee_migrate.logs import logger

    logger.addFilter(_is_no_error)
    return Router(database, migrate_dir=FOLDER)


def _is_no_error(record: logging.LogRecord) -> bool:
    """What fails is raised too, and reported where it is caught; the log needs no traceback."""
    return record.levelno < logging.ERROR


def _require_known_history(database: pw.Database) -> None:
    """MigrationError if it is not on record how the database came by its tables."""
    done = applied(database)
    unknown = [name for name in done if name not in known()]
    if unknown:
        raise MigrationError(
            f"The database has had migrations that are not in {FOLDER}: {', '.join(unknown)}."
            " Use the release that they came with."
        )
    ours = {model._meta.table_name for model in models()}
    taken = ", ".join(sorted(ours.intersection(database.get_tables())))
    if taken and not done:  # SQLite would migrate beside a table with other columns
        raise MigrationError(
            f"No migration is recorded, and these tables exist: {taken}. If they are another"
            " program's, give the service a database or a schema of its own; if they are its own,"
            " record the last migration that was applied with `flask db stamp`."
        )


@contextmanager
def _clashes_explained(what: str) -> Iterator[None]:
    """MigrationError if the tables are not the ones that the recorded migrations lead to."""
    try:
        yield
    except pw.DatabaseError as error:
        if not is_clash(error):
            raise
        raise MigrationError(
            f"{what}: {first_line(error)}. The tables are not the ones that the recorded migrations"
            " lead to: either another program's tables are in the way, or `flask db stamp` has"
            " recorded the wrong migration. `flask db history` lists what is recorded."
        ) from None


def _state(database: pw.Database) -> Any:
    """The models as the migrations leave them; reads files only."""
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
        # The connection was set up for migrating: it does not go back to the pool.
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
        raise MigrationError(f"{error.filename} cannot be made: {error.strerror}.") from None
    # A lock that SQLite takes on a file beside: on every platform, and gone with the process.
    with closing(
        sqlite3.connect(f"{path}.migrate", timeout=LOCK_SECONDS, isolation_level=None)
    ) as beside:
        beside.execute("BEGIN EXCLUSIVE")
        # A rebuild drops the old table, and with foreign keys on that deletes all child rows.
        database.pragma("foreign_keys", 0)
        yield
        broken = database.execute_sql("PRAGMA foreign_key_check").fetchall()
        if broken:
            raise MigrationError(f"Rows point to rows that are missing: {broken[:5]}")


@contextmanager
def _alone_on_postgres(database: Any) -> Iterator[None]:
    """All migrations are one transaction: what is of a session is lost behind PgBouncer."""
    database.connection().patience = LOCK_SECONDS  # the lock may be held by another process
    with database.atomic():
        database.execute_sql("SET LOCAL statement_timeout = 0")
        lock = "SELECT pg_advisory_xact_lock(hashtext(%s))"
        database.execute_sql(lock, (f"{__package__}:migrate",))
        yield


def _copy(database: Any, name: str) -> None:
    """Keep the database as it is in a file of its own, readable for its owner only."""
    kept = Path(f"{database.database}.before-{name}-{clock.now():%Y%m%d%H%M%S%f}")
    kept.touch(mode=0o600)
    with closing(sqlite3.connect(kept)) as target:
        database.connection().backup(target)
    log.warning("database copied to %s", kept)
