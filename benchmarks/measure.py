"""Measuring in rounds: contenders take turns, so that a slow minute affects all alike."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from .contenders import Contender
from .load import Workload, drive, status_of


@dataclass(frozen=True, slots=True)
class Sample:
    """A round: requests per second, CPU in us per request, latencies in ms, a worker's MiB."""

    rate: float
    cpu: float
    p50: float
    p99: float
    errors: int
    memory: float


@dataclass(slots=True)
class Cell:
    """A workload and a contender that are measured, and the result of each round."""

    work: str
    who: str
    measure: Callable[[int], Sample]
    samples: list[Sample] = field(default_factory=list)

    def median(self, name: str) -> float:
        """The median of a figure over the rounds."""
        return statistics.median(getattr(each, name) for each in self.samples)

    def range(self, name: str) -> tuple[float, float]:
        """The lowest and the highest value of a figure."""
        values = [getattr(each, name) for each in self.samples]
        return min(values), max(values)

    def over(self, other: Cell, name: str) -> float:
        """The median ratio of the figure to that of `other` in the same round."""
        pairs = zip(self.samples, other.samples, strict=True)
        return statistics.median(getattr(a, name) / getattr(b, name) for a, b in pairs)


def cell(work: str, who: str, contender: Contender, connections: int, seconds: int) -> Cell | None:
    """Return a cell for the workload; None if the contender has none. RuntimeError if it fails."""
    asked = contender.work(0).get(work)
    if asked is None:
        return None
    answered = status_of(contender.server.port, asked.requests[-1])
    if answered in (404, 405):
        print(f"{who}: {work} does not exist", file=sys.stderr)
        return None
    if answered >= 400:
        raise RuntimeError(f"{who} answers {work} with {answered}")

    def measure(number: int) -> Sample:
        return sample(contender, contender.work(number)[work], connections, seconds)

    return Cell(work, who, measure)


def sample(contender: Contender, work: Workload, connections: int, seconds: int) -> Sample:
    """Send the workload for `seconds`, or longer if there is no answer; return the result."""
    before = contender.server.cpu()
    outcome = drive(contender.server.port, work, connections, seconds)
    taken = contender.server.cpu() - before
    contender.server.wait_until_idle()
    if not outcome.requests:
        return sample(contender, work, connections, 2 * seconds)
    return Sample(
        rate=outcome.requests / outcome.seconds,
        cpu=taken / outcome.requests * 1e6,
        p50=outcome.p50,
        p99=outcome.p99,
        errors=outcome.errors,
        memory=contender.server.memory(),
    )


def take_turns(cells: list[Cell], rounds: int) -> None:
    """Measure all cells `rounds` times; with several rounds, after another one to warm up."""
    for number in range(0 if rounds > 1 else 1, rounds + 1):
        for each in cells:
            taken = each.measure(number)
            if number:
                each.samples.append(taken)
        print(f"round {number} of {rounds}", file=sys.stderr)
