"""`python -m benchmarks [--short] [TABLE...]`: measure, print, and keep what was found.

The short form, for CI, shows that all of it runs; its figures are kept apart and mean little.
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


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=", ".join(TABLES))
    parser.add_argument("--short", action="store_true", help="a round of a second")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement")
    asked = parser.parse_args()
    tables = asked.tables or TABLES
    if unknown := set(tables) - set(TABLES):
        parser.error(f"no table is called {', '.join(sorted(unknown))}")
    load.require_wrk()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by which the servers are ended too
    into = ENVIRONMENTS / "short" if asked.short else report.RESULTS
    rounds, seconds = (1, 1) if asked.short else (asked.rounds, asked.seconds)
    powers = range(2, 3 if asked.short else 7)
    threads = (8,) if asked.short else (1, 2, 4, 8, 16, 32, 64)
    cells: list[Cell] = []
    with tempfile.TemporaryDirectory() as name:
        here = Path(name)
        for table in tables:
            if table == "peers":
                cells += compare.against_others(here, into, rounds, seconds)
            elif table == "servers":
                asked_of = ((16,), ("me by key", "refresh")) if asked.short else ((1, 16, 64),)
                cells += compare.under_servers(here, into, rounds, seconds, *asked_of)
            elif table == "keys":
                cells += growth.by_keys(here, into, rounds, seconds, powers)
            elif table == "threads":
                cells += growth.by_threads(here, into, rounds, seconds, threads)
            else:
                start.of_all(here, into, rounds)
    if any(sample.errors for cell in cells for sample in cell.samples):
        sys.exit("There were errors: the figures are worth nothing.")


if __name__ == "__main__":
    main()
