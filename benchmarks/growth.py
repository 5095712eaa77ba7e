"""What the number of keys, of threads and of processes does to the cost."""

from __future__ import annotations

import base64
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from backend.api_keys.models import ApiKey
from backend.app import create_app
from backend.core.settings import Settings

from . import charts, contenders, report
from .contenders import ENGINES, Contender, Site, service_work
from .load import Request, Work
from .measure import Cell, Sample, cell, sample, take_turns

OWNERS = 20_000
PAGE = 10_000  # the page that lies deep; in a smaller database the last full one
SIZE = 50  # keys a page

VERIFICATION, FIRST, DEEP, MINTING = "verification", "first page", "deep page", "key creation"


def by_keys(folder: Path, into: Path, rounds: int, seconds: int, powers: range) -> list[Cell]:
    """The table `keys`: one connection, two processes, 10 to each of the powers keys."""
    with ExitStack() as stack:
        cells: list[Cell] = []
        for engine in ENGINES:
            for keys in (10**power for power in powers):
                site = stack.enter_context(contenders.site(engine, folder, keys, OWNERS))
                ours = stack.enter_context(contenders.running(site, folder, "sync 2"))
                asked = Contender(ours.server, _always(_work(site, keys)))
                for work in (VERIFICATION, FIRST, DEEP, MINTING):
                    one = cell(work, f"{engine}, {keys:,} keys", asked, 1, seconds)
                    cells += [one] if one else []
        take_turns([each for each in cells if each.work != MINTING], rounds)
        take_turns([each for each in cells if each.work == MINTING], rounds)  # as it adds keys
    table = [["work", "who", *report.HEAD]]
    table += [[each.work, each.who, *report.figures(each)] for each in cells]
    drawn = {
        f"keys-{work.replace(' ', '-')}": charts.lines(
            f"{work}: milliseconds (p50, one connection)",
            "keys in the database",
            [(engine, _points(cells, work, engine)) for engine in ENGINES],
        )
        for work in (VERIFICATION, FIRST, DEEP, MINTING)
    }
    report.publish("keys", table, report.found(cells), drawn, into)
    return cells


def _always(work: dict[str, Work]) -> Callable[[int], dict[str, Work]]:
    return lambda number: work


def _work(site: Site, keys: int) -> dict[str, Work]:
    """Keys from all over the table; an administrator's pages of all keys; keys for everybody."""
    is_admin = {"Authorization": f"Bearer {site.known[0].access_token}"}
    pages = f"/v1/api-keys?owner_id=any&limit={SIZE}"
    cursor = _cursor(site, min(PAGE - 1, keys // SIZE - 1) * SIZE)
    shown = [Request("/v1/auth/me", headers={"X-API-Key": each.api_key}) for each in site.known]
    return {
        VERIFICATION: Work(shown),
        FIRST: Work([Request(pages, headers=is_admin)]),
        DEEP: Work([Request(f"{pages}&cursor={cursor}", headers=is_admin)]),
        MINTING: service_work(site.known, 0)[MINTING],
    }


def _cursor(site: Site, rows: int) -> str:
    """The cursor behind so many rows: the id of the last of them."""
    settings = Settings.load(contenders.production(site, 1, 1), dotenv=None)
    service = create_app(settings).extensions["backend"]
    with service.active():
        newest = ApiKey.select(ApiKey.id).order_by(ApiKey.id.desc())
        last = newest.offset(max(0, rows - 1)).limit(1).get().id
    service.database.close_all()
    return base64.urlsafe_b64encode(last.bytes).rstrip(b"=").decode()


def _points(cells: list[Cell], work: str, engine: str) -> list[tuple[float, float]]:
    """(number of keys, p50) of a work on a database."""
    rows = [each for each in cells if each.work == work and each.who.startswith(f"{engine},")]
    return [(float(each.who.split()[1].replace(",", "")), each.median("p50")) for each in rows]


def by_threads(
    folder: Path, into: Path, rounds: int, seconds: int, threads: tuple[int, ...]
) -> list[Cell]:
    """The table `threads`: `me` by key, 64 connections, gthread, one process and two.

    The servers are started one by one: all at once would take more connections than PostgreSQL has.
    """
    with ExitStack() as stack:
        cells = []
        for engine in ENGINES:
            site = stack.enter_context(contenders.site(engine, folder, contenders.KEYS))
            for processes in (1, 2):
                for count in threads:
                    who = f"{engine}, {processes}x{count}"
                    measure = _started(site, folder, processes, count, seconds)
                    cells.append(Cell("me by key", who, measure))
        take_turns(cells, rounds)
    table = [["work", "who", *report.HEAD]]
    table += [[each.work, each.who, *report.figures(each)] for each in cells]
    series = [
        (
            f"{engine}, {processes} process{'es'[: processes * 2 - 2]}",
            [
                (float(each.who.rpartition("x")[2]), each.median("rate"))
                for each in cells
                if each.who.startswith(f"{engine}, {processes}x")
            ],
        )
        for engine in ENGINES
        for processes in (1, 2)
    ]
    chart = charts.lines("me by key: requests a second", "threads of a process", series)
    report.publish("threads", table, report.found(cells), {"threads": chart}, into)
    return cells


def _started(
    site: Site, folder: Path, processes: int, threads: int, seconds: int
) -> Callable[[int], Sample]:
    """What measures a server that is started for it."""

    def measure(number: int) -> Sample:
        work = service_work(site.known, number)
        line = ["gunicorn", "-k", "gthread"]
        with contenders.serving(site, folder, line, processes, threads) as server:
            contender = Contender(server, _always(work))
            return sample(contender, work["me by key"], 64, seconds)

    return measure
