"""The database: opening it, the base model, ids, times and transactions.

Models are bound to `CurrentDatabase`, a proxy for the running service's database, so that each app
in a process can use its own. Skip it on a first reading.
"""

from __future__ import annotations

import functools
import os
import threading
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import peewee as pw
from playhouse.postgres_ext import DateTimeTZField

from ..core import clock, context
from ..core.forks import call_in_children
from ..core.settings import Settings, SettingsError
from .errors import UnsuitableDatabase
from .errors import is_unavailable as is_unavailable
from .errors import is_unique_violation as is_unique_violation
from .sqlite import open_sqlite

F = TypeVar("F", bound=Callable[..., Any])


def open_database(settings: Settings) -> pw.Database:
    """Return the database that DATABASE_URL names; it connects on first use."""
    database: pw.Database
    if settings.database_url.startswith("sqlite:"):
        database = open_sqlite(settings)
    else:
        from .postgres import open_postgres  # psycopg is not needed on SQLite

        database = open_postgres(settings)
    # Processes that share a connection would get each other's rows.
    call_in_children(database.dispose)
    return database


def require_usable(database: pw.Database) -> None:
    """Raise SettingsError if the database answers but the service cannot use it.

    A database that does not answer may come back, so the service starts without it.
    """
    if isinstance(database, pw.SqliteDatabase):
        return
    try:
        database.connect()
    except UnsuitableDatabase as error:
        raise SettingsError([f"DATABASE_URL: {error}"]) from None
    except Exception as error:
        if not is_unavailable(error):
            raise
    finally:
        database.close_all()


def release(database: pw.Database) -> None:
    """Return this thread's connection to the pool, whatever its state."""
    state = database._state
    if state.closed:
        return
    try:
        if state.transactions:
            database.rollback()
    finally:  # close() would raise inside a transaction
        database._close(state.conn)
        state.reset()


class CurrentDatabase(pw.DatabaseProxy):
    """The database of the running service, or None outside of one."""

    @property
    def obj(self) -> Any:
        service = context.running()
        return service.database if service else None

    @obj.setter
    def obj(self, value: Any) -> None:
        """Ignore Peewee's initial None: the database depends only on the context."""


current = CurrentDatabase()


def on_postgres() -> bool:
    """Return whether the current database is PostgreSQL, not SQLite."""
    return isinstance(current.obj, pw.PostgresqlDatabase)


