"""What the benchmarks share: a result, fair turns, and the table."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

Work = Callable[[], object]


@dataclass(frozen=True)
class Result:
    """One ratio beside its target.

    Attributes:
        name: What was measured.
        against: What it was measured against.
        value: Their ratio; the median where there were rounds.
        low: Smallest of the rounds.
        high: Largest of the rounds.
        target: What it should be at least or at most; None for a figure without a target.
        at_least: Whether larger is better.
        detail: The absolute figures behind it.
    """

    name: str
    against: str
    value: float
    low: float
    high: float
    target: float | None
    at_least: bool
    detail: str

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None where there is none."""
        if self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "met": self.met}


def seconds(work: Work) -> float:
    """How long something takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def turns(ours: Work, other: Work, rounds: int, warm: int = 1) -> list[tuple[float, float]]:
    """Seconds of both, which begin in turn, so that whatever else the machine does meets both."""
    for _ in range(warm):
        ours()
        other()
    taken = []
    for turn in range(rounds):
        if turn % 2:
            second, first = seconds(other), seconds(ours)
        else:
            first, second = seconds(ours), seconds(other)
        taken.append((first, second))
    return taken


def result(
    name: str,
    against: str,
    ratios: Iterable[float],
    target: float | None,
    *,
    at_least: bool,
    detail: str,
) -> Result:
    """A result from the ratios of its rounds."""
    found = sorted(ratios)
    return Result(
        name, against, statistics.median(found), found[0], found[-1], target, at_least, detail
    )


def medians(taken: list[tuple[float, float]]) -> tuple[float, float]:
    """Median seconds of either side."""
    ours, other = zip(*taken, strict=True)
    return statistics.median(ours), statistics.median(other)


def table(results: Iterable[Result]) -> str:
    """A Markdown table."""
    lines = ["| what | against | ratio (lowest to highest) | target |", "|---|---|---|---|"]
    for each in results:
        spread = f" ({each.low:.3g} to {each.high:.3g})" if each.low < each.high else ""
        asked = ""
        if each.target is not None:
            sign = "at least" if each.at_least else "at most"
            asked = f"{sign} {each.target:g}{'' if each.met else ': missed'}"
        what = f"{each.name}: {each.detail}" if each.detail else each.name
        lines.append(f"| {what} | {each.against} | {each.value:.3g}{spread} | {asked} |")
    return "\n".join(lines)
