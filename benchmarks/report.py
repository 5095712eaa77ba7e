"""Publishing a table: it is printed, and saved as JSON, as a chart and in README.md."""

from __future__ import annotations

import json
import os
import platform
import re
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .measure import Cell

README = Path(__file__).with_name("README.md")
RESULTS = Path(__file__).with_name("results")
_PACKAGES = ("flask", "peewee", "flask-smorest", "marshmallow", "gunicorn", "waitress", "psycopg")

Table = list[list[str]]  # the first row is the head


def publish(name: str, table: Table, found: Any, charts: dict[str, str], into: Path) -> None:
    """Print the table, and save it with the results in the folder.

    If the folder is RESULTS, also write it into README.md, between the marks with its name.
    """
    text = markdown(table)
    print(f"\n{name}: {about()}\n\n{text}", flush=True)
    into.mkdir(parents=True, exist_ok=True)
    kept = {"about": about(), "found": found}
    (into / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
    for chart, svg in charts.items():
        (into / f"{chart}.svg").write_text(svg, "utf-8")
    if into == RESULTS:
        marked = re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- end -->)", re.DOTALL)
        shown = "\n".join(f"![{chart}](results/{chart}.svg)" for chart in charts)
        new = f"{about()}\n\n{text}\n{shown}\n"
        page = marked.sub(lambda _: new, README.read_text("utf-8"), count=1)
        README.write_text(page, "utf-8")


def about() -> str:
    """Return the date, machine and versions."""
    [model] = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())[:1] or ["?"]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ", ".join(f"{each} {version(each)}" for each in _PACKAGES)
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores of {model}, {memory:.0f} GiB, "
        f"Linux {platform.release()}, Python {platform.python_version()}, {packages}."
    )


def markdown(table: Table) -> str:
    """Return the table, aligned so that it can be read as it is."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    rows = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in table]
    rows.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(rows) + "\n"


def figures(cell: Cell) -> list[str]:
    """Return the columns that every table has, in the order of HEAD."""
    return [
        spread(cell, "rate"),
        spread(cell, "cpu"),
        f"{cell.median('p50'):.1f}",
        f"{cell.median('p99'):.1f}",
        str(sum(each.errors for each in cell.samples)),
        f"{cell.median('memory'):.0f}",
    ]


HEAD = ["requests/s", "CPU µs", "p50 ms", "p99 ms", "errors", "MiB"]


def spread(cell: Cell, name: str) -> str:
    """Return the median of a figure, and its range."""
    least, most = cell.range(name)
    digits = 0 if most >= 100 else 1
    return f"{cell.median(name):,.{digits}f} ({least:,.{digits}f}-{most:,.{digits}f})"


def found(cells: list[Cell]) -> list[dict[str, Any]]:
    """Return the cells with all their samples, for JSON."""
    return [
        {"work": each.work, "who": each.who, "rounds": [asdict(one) for one in each.samples]}
        for each in cells
    ]