def atomic(function: F) -> F:
    """Decorator: run the function in a transaction, or in the one that is open."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        with current.obj.atomic():
            return function(*args, **kwargs)

    return wrapper  # type: ignore[return-value]


def execute(statement: str, *parameters: object) -> Any:
    """Run a hand-written statement, with `?` for each parameter; return the cursor.

    Values in its rows are not converted: SQLite has UUIDs as 32 hex digits, and no booleans or
    times.
    """
    database = current.obj
    if isinstance(database, pw.PostgresqlDatabase):
        statement = _for_psycopg(statement)
    return database.execute_sql(statement, parameters)


@functools.cache
def _for_psycopg(statement: str) -> str:
    return statement.replace("?", "%s")


def json_rows(*types: str) -> str:
    """Return a SELECT for `execute` that turns one parameter, a JSON array of arrays, into rows.

    `types` are PostgreSQL's. A statement has a limited number of parameters; many rows need one.
    """
    if on_postgres():
        columns = ", ".join(f"(v->>{place})::{name}" for place, name in enumerate(types))
        return f"SELECT {columns} FROM jsonb_array_elements(?) t(v)"  # noqa: S608 (no input)
    columns = ", ".join(f"json_extract(value, '$[{place}]')" for place in range(len(types)))
    return f"SELECT {columns} FROM json_each(?)"  # noqa: S608 (no input)


def insert_all(rows: Sequence[Model]) -> None:
    """Insert these rows of one table, at most a few hundred, in one statement.

    This is written by hand because Peewee takes many times as long, and other writers have to wait.
    """
    if not rows:
        return
    table = type(rows[0])._meta
    names = ", ".join(field.column_name for field in table.sorted_fields)
    values = (
        field.db_value(getattr(row, field.safe_name))
        for row in rows
        for field in table.sorted_fields
    )
    row_places = f"({', '.join('?' * len(table.sorted_fields))})"
    places = ", ".join([row_places] * len(rows))
    execute(f"INSERT INTO {table.table_name} ({names}) VALUES {places}", *values)  # noqa: S608


def contains(field: pw.Field, text: str) -> pw.Expression:
    """Return the condition that the field contains this literal text, in any case and script."""
    if on_postgres() or text.isascii():
        return field.contains(text)
    return pw.fn.INSTR(pw.fn.CASEFOLD(field), text.casefold()) > 0


def lock(rows: pw.ModelSelect) -> list[Any]:
    """Return the rows, locked until the transaction ends. SQLite locks the database anyway."""
    return list(rows.for_update() if on_postgres() else rows)


def count_by(column: pw.Field, rows: pw.ModelSelect) -> dict[Any, int]:
    """Count these rows by the value of the column."""
    counted = rows.select(column, pw.fn.COUNT(pw.SQL("*"))).group_by(column)
    return dict(counted.tuples())


def delete_some(rows: pw.ModelSelect, limit: int) -> int:
    """Delete up to `limit` of these rows, so that others do not wait long; return how many.

    Skips rows that another transaction is changing: after that, they may have to stay.
    """
    model = rows.model
    some = rows.select(model.id).limit(limit)
    if on_postgres():
        some = some.for_update(skip_locked=True)
    return int(model.delete().where(model.id.in_(some)).execute())


# --- ids and times ---------------------------------------------------------------------------

_last_id = 0
_id_lock = threading.Lock()


def new_id() -> uuid.UUID:
    """Return a new UUIDv7 (RFC 9562 section 5.7). Within a process, later ids sort later.

    The 12 bits after the milliseconds are their fraction (section 6.2, method 3); the other 62
    are random.
    """
    global _last_id
    ticks = int(clock.timestamp() * 1000 * 4096)
    with _id_lock:
        # Two ids in one tick, or a clock that was set back a little: continue from the last id.
        if ticks <= _last_id < ticks + 10_000 * 4096:
            ticks = _last_id + 1
        _last_id = ticks
    milliseconds, fraction = divmod(ticks, 4096)
    tail = int.from_bytes(os.urandom(8)) & (1 << 62) - 1
    return uuid.UUID(int=milliseconds << 80 | 7 << 76 | fraction << 64 | 2 << 62 | tail)


def made_at(made: uuid.UUID) -> int:
    """Return the time when `new_id` created the id, in Unix seconds."""
    return (made.int >> 80) // 1000


class UTCDateTimeField(DateTimeTZField):
    """An aware time in UTC: TIMESTAMPTZ on PostgreSQL, sortable text on SQLite.

    Peewee's own fields lose or mix up the zone. Generated migrations name the base class, which
    keeps the column a TIMESTAMPTZ.
    """

    if TYPE_CHECKING:  # the type of the field's value in a row

        def __get__(self, row: Any, owner: Any = None) -> Any: ...

        def __set__(self, row: Any, value: datetime | None) -> None: ...

    def db_value(self, value: datetime | None) -> Any:
        return None if value is None else db_time(value)

    def python_value(self, value: Any) -> datetime | None:
        return None if value is None else from_db_time(value)


def db_time(value: datetime) -> datetime | str:
    """Convert a time to the form in which the current database compares it, for raw SQL."""
    if value.tzinfo is None:
        raise ValueError("a time without a time zone")
    value = value.astimezone(UTC)
    return value if on_postgres() else value.isoformat(" ", "microseconds")


def from_db_time(value: datetime | str) -> datetime:
    """Convert a time written by `db_time` back."""
    if isinstance(value, str):
        return datetime.fromisoformat(value)
    return value.astimezone(UTC)


class Model(pw.Model):
    """The base of all tables: a UUIDv7 and the time of creation."""

    id = pw.UUIDField(primary_key=True, default=new_id)
    created_at = UTCDateTimeField(default=clock.now)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Raise TypeError for a column whose times would come back without a zone."""
        super().__init_subclass__(**kwargs)
        for name, field in vars(cls).items():
            if isinstance(field, pw.DateTimeField) and not isinstance(field, UTCDateTimeField):
                raise TypeError(f"{cls.__name__}.{name}: use UTCDateTimeField")

    class Meta:
        database = current
        legacy_table_names = False  # or else indexes are created and dropped by different names
        only_save_dirty = True


def newest(
    query: pw.ModelSelect, limit: int, after: uuid.UUID | None
) -> tuple[list[Any], uuid.UUID | None]:
    """Return the newest `limit` rows older than the id `after`, and the cursor of the next page.

    This is keyset paging: ids are ordered by time, so each page costs the same, even if the row
    `after` is gone. The cursor is None on the last page.
    """
    key = query.model.id
    if after is not None:
        query = query.where(key < after)
    rows: list[Any] = list(query.order_by(key.desc()).limit(limit + 1))
    return rows[:limit], rows[limit - 1].id if len(rows) > limit else None
