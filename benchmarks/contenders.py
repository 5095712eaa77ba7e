"""What is measured: the service as in production, the bare route, and the alternatives."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from backend.app import create_app
from backend.core.settings import ROOT, Settings
from backend.db import migrations

from . import seed
from .load import Request, Workload, ask
from .seed import PASSWORD, Known
from .servers import Server

PEERS = Path(__file__).with_name("peers")
ENVIRONMENTS = ROOT / ".venv-peers"  # with one folder for each peer
BIN = Path(sys.executable).parent
POSTGRES_URL = os.environ.get("TEST_POSTGRES_URL", "")

ENGINES = ("sqlite", "postgres") if POSTGRES_URL else ("sqlite",)
BARE = "bare route"
KEYS = 10_000  # in the databases compared

# The service's command lines, each with its processes and threads.
SERVERS: dict[str, tuple[list[str], int, int]] = {
    "sync 2": (["gunicorn", "-k", "sync"], 2, 1),
    "gthread 2x4": (["gunicorn", "-k", "gthread"], 2, 4),
    "waitress": (["waitress"], 1, 8),
}


@dataclass(frozen=True, slots=True)
class Contender:
    """A running server, and the workload for each round."""

    server: Server
    work: Callable[[int], dict[str, Workload]]


@dataclass(frozen=True, slots=True)
class Site:
    """A migrated and filled database, the secret it was filled with, and its known users."""

    url: str
    secret_key: str
    known: list[Known]


# --- the service ---


def production(site: Site, workers: int, threads: int) -> dict[str, str]:
    """Return the environment of the service with everything on, as in production."""
    return {
        "ENVIRONMENT": "production",
        "SECRET_KEY": site.secret_key,
        "DATABASE_URL": site.url,
        "PUBLIC_URL": "http://127.0.0.1:8000",  # issuer and audience, whatever the port
        "WORKERS": str(workers),
        "THREADS": str(threads),
        "METRICS_ENABLED": "true",
        "JWT_ACCESS_TOKEN_EXPIRE_MINUTES": "1440",  # longer than the whole run
        "MAX_KEYS_PER_USER": "1000000",  # so that no key is refused
    }


@contextmanager
def site(engine: str, folder: Path, keys: int, owners: int = seed.KNOWN) -> Iterator[Site]:
    """A database on `engine`, sqlite or postgres, with `keys` keys; removed at the end."""
    name = f"bench_{uuid.uuid4().hex}"
    server = POSTGRES_URL.rpartition("/")[0]
    url = f"sqlite:///{folder}/{name}.db" if engine == "sqlite" else f"{server}/{name}"
    made = Site(url, secrets.token_urlsafe(48), [])
    settings = Settings.load(production(made, 1, 1), dotenv=None)
    if engine == "postgres":
        _on_postgres(f"CREATE DATABASE {name}")
    try:
        app = create_app(settings)
        database = app.extensions["backend"].database
        migrations.upgrade(database)
        made.known.extend(seed.fill(app.extensions["backend"], keys, owners))
        database.close_all()
        yield made
    finally:
        if engine == "postgres":
            _on_postgres(f"DROP DATABASE {name} WITH (FORCE)")
        else:
            for path in folder.glob(f"{name}.db*"):
                path.unlink()


def _on_postgres(statement: str) -> None:
    with psycopg.connect(POSTGRES_URL, autocommit=True) as connection:
        connection.execute(statement.encode())


@contextmanager
def running(where: Site, folder: Path, name: str) -> Iterator[Contender]:
    """The service on a site, run by the server called `name` in SERVERS."""
    command, workers, threads = SERVERS[name]
    with serving(where, folder, command, workers, threads) as server:
        yield Contender(server, lambda number: service_work(where.known, number))


@contextmanager
def serving(
    where: Site, folder: Path, command: list[str], workers: int, threads: int
) -> Iterator[Server]:
    """Serve the service with `command`, which is gunicorn with options, or waitress."""
    tree = _tree(folder)
    line = [str(BIN / "python"), "wsgi.py"]
    if command[0] == "gunicorn":
        line = [str(BIN / "gunicorn"), "-c", "config/gunicorn.conf.py", *command[1:], "wsgi:app"]
    server = Server(line, production(where, workers, threads), tree)
    try:
        yield server.wait("/healthz")
    finally:
        server.end()


def _tree(folder: Path) -> Path:
    """Return a copy of the code, so that no `.env` in this tree has an effect."""
    tree = folder / "tree"
    if not tree.exists():
        for name in ("backend", "config", "migrations"):
            shutil.copytree(ROOT / name, tree / name)
        shutil.copy2(ROOT / "wsgi.py", tree)
    return tree


def service_work(known: list[Known], number: int) -> dict[str, Workload]:
    """Return the service's workloads for this round; `refresh` uses fresh sessions."""
    admin, user = known[0], known[1]
    bearer = {"Authorization": f"Bearer {user.access_token}"}
    logins = [ask("/v1/auth/login", {"username": k.username, "password": PASSWORD}) for k in known]
    keys = [
        ask("/v1/api-keys", {"name": "bench"}, {"Authorization": f"Bearer {k.access_token}"})
        for k in known
    ]
    fresh = (known[(number * 25 + n) % len(known)] for n in range(25))
    renewals = [ask("/v1/auth/refresh", {"refresh_token": k.refresh_token}) for k in fresh]
    is_admin = {"Authorization": f"Bearer {admin.access_token}"}
    return {
        "me by token": Workload([Request("/v1/auth/me", headers=bearer)]),
        "me by key": Workload([Request("/v1/auth/me", headers={"X-API-Key": user.api_key})]),
        "verify": Workload([ask("/v1/api-keys/verify", {"key": user.api_key}, is_admin)]),
        "forward-auth": Workload([Request("/v1/verify", headers={"X-API-Key": user.api_key})]),
        "login": Workload(logins),
        "refresh": Workload(renewals, rotating=True),
        "key creation": Workload(keys),
    }


