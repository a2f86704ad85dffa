"""How well probabilities agree with what was found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from osteofusion.evaluation.intervals import wilson_interval
from osteofusion.evaluation.metrics import Floats, Ints
from osteofusion.evaluation.recalibration import calibration_intercept, calibration_line

_BINS = 10


@dataclass(frozen=True)
class Agreement:
    """How well low-BMD probabilities agree with what was found.

    Attributes:
        mean_predicted: Mean probability.
        observed: Share of low BMD.
        brier: Mean squared error.
        slope: Of the log-odds in a logistic regression on them; 1 is right, below 1 too extreme.
        intercept: Of the log-odds at slope 1; 0 is right, above 0 too low.
        reason: Why there is no slope or intercept.
        bins: Up to ten bins of equal size, each with ``predicted``, ``observed``, ``low``, ``high``
            (Wilson over groups) and ``n``.
    """

    mean_predicted: float
    observed: float
    brier: float
    slope: float | None
    intercept: float | None
    reason: str | None
    bins: list[dict[str, float]]


def agreement(scores: Floats, low: npt.NDArray[np.bool_], groups: Ints) -> Agreement:
    """Calibration of probabilities of low BMD: mean, slope, intercept, Brier score and bins.

    Args:
        scores: (n,) probabilities; for slope and intercept within 1e-6 and 1 - 1e-6.
        low: (n,) true for low BMD.
        groups: (n,) codes of the split groups.
    """
    bins = []
    for part in np.array_split(np.argsort(scores, kind="stable"), min(_BINS, len(scores))):
        chosen = np.zeros(len(scores), dtype=bool)
        chosen[part] = True
        ends = wilson_interval(chosen, low, groups)
        values = (scores[part].mean(), low[part].mean(), *ends, len(part))
        names = ("predicted", "observed", "low", "high", "n")
        bins.append(dict(zip(names, map(float, values), strict=True)))
    slope, intercept, reason = _line(scores, low)
    return Agreement(
        mean_predicted=float(scores.mean()),
        observed=float(low.mean()),
        brier=float(((scores - low) ** 2).mean()),
        slope=slope,
        intercept=intercept,
        reason=reason,
        bins=bins,
    )


def _line(
    scores: Floats, low: npt.NDArray[np.bool_]
) -> tuple[float | None, float | None, str | None]:
    if low.all() or not low.any():
        return None, None, "all rows are of one kind"
    intercept = calibration_intercept(low, scores)
    line = calibration_line(low, scores)
    if isinstance(line, str):
        return None, intercept, line
    return float(line[1]), intercept, None
