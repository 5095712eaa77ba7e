"""`make soak`: half load for twenty minutes (SOAK_MINUTES), in which nothing may grow for ever."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import psycopg

from ..support.long_runs import Site
from .cluster import Postgres
from .load import Load, counts, milliseconds, spread

MINUTES = float(os.environ.get("SOAK_MINUTES") or 20)
REST = 0.08  # seconds of each client between two requests: about half of what is possible
TABLES = ("sessions", "throttles", "known_addresses", "api_keys", "audit_events")


def resident(pid: int) -> float:
    """MiB of memory of the process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def descriptors(pid: int) -> int:
    """How many files and sockets the process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_soak(
    cluster: Postgres,
    site_on: Callable[..., Site],
    load_on: Callable[..., Load],
    figure: Callable[[str, str], None],
) -> None:
    url = cluster.new_database()
    client, [server] = site_on(url, jwt_access_token_expire_minutes=5)
    seconds = MINUTES * 60
    load = load_on(client, server.port, rest=REST)
    pid, seen = server.process.pid, []
    while time.monotonic() < load.began + seconds:
        time.sleep(5)
        with psycopg.connect(url) as connection:
            rows = [
                connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                for table in TABLES
            ]
        seen.append((resident(pid), descriptors(pid), rows))
    found = load.finish()
    fourth = max(1, len(seen) // 4)
    early, late = seen[fourth : 2 * fourth], seen[-fourth:]

    def mean(of: list[tuple[float, int, list[int]]]) -> float:
        return sum(memory for memory, _, _ in of) / len(of)

    figure("minutes, answers", f"{MINUTES:g}, {counts(found)}")
    figure("of all", spread(milliseconds(found)))
    figure("memory, second quarter and last", f"{mean(early):.1f} MiB, {mean(late):.1f} MiB")
    figure("descriptors", f"{min(d for _, d, _ in late)} to {max(d for _, d, _ in late)}")
    for number, table in enumerate(TABLES):
        counted = [rows[number] for _, _, rows in (early[0], early[-1], late[-1])]
        figure(f"rows of {table}", ", ".join(f"{each:,}" for each in counted))
    assert mean(late) <= 1.05 * mean(early)
    assert max(d for _, d, _ in late) <= max(d for _, d, _ in early) + 8
    sessions, throttles, addresses, keys, _ = late[-1][2]
    assert sessions <= 20 * 17
    assert throttles <= 100
    assert addresses <= 17
    assert keys <= 20 * 17 + 10
