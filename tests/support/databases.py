"""Databases for a test, on both engines."""

from __future__ import annotations

import os
import uuid

import psycopg
import pytest
from flask import Flask

from backend.db import migrations
from backend.db.database import open_database

from .apps import service_of
from .settings import make_settings

POSTGRES_URL = os.environ.get("TEST_POSTGRES_URL", "")
REDIS_URL = os.environ.get("TEST_REDIS_URL", "")
NEEDS_POSTGRES = pytest.mark.needs("TEST_POSTGRES_URL")  # without it, it is not collected
NEEDS_REDIS = pytest.mark.needs("TEST_REDIS_URL")
POSTGRES = pytest.param("postgres", marks=NEEDS_POSTGRES)
ENGINES = ("sqlite", POSTGRES)
COUNTERS = ("memory", pytest.param("redis", marks=NEEDS_REDIS))
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # no waiting for disks
# For a test that makes sense on only one of the two.
ON_SQLITE = pytest.mark.parametrize("template", ["sqlite"], indirect=True)
ON_POSTGRES = pytest.mark.parametrize("template", [POSTGRES], indirect=True)


class scratch_postgres:
    """Context manager: the URL of a new, empty PostgreSQL database, dropped at the end.

    `options` are those of CREATE DATABASE.
    """

    def __init__(self, options: str = "") -> None:
        self.name, self.options = f"test_{uuid.uuid4().hex}", options

    def __enter__(self) -> str:
        self._execute(f"CREATE DATABASE {self.name} {self.options}")
        return f"{POSTGRES_URL.rpartition('/')[0]}/{self.name}"

    def __exit__(self, *exc: object) -> None:
        self._execute(f"DROP DATABASE {self.name} WITH (FORCE)")

    def _execute(self, statement: str) -> None:
        with psycopg.connect(POSTGRES_URL, autocommit=True) as connection:
            connection.execute(statement)


def migrate(url: str) -> None:
    """Bring the database up to date."""
    database = open_database(make_settings(database_url=url))
    migrations.upgrade(database)
    database.close_all()


def stored(app: Flask) -> str:
    """All that the database holds, as one text."""
    database = service_of(app).database
    rows = [
        database.execute_sql(f'SELECT * FROM "{table}"').fetchall()
        for table in database.get_tables()
    ]
    database.close()
    return repr(rows)
