"""`python -m benchmarks [--short] [TABLE...]`: measure, print, and save the results.

The short form, for CI, checks that everything runs. Its figures mean little, and are saved
elsewhere.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from . import compare, growth, load, report, start
from .contenders import ENVIRONMENTS
from .measure import Cell

TABLES = ("peers", "servers", "keys", "threads", "start")
USUAL = (7, 3)  # rounds, and seconds of each measurement
USUAL_KEYS = (20, 1)  # figures with a limit need more, and steadier, rounds


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=", ".join(TABLES))
    parser.add_argument("--short", action="store_true", help="one round of one second")
    parser.add_argument("--rounds", type=int, help="7; for keys 20")
    parser.add_argument("--seconds", type=int, help="of each measurement: 3; for keys 1")
    asked = parser.parse_args()
    tables = asked.tables or TABLES
    if unknown := set(tables) - set(TABLES):
        parser.error(f"unknown table: {', '.join(sorted(unknown))}")
    load.require_wrk()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # which also ends the servers
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        for table in tables:
            usual = USUAL_KEYS if table == "keys" else USUAL
            rounds, seconds = asked.rounds or usual[0], asked.seconds or usual[1]
            if asked.short:
                rounds, seconds = 1, 1
            cells = _measure(table, Path(name), rounds, seconds, asked.short)
            if any(sample.errors for cell in cells for sample in cell.samples):
                faults.append(f"There were errors, so the figures of {table} are worthless.")
            if table == "keys":
                faults += growth.grown(cells)
    if faults:
        sys.exit("\n".join(faults))


def _measure(table: str, folder: Path, rounds: int, seconds: int, short: bool) -> list[Cell]:
    into = ENVIRONMENTS / "short" if short else report.RESULTS
    if table == "peers":
        return compare.against_others(folder, into, rounds, seconds)
    if table == "servers":
        asked_of = ((16,), ("me by key", "refresh")) if short else ((1, 16, 64),)
        return compare.under_servers(folder, into, rounds, seconds, *asked_of)
    if table == "keys":
        return growth.by_keys(folder, into, rounds, seconds, (2,) if short else (2, 4, 6))
    if table == "threads":
        threads = (8,) if short else (1, 2, 4, 8, 16, 32, 64)
        return growth.by_threads(folder, into, rounds, seconds, threads)
    start.of_all(folder, into, rounds)
    return []


if __name__ == "__main__":
    main()
