"""The wheel in an environment of its own, run from an empty folder, far from the checkout."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.core.settings import ROOT

from ..support.concurrency import until
from ..support.people import by_token
from ..support.processes import Process, free_port

SETTINGS = """ENVIRONMENT=development
PORT={port}
MAIL_URL=console:
LOG_FILE=instance/service.jsonl
"""


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", folder, ROOT], check=True)
    [path] = folder.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a new virtual environment that holds the wheel and what it needs."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    pip = [folder / "bin" / "pip", "--quiet", "--disable-pip-version-check", "install"]
    locked = ["--require-hashes", "--use-pep517", "-r", ROOT / "requirements.txt"]
    subprocess.run([*pip, *locked], check=True)
    subprocess.run([*pip, "--no-deps", wheel], check=True)
    return folder / "bin"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder that the service runs in: it holds a `.env`, and nothing else."""
    (tmp_path / ".env").write_text(SETTINGS.format(port=free_port()), "utf-8")
    return tmp_path


def run(environment: Path, folder: Path, program: str, *arguments: str) -> str:
    """What the program of the environment prints."""
    done = subprocess.run(
        [environment / program, *arguments],
        cwd=folder,
        env={"PATH": str(environment)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def password(environment: Path, folder: Path) -> str:
    """The password of the first administrator, in a new database."""
    flask = ("flask", "--app", "backend.wsgi")
    assert "applied 001_users" in run(environment, folder, *flask, "db", "upgrade")
    printed = run(environment, folder, *flask, "users", "bootstrap")
    return re.search(r"Password: +(\S+)", printed)[1]  # type: ignore[index]


@pytest.fixture
def server(environment: Path, folder: Path, password: str) -> Iterator[Process]:
    """The service, served from the folder."""
    [port] = re.findall(r"PORT=(\d+)", (folder / ".env").read_text("utf-8"))
    command = [environment / "python", "-m", "backend.wsgi"]
    with Process(command, int(port), folder / "output", cwd=folder, env={}) as process:
        yield process


def ask(server: Process, method: str, path: str, body: object = None, **headers: str) -> str:
    """The body of an answer that is not a refusal."""
    connection = server.connect()
    sent = {"Content-Type": "application/json", **headers}
    connection.request(method, path, None if body is None else json.dumps(body), sent)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    assert answer.status < 300, text
    return text


def test_the_wheel_holds_nothing_but_what_runs(environment: Path, folder: Path) -> None:
    where = "import backend; print(backend.__file__)"
    package = Path(run(environment, folder, "python", "-c", where).strip()).parent
    assert package.is_relative_to(environment.parent)
    assert {path.name for path in (package / "_data").iterdir()} == {"config", "migrations"}
    assert not {"tests", "wsgi", "wsgi.py"} & {path.name for path in package.parent.iterdir()}


def test_the_wheel_serves_from_an_empty_folder(
    server: Process, folder: Path, password: str
) -> None:
    login = {"username": "admin", "password": password}
    token = by_token(json.loads(ask(server, "POST", "/v1/auth/login", login))["access_token"])
    alice = {"username": "alice", "email": "alice@example.com"}
    ask(server, "POST", "/v1/auth/register", alice, **token)
    until(lambda: "Subject: " in server.output.read_text("utf-8"))
    assert "<html" in ask(server, "GET", "/password")
    assert "swagger" in ask(server, "GET", "/v1/docs").lower()
    assert json.loads(ask(server, "GET", "/v1/openapi.json"))["openapi"].startswith("3.1")
    assert {path.name for path in (folder / "instance").iterdir()} >= {
        *("backend.db", "secret_key", "service.jsonl")
    }


def test_the_wheel_is_mounted_by_an_application_of_another(
    environment: Path, folder: Path, password: str
) -> None:
    script = (
        "from backend.app import create_app\n"
        "client = create_app().test_client()\n"
        "print(client.get('/readyz').status_code, client.get('/v1/redoc').status_code)\n"
    )
    assert run(environment, folder, "python", "-c", script) == "200 200\n"
