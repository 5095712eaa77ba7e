"""A PostgreSQL of our own that may be stopped and frozen."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import uuid
from pathlib import Path

import psycopg

from ..support.databases import migrate
from ..support.processes import free_port, program


def as_user(name: str, *command: str) -> list[str]:
    """The command, run by that user if we are root."""
    if os.getuid():
        return [*command]
    return ["setpriv", f"--reuid={name}", f"--regid={name}", "--clear-groups", *command]


class Postgres:
    """A cluster of our own. `wal` may lie elsewhere than the data, as it should."""

    def __init__(self, folder: Path, wal: Path | None = None) -> None:
        self.data, self.port = folder / "data", free_port()
        shutil.chown(folder, "postgres") if not os.getuid() else None
        elsewhere = [f"--waldir={wal}"] if wal else []
        self._run("initdb", "-A", "trust", "-U", "postgres", "-E", "UTF8", *elsewhere)
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.write(
                f"port = {self.port}\nlisten_addresses = '127.0.0.1'\nmax_connections = 100\n"
                f"unix_socket_directories = ''\nlogging_collector = off\n"
            )
        self.start()

    def _run(self, name: str, *arguments: str) -> None:
        command = as_user("postgres", program(name), "-D", str(self.data), *arguments)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/")

    def start(self) -> None:
        """Start it, and return when it answers."""
        log = str(self.data.parent / "log")
        self._run("pg_ctl", "start", "-w", "-l", log)

    def stop(self, mode: str = "fast") -> None:
        """Stop it; what is connected is cut off."""
        self._run("pg_ctl", "stop", "-w", "-m", mode)

    def freeze(self) -> None:
        """Stop all of its processes: connections stay open without an answer."""
        for pid in self._processes():
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let all of its processes go on."""
        for pid in self._processes():
            os.kill(pid, signal.SIGCONT)

    def _processes(self) -> list[int]:
        """The postmaster first, so that none is forked meanwhile."""
        postmaster = int((self.data / "postmaster.pid").read_text().split("\n")[0])
        found = [postmaster]
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                if int(stat.read_text().rpartition(")")[2].split()[1]) == postmaster:
                    found.append(int(stat.parent.name))
        return found

    def new_database(self, migrated: bool = True) -> str:
        """The URL of a new database."""
        name = f"test_{uuid.uuid4().hex}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        if migrated:
            migrate(self.url(name))
        return self.url(name)

    def url(self, name: str, port: int = 0) -> str:
        """The URL of a database here, or by way of a relay on that port."""
        return f"postgresql://postgres@127.0.0.1:{port or self.port}/{name}"
