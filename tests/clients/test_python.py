"""A client generated from the OpenAPI document: complete, well typed, and it makes the calls.

It is left in build/python, for whoever wants to look at it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from backend.core.settings import ROOT

from ..support.people import PASSWORD

SCRIPTS = Path(sys.executable).parent
BUILD = ROOT / "build" / "python"
CALLS = Path(__file__).with_name("first_calls.py")


def run(program: str, *arguments: object) -> None:
    """Run a program of the virtual environment, which must succeed."""
    environ = {"PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}
    environ |= {"PYTHONPATH": str(BUILD), "MYPYPATH": str(BUILD)}
    command = [SCRIPTS / program, *map(str, arguments)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def generated(address: str) -> None:
    """A fresh client in BUILD, of what the service says of itself."""
    BUILD.mkdir(parents=True, exist_ok=True)
    run(
        "openapi-python-client",
        "generate",
        *("--url", f"{address}/v1/openapi.json", "--meta", "none", "--fail-on-warning"),
        *("--overwrite", "--output-path", BUILD / "backend_client"),
    )


@pytest.mark.usefixtures("generated")
def test_a_python_client_is_well_typed_and_makes_the_first_calls(address: str) -> None:
    run("mypy", "--config-file=", "--strict", BUILD / "backend_client", CALLS)
    run("python", CALLS, address, PASSWORD)
