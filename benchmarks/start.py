"""The time to start, the memory of a worker, and the size of the installation."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from backend.core.settings import ROOT

from . import charts, contenders, report
from .contenders import BIN, PEERS, Contender
from .load import drive

OURS = "this service"
_SKIPPED = {"pip", "setuptools", "wheel", "_virtualenv.py", "_virtualenv.pth"}

Start = Callable[[], AbstractContextManager[Contender]]


def of_all(folder: Path, into: Path, rounds: int) -> None:
    """Make the table `start`: each server is started `rounds` times, in turn."""
    runtime = contenders.installed("runtime", ROOT / "requirements.txt")
    size = {OURS: _installed(runtime)}
    imports = {OURS: ([str(BIN / "python"), "-c", "import backend.app"], ROOT)}
    with contenders.site("sqlite", folder, contenders.KEYS) as site:

        def ours(server: str) -> Start:
            return lambda: contenders.running(site, folder, server)

        starts = {OURS: ours("sync 2"), f"{OURS} (waitress)": ours("waitress")}
        starts["bare Flask"] = lambda: contenders.floor("sync 2")
        imports["bare Flask"] = ([str(BIN / "python"), "-c", "import app"], PEERS / "floor")
        for name in contenders.peers():
            own = contenders.installed(name, PEERS / name / "requirements.txt")
            size[name] = _installed(own)
            imports[name] = ([str(own / "bin" / "python"), "-c", "import app"], PEERS / name)
            starts[name] = _peer(name, folder)
        took: dict[str, dict[str, list[float]]] = {name: {} for name in starts}
        for _ in range(rounds):
            for name, start in starts.items():
                for what, value in _start(start).items():
                    took[name].setdefault(what, []).append(value)
            for name, (line, place) in imports.items():
                took[name].setdefault("import", []).append(_run(line, place, folder))
    _publish(took, size, into)


def _peer(name: str, folder: Path) -> Start:
    def start() -> AbstractContextManager[Contender]:
        for path in folder.glob(f"{name}.db*"):
            path.unlink()
        return contenders.peer(name, folder)

    return start


def _start(start: Start) -> dict[str, float]:
    """Return the seconds until the first answer, and a worker's MiB then and after some load."""
    with start() as contender:
        server, work = contender.server, contender.work(0)
        cold = server.memory()
        drive(server.port, next(iter(work.values())), 16, 1)
        return {"cold": server.started_in, "memory": cold, "served": server.memory()}


def _run(line: list[str], place: Path, folder: Path) -> float:
    """Return the seconds that the command takes, without those that Python takes to start."""
    environ = {"DATABASE": str(folder / "import.db")}
    started = time.perf_counter()
    subprocess.run(line, cwd=place, env=environ, check=True)
    between = time.perf_counter()
    subprocess.run([line[0], "-c", ""], cwd=place, env=environ, check=True)
    return 2 * between - started - time.perf_counter()


def _installed(environment: Path) -> float:
    """Return the MiB of the installed packages, without compiled files."""
    [packages] = environment.glob("lib/python*/site-packages")
    return (
        sum(
            path.stat().st_size
            for top in packages.iterdir()
            if top.name.partition("-")[0] not in _SKIPPED
            for path in ([top] if top.is_file() else top.rglob("*"))
            if path.is_file() and path.suffix != ".pyc"
        )
        / 2**20
    )


def _publish(took: dict[str, dict[str, list[float]]], size: dict[str, float], into: Path) -> None:
    head = ["who", "cold start ms", "import ms", "worker MiB", "after serving", "installed MiB"]
    table = [head]
    found: dict[str, Any] = {}
    for name, figures in took.items():
        median = {what: statistics.median(values) for what, values in figures.items()}
        found[name] = {**figures, "installed": size.get(name)}
        table.append(
            [
                name,
                f"{median['cold'] * 1000:.0f}",
                f"{median['import'] * 1000:.0f}" if "import" in median else "",
                f"{median['memory']:.0f}",
                f"{median['served']:.0f}",
                f"{size[name]:.0f}" if name in size else "",
            ]
        )
    groups = [
        ("cold start, ms", [(row[0], float(row[1])) for row in table[1:]]),
        ("a worker, MiB", [(row[0], float(row[4])) for row in table[1:]]),
        ("installed, MiB", [(row[0], float(row[5])) for row in table[1:] if row[5]]),
    ]
    chart = charts.bars("Start and size", groups)
    report.publish("start", table, found, {"start": chart}, into)
