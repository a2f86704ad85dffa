"""Decision curves: net benefit over threshold probabilities (Vickers and Elkin 2006)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from osteofusion.evaluation.metrics import Floats
from osteofusion.evaluation.out_of_fold import OutOfFold
from osteofusion.evaluation.prevalence import check_prevalence, shift_odds

THRESHOLDS: Floats = np.arange(1, 100) / 100
_CHUNK = 2_000_000  # elements of a weight matrix at a time: 16 MB


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit per person, ready to be drawn.

    Attributes:
        prevalence: Share of low BMD.
        thresholds: Threshold probabilities 0.01 to 0.99.
        arms: Arm name to its net benefit at each threshold, the main arm first.
        treat_all: Net benefit of calling everybody; that of nobody is 0.
        low: Lower end of the main arm's pointwise 95 % band.
        high: Upper end.
    """

    prevalence: float
    thresholds: list[float]
    arms: dict[str, list[float]]
    treat_all: list[float]
    low: list[float]
    high: list[float]


def decision_curve(
    arms: Mapping[str, OutOfFold], prevalence: float, *, resamples: int = 500, seed: int = 0
) -> DecisionCurve:
    """Decision curves of several arms at a prevalence.

    Calibrated scores are moved to the prevalence on the odds, and sensitivity and specificity at
    each threshold are weighted with it. A row counts with the share of repeats in which it is
    called. The band of the first arm is the middle 95 % of resamples of whole split groups.

    Args:
        arms: Arm name to its test rows, the main arm first; rows of both kinds must be there.
        prevalence: Share of low BMD.
        resamples: Bootstrap resamples of the band.
        seed: Seed of the resamples.

    Raises:
        EvaluationError: The prevalence is not between 0 and 1.
        ValueError: All rows are of one kind.
    """
    check_prevalence(prevalence)
    main = next(iter(arms.values()))
    curves = {}
    for name, rows in arms.items():
        if rows.low.all() or not rows.low.any():
            raise ValueError("a decision curve needs rows of both kinds")
        sums, counts = _by_group(rows, prevalence)
        curves[name] = _net_benefit(sums.sum(axis=1), counts.sum(axis=1), prevalence)
    low, high = np.nanquantile(
        _resampled(main, prevalence, resamples, seed), [0.025, 0.975], axis=0
    )
    odds = THRESHOLDS / (1 - THRESHOLDS)
    return DecisionCurve(
        prevalence=prevalence,
        thresholds=THRESHOLDS.tolist(),
        arms={name: values.tolist() for name, values in curves.items()},
        treat_all=(prevalence - (1 - prevalence) * odds).tolist(),
        low=low.tolist(),
        high=high.tolist(),
    )


def _by_group(rows: OutOfFold, prevalence: float) -> tuple[Floats, Floats]:
    """Calls (2, G, T) and rows (2, G) of each group, low BMD and normal."""
    cohort = float(rows.low.mean())
    called = rows.average(
        [
            (shift_odds(fold.scores, cohort, prevalence)[:, None] >= THRESHOLDS).astype(np.float64)
            for fold in rows.folds
        ]
    )
    size = int(rows.groups.max()) + 1
    sums, counts = np.zeros((2, size, len(THRESHOLDS))), np.zeros((2, size))
    for side, chosen in enumerate((rows.low, ~rows.low)):
        np.add.at(sums[side], rows.groups[chosen], called[chosen])
        counts[side] = np.bincount(rows.groups[chosen], minlength=size)
    return sums, counts


def _net_benefit(sums: Floats, counts: Floats, prevalence: float) -> Floats:
    """Net benefit (..., T) of calls (2, ..., T) out of rows (2, ...), NaN without a kind."""
    with np.errstate(invalid="ignore"):
        hit, alarm = sums / counts[..., None]
    net: Floats = prevalence * hit - (1 - prevalence) * alarm * THRESHOLDS / (1 - THRESHOLDS)
    return net


def _resampled(rows: OutOfFold, prevalence: float, resamples: int, seed: int) -> Floats:
    sums, counts = _by_group(rows, prevalence)
    groups = counts.shape[1]
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // groups)
    parts = []
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = rng.multinomial(groups, np.full(groups, 1 / groups), size=size).astype(np.float64)
        drawn_sums = np.stack([drawn @ side for side in sums])
        parts.append(_net_benefit(drawn_sums, (drawn @ counts.T).T, prevalence))
    values = np.concatenate(parts)
    return values[~np.isnan(values).any(axis=1)]