# --- the others ---


@contextmanager
def floor(name: str) -> Iterator[Contender]:
    """The bare route, run by the server called `name` in SERVERS."""
    command, workers, threads = SERVERS[name]
    line = [str(BIN / "waitress-serve"), "--listen=127.0.0.1:{port}", "--threads=8", "app:app"]
    if command[0] == "gunicorn":
        line = [str(BIN / "gunicorn"), *command[1:], f"--workers={workers}"]
        line += [f"--threads={threads}", "--bind=127.0.0.1:{port}", "app:app"]
    bare = {BARE: Workload([Request("/me")])}
    with _started(line, {}, PEERS / "floor") as server:
        yield Contender(server, lambda number: bare)


def peers() -> list[str]:
    """Return the names of the alternatives, which are those of their folders."""
    return sorted(path.parent.name for path in PEERS.glob("*/requirements.txt"))


@contextmanager
def peer(name: str, folder: Path) -> Iterator[Contender]:
    """An alternative in its own environment, on SQLite, with two worker processes."""
    own = installed(name, PEERS / name / "requirements.txt")
    line = [str(own / "bin" / "gunicorn"), "-k", "sync", "-w", "2", "-b", "127.0.0.1:{port}"]
    if not Path(line[0]).exists():
        line = [str(own / "bin" / "uvicorn"), "--workers=2", "--no-access-log", "--port={port}"]
    database = {"DATABASE": str(folder / f"{name}.db"), "PATH": os.environ["PATH"]}
    printed = subprocess.run(
        [own / "bin" / "python", "app.py"],
        cwd=PEERS / name,
        env=database,
        check=True,
        stdout=subprocess.PIPE,
    ).stdout
    work = {}
    for title, request in json.loads(printed).items():
        if "json" in request:
            request = ask(request["path"], request["json"], request.get("headers", {}))
        else:
            request = Request(**request, method="POST" if "body" in request else "GET")
        work[title] = Workload([request])
    with _started([*line, "app:app"], database, PEERS / name) as server:
        yield Contender(server, lambda number: work)


def installed(name: str, requirements: Path) -> Path:
    """Return the virtual environment called `name`, with these requirements; kept for reuse."""
    folder, done = ENVIRONMENTS / name, ENVIRONMENTS / name / "requirements.txt"
    if not done.exists() or done.read_bytes() != requirements.read_bytes():
        uv, python = BIN / "uv", folder / "bin" / "python"
        subprocess.run([uv, "venv", "-q", "--clear", "-p", sys.executable, folder], check=True)
        subprocess.run([uv, "pip", "install", "-q", "-p", python, "-r", requirements], check=True)
        shutil.copyfile(requirements, done)
    return folder


@contextmanager
def _started(line: list[str], environ: dict[str, str], folder: Path) -> Iterator[Server]:
    server = Server(line, {"PYTHONDONTWRITEBYTECODE": "1", **environ}, folder)
    try:
        yield server.wait("/nowhere")
    finally:
        server.end()
