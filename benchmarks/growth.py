"""How the cost depends on the number of keys, threads and processes."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from uuid import UUID

from backend.api_keys.models import ApiKey
from backend.app import create_app
from backend.core.settings import Settings
from backend.db.database import execute, on_postgres, release
from backend.services import Services

from . import charts, contenders, report
from .contenders import ENGINES, Contender, Site, service_work
from .load import Request, Workload
from .measure import Cell, Sample, cell, sample, take_turns

OWNERS = 20_000
PAGE = 10_000  # the deep page; in a smaller database the last full one
SIZE = 50  # keys a page

VERIFICATION, FIRST, DEEP, MINTING = "verification", "first page", "deep page", "key creation"
WORKS = (VERIFICATION, FIRST, DEEP, MINTING)
MOST = 1.5  # times as long as in the smallest database


def by_keys(
    folder: Path, into: Path, rounds: int, seconds: int, powers: Sequence[int]
) -> list[Cell]:
    """Make the table `keys`: one connection, two processes, 10**power keys for each power."""
    with ExitStack() as stack:
        cells: list[Cell] = []
        for engine in ENGINES:
            for keys in (10**power for power in powers):
                site = stack.enter_context(contenders.site(engine, folder, keys, OWNERS))
                ours = stack.enter_context(contenders.running(site, folder, "sync 2"))
                cells += _cells(f"{engine}, {keys:,} keys", site, ours, keys, seconds)
        # Close in time, so that compared cells are measured under the same conditions.
        cells.sort(key=lambda each: WORKS.index(each.work))
        take_turns([each for each in cells if each.work != MINTING], rounds)
        take_turns([each for each in cells if each.work == MINTING], rounds)
    table = [["work", "who", "p50, times", "CPU, times", *report.HEAD]]
    table += [[each.work, each.who, *_times(each, cells), *report.figures(each)] for each in cells]
    drawn = {
        f"keys-{work.replace(' ', '-')}": charts.lines(
            f"{work}: milliseconds (p50, one connection)",
            "keys in the database",
            [(engine, _points(cells, work, engine)) for engine in ENGINES],
        )
        for work in WORKS
    }
    report.publish("keys", table, report.found(cells), drawn, into)
    return cells


def grown(cells: list[Cell]) -> list[str]:
    """Return a sentence for each workload that takes too long with more keys."""
    times = [(each, each.over(_smallest(each, cells), "p50")) for each in cells]
    return [
        f"{each.work} takes {ratio:.2f} times as long on {each.who} as in the smallest database;"
        f" {MOST} times are allowed."
        for each, ratio in times
        if ratio > MOST
    ]


def _cells(who: str, site: Site, ours: Contender, keys: int, seconds: int) -> list[Cell]:
    settings = Settings.load(contenders.production(site, 1, 1), dotenv=None)
    service = create_app(settings).extensions["backend"]
    newest = _id_at(service, 0)
    work = _work(site, _id_at(service, min(PAGE - 1, keys // SIZE - 1) * SIZE - 1))
    asked = Contender(ours.server, lambda number: work)
    cells = [one for each in WORKS if (one := cell(each, who, asked, 1, seconds))]
    for each in cells:
        if each.work == MINTING:
            each.measure = _removing(each.measure, service, newest)
    return cells


def _removing(
    measure: Callable[[int], Sample], service: Services, newest: UUID
) -> Callable[[int], Sample]:
    """Return `measure`, followed by the removal of the keys that it created.

    Otherwise a hundred keys would become thousands.
    """

    def measure_and_remove(number: int) -> Sample:
        taken = measure(number)
        with service.active():
            ApiKey.delete().where(ApiKey.id > newest).execute()
            if on_postgres():  # autovacuum would run later, and earlier in a small table
                execute("VACUUM api_keys")
                execute("VACUUM api_key_secrets")
            release(service.database)
        service.database.close_all()
        return taken

    return measure_and_remove


def _id_at(service: Services, place: int) -> UUID:
    """Return the id of the key at this place, where 0 is the newest."""
    with service.active():
        newest = ApiKey.select(ApiKey.id).order_by(ApiKey.id.desc())
        [key] = newest.offset(max(0, place)).limit(1)  # get() would ignore the offset
        release(service.database)
    service.database.close_all()
    return key.id


def _work(site: Site, last: UUID) -> dict[str, Workload]:
    """Keys from all over the table, an administrator's pages of all keys, new keys for all users.

    `last` is the last key of the page before the deep one.
    """
    is_admin = {"Authorization": f"Bearer {site.known[0].access_token}"}
    pages = f"/v1/api-keys?owner_id=any&limit={SIZE}"
    cursor = base64.urlsafe_b64encode(last.bytes).rstrip(b"=").decode()
    shown = [Request("/v1/auth/me", headers={"X-API-Key": each.api_key}) for each in site.known]
    return {
        VERIFICATION: Workload(shown),
        FIRST: Workload([Request(pages, headers=is_admin)]),
        DEEP: Workload([Request(f"{pages}&cursor={cursor}", headers=is_admin)]),
        MINTING: service_work(site.known, 0)[MINTING],
    }


def _times(each: Cell, cells: list[Cell]) -> list[str]:
    """Return how many times as much the workload takes as in the smallest database."""
    return [f"{each.over(_smallest(each, cells), name):.2f}" for name in ("p50", "cpu")]


def _smallest(one: Cell, cells: list[Cell]) -> Cell:
    """Return the cell of the same workload and engine in the smallest database: the first one."""
    return next(each for each in cells if (each.work, _engine(each)) == (one.work, _engine(one)))


def _engine(each: Cell) -> str:
    return each.who.partition(",")[0]


def _points(cells: list[Cell], work: str, engine: str) -> list[tuple[float, float]]:
    """Return (number of keys, p50) of a workload on an engine."""
    rows = [each for each in cells if (each.work, _engine(each)) == (work, engine)]
    return [(float(each.who.split()[1].replace(",", "")), each.median("p50")) for each in rows]


def by_threads(
    folder: Path, into: Path, rounds: int, seconds: int, threads: tuple[int, ...]
) -> list[Cell]:
    """Make the table `threads`: `me` by key, 64 connections, gthread, one or two processes.

    The servers are started one by one, because together they would need more connections than
    PostgreSQL allows.
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
    """Return a function that starts a server and measures it."""

    def measure(number: int) -> Sample:
        work = service_work(site.known, number)
        line = ["gunicorn", "-k", "gthread"]
        with contenders.serving(site, folder, line, processes, threads) as server:
            contender = Contender(server, lambda number: work)
            return sample(contender, work["me by key"], 64, seconds)

    return measure
