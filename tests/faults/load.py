"""Load on a server, and how it was answered."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import pytest
from flask.testing import FlaskClient

from backend.core.settings import ROOT

from ..support.load import Answer
from ..support.long_runs import FULL, at
from ..support.settings import process_environ

USERS = [f"user{number}" for number in range(16)]
in_full = pytest.mark.skipif(not FULL, reason="in the whole form only")


class Load:
    """Clients of a port, in a process of their own, all of whom are signed in."""

    def __init__(self, port: int, who: dict[str, Any]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.load", str(port)],
            cwd=ROOT,
            env=process_environ(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(who))
        self.process.stdin.close()
        self.process.stdin = None
        self.answers: list[Answer] = []
        self.kept: dict[str, str] = {}
        self.gone: list[str] = []
        assert self.process.stdout.readline() == "\n"
        self.began = time.monotonic()

    def finish(self) -> list[Answer]:
        """All answers since it began. None was 500 or failed to come, and no stranger got in."""
        self.process.terminate()
        told = json.loads(self.process.communicate(timeout=300)[0])
        self.answers = [Answer(*each) for each in told["answers"]]
        self.kept, self.gone = told["kept"], told["gone"]
        self.never({500, -1})
        assert not [each for each in self.answers if each.kind == "stranger" and each.status == 200]
        self.answers = [each for each in self.answers if each.sent_at >= self.began]
        return self.answers

    def never(self, statuses: set[int]) -> None:
        """No answer had one of these statuses."""
        found = [each for each in self.answers if each.status in statuses]
        assert not found, found[:5]

    def between(self, begin: float, end: float) -> list[Answer]:
        """What was sent in that time."""
        return [each for each in self.answers if begin <= each.sent_at < end]

    def next_good(self, moment: float) -> float:
        """Seconds from the moment to the next 200."""
        return min(
            each.sent_at + each.milliseconds / 1000 - moment
            for each in self.answers
            if each.status == 200 and each.sent_at + each.milliseconds / 1000 >= moment
        )

    def missing(self, client: FlaskClient, person: Any) -> list[str]:
        """What was acknowledged and is not so: keys that are gone, back, or called otherwise."""
        names, cursor = {}, ""
        while cursor is not None:
            page = person.get(
                f"/v1/api-keys?owner_id=any&limit=100{cursor and '&cursor=' + cursor}"
            )
            names |= {each["id"]: each["name"] for each in page.json["items"]}
            cursor = page.json["next"]
        lost = [each for each, name in self.kept.items() if names.get(each) != name]
        return lost + [each for each in self.gone if each in names]


def wait(seconds: float) -> None:
    """Let the fault last."""
    time.sleep(seconds)


def milliseconds(answers: list[Answer], *statuses: int) -> list[float]:
    """How long the answers took that have one of these statuses; all if none is named."""
    return [each.milliseconds for each in answers if not statuses or each.status in statuses]


def spread(values: list[float]) -> str:
    """p50 and p99 of milliseconds, and how many they are."""
    if not values:
        return "none"
    return f"p50 {at(0.5, values):.1f} ms, p99 {at(0.99, values):.1f} ms, of {len(values):,}"


def counts(answers: list[Answer]) -> str:
    """How many answers there are of each status."""
    found = sorted({each.status for each in answers})
    return ", ".join(f"{sum(a.status == status for a in answers):,} x {status}" for status in found)
