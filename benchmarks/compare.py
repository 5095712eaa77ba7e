"""The service compared with the bare route and the alternatives, and on several servers."""

from __future__ import annotations

import multiprocessing
import os
import time
from contextlib import ExitStack
from pathlib import Path

import bcrypt

from . import charts, contenders, report
from .contenders import BARE, POSTGRES_URL, SERVERS, Contender
from .measure import Cell, Sample, cell, take_turns

SERVICE, FLOOR, BOUND = "this service", "bare Flask", "bcrypt alone"
READS = ("me by token", "me by key", "verify", "forward-auth")
WRITES = ("refresh", "key creation")
UNREAD = "me by token, no revocation"  # the user is not read, so ended sessions still pass
WORKS = (*READS, "login", *WRITES, UNREAD)


def against_others(folder: Path, into: Path, rounds: int, seconds: int) -> list[Cell]:
    """Make the table `peers`: SQLite, two processes of one thread, 16 connections."""
    with ExitStack() as stack:
        site = stack.enter_context(contenders.site("sqlite", folder, contenders.KEYS))
        who = {
            SERVICE: stack.enter_context(contenders.running(site, folder, "sync 2")),
            FLOOR: stack.enter_context(contenders.floor("sync 2")),
        }
        if POSTGRES_URL:
            other = stack.enter_context(contenders.site("postgres", folder, contenders.KEYS))
            on_postgres = contenders.running(other, folder, "sync 2")
            who[f"{SERVICE} (PostgreSQL)"] = stack.enter_context(on_postgres)
        for name in contenders.peers():
            who[name] = stack.enter_context(contenders.peer(name, folder))
        cells = [
            found
            for work in (BARE, *WORKS)
            for name, contender in who.items()
            if (found := cell(work, name, contender, 16, seconds * (3 if work == "login" else 1)))
        ]
        cells.append(Cell("login", BOUND, lambda number: _bound(seconds)))
        take_turns(cells, rounds)
    # Puts the bound next to the other logins.
    cells.sort(key=lambda each: (BARE, *WORKS).index(each.work))
    _publish("peers", cells, into, "CPU microseconds a request, two processes of one thread")
    return cells


def under_servers(
    folder: Path,
    into: Path,
    rounds: int,
    seconds: int,
    connections: tuple[int, ...],
    works: tuple[str, ...] = (*READS, *WRITES),
) -> list[Cell]:
    """Make the table `servers`: both databases, three servers, several numbers of connections."""
    reads = tuple(each for each in works if each in READS)
    writes = tuple(each for each in works if each in WRITES)
    with ExitStack() as stack:
        cells: list[Cell] = []
        for server in SERVERS:
            bare = stack.enter_context(contenders.floor(server))
            cells += _cells(f"{FLOOR}, {server}", bare, (BARE,), connections, seconds)
            for engine in contenders.ENGINES:
                site = stack.enter_context(contenders.site(engine, folder, contenders.KEYS))
                ours = stack.enter_context(contenders.running(site, folder, server))
                cells += _cells(f"{engine}, {server}", ours, reads, connections, seconds)
                cells += _cells(f"{engine}, {server}", ours, writes, (16,), seconds)
        take_turns(cells, rounds)
    _publish("servers", cells, into, "CPU microseconds a request")
    return cells


def _cells(
    who: str,
    contender: Contender,
    works: tuple[str, ...],
    connections: tuple[int, ...],
    seconds: int,
) -> list[Cell]:
    wanted = [(work, count) for work in works for count in connections]
    cells = [cell(work, f"{who}, c={count}", contender, count, seconds) for work, count in wanted]
    return [each for each in cells if each]


def _bound(seconds: int) -> Sample:
    """Measure how often all cores together can check a password if they do nothing else."""
    cores = os.cpu_count() or 1
    with multiprocessing.get_context("spawn").Pool(cores) as pool:
        took = pool.map(_check, [seconds] * cores)
    return Sample(sum(1 / each for each in took), sum(took) / cores * 1e6, 0, 0, 0, 0)


def _check(seconds: int) -> float:
    salt, times, started = bcrypt.gensalt(12), 0, time.perf_counter()
    while (passed := time.perf_counter() - started) < seconds or not times:
        bcrypt.hashpw(b"correct horse battery staple", salt)
        times += 1
    return passed / times


def _publish(name: str, cells: list[Cell], into: Path, title: str) -> None:
    head = ["work", "who", "rate of bare", "CPU of bare", "our rate", "our CPU", *report.HEAD]
    rows = [[each.work, each.who, *_ratios(each, cells), *report.figures(each)] for each in cells]
    empty = {place for place in range(len(head)) if not any(row[place] for row in rows)}
    table = [[text for n, text in enumerate(row) if n not in empty] for row in [head, *rows]]
    groups = [
        (work, [(each.who, each.median("cpu")) for each in cells if each.work == work])
        for work in dict.fromkeys(each.work for each in cells)
        if work != "login"  # a quarter of a second would dwarf everything else
    ]
    report.publish(name, table, report.found(cells), {name: charts.bars(title, groups)}, into)


def _ratios(each: Cell, cells: list[Cell]) -> list[str]:
    """Return the ratios to the bare route and to the service, of rate and CPU time each."""
    setting = each.who.partition(", ")[2]
    if each.work == "login":
        bare = _of(cells, "login", BOUND)
    elif each.work in (*READS, UNREAD):
        bare = _of(cells, BARE, f"{FLOOR}, {setting}" if setting else FLOOR)
    else:
        bare = None
    ours = _of(cells, READS[0] if each.work == UNREAD else each.work, SERVICE)
    return [
        f"{each.over(bare, 'rate'):.2f}" if bare not in (None, each) else "",
        f"{bare.over(each, 'cpu'):.2f}" if bare not in (None, each) else "",
        f"{ours.over(each, 'rate'):.2f}" if ours not in (None, each) else "",
        f"{each.over(ours, 'cpu'):.2f}" if ours not in (None, each) else "",
    ]


def _of(cells: list[Cell], work: str, who: str) -> Cell | None:
    return next((each for each in cells if (each.work, each.who) == (work, who)), None)
