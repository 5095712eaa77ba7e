"""Check that the tables in the database match the code. Skip it on a first reading."""

from __future__ import annotations

import peewee as pw

from . import migrations


def faults(database: pw.Database) -> list[str]:
    """Return a sentence for each difference between the schema and this release."""
    names = migrations.pending(database)
    if names:
        return [f"Migrations are pending: {', '.join(names)}; run `flask db upgrade`."]
    lacking = _missing(database)
    if not lacking:
        return []
    sentence = (
        f"The database lacks {', '.join(lacking)}, although all migrations are recorded as applied:"
        " record the last one that really was applied, or none, with `flask db stamp`, then run"
        " `flask db upgrade`."
    )
    return [sentence]


def _missing(database: pw.Database) -> list[str]:
    """Return the tables and columns that the migrations create and the database lacks."""
    tables, result = set(database.get_tables()), []
    for model in migrations.migrated_models(database):
        table = model._meta.table_name
        if table in tables:
            there = {column.name for column in database.get_columns(table)}
            result += [f"{table}.{name}" for name in model._meta.columns if name not in there]
        else:
            result.append(table)
    return result
