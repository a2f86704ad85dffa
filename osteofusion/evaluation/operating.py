"""Operating points: thresholds chosen on some folds, and what they reach on another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from osteofusion.errors import EvaluationError
from osteofusion.evaluation.metrics import Estimate, Floats
from osteofusion.evaluation.out_of_fold import Bools, OutOfFold

_NOBODY = float(np.nextafter(1, 2))  # a threshold that no probability reaches
_ROUNDING = 1e-9
_CHUNK = 1_000_000  # elements of a weight matrix at a time: 8 MB


@dataclass(frozen=True)
class OperatingPoint:
    """A rule to call low BMD, and what it reaches on rows it was not chosen on.

    Attributes:
        name: ``fixed_sensitivity``, ``fixed_specificity``, ``youden`` or ``half``.
        target: What the rule asked for; None if nothing.
        thresholds: One a repeat and fold; a calibrated score at or above it is called low BMD.
        sensitivity: On the left-out rows, of these very thresholds.
        specificity: Likewise.
        chosen_anew: ``sensitivity`` and ``specificity`` with the interval in which they would lie
            had another cohort of this size chosen the thresholds; empty for ``half``.
        reading: One sentence that holds what was reached to what was asked for.
    """

    name: str
    target: float | None
    thresholds: list[float]
    sensitivity: Estimate
    specificity: Estimate
    chosen_anew: dict[str, Estimate]
    reading: str


def choose_thresholds(
    scores: Floats, low: Bools, weights: Floats, rule: str, target: float | None = None
) -> Floats:
    """Thresholds (B,) of a rule for B weightings; a score at or above one is called low BMD.

    Thresholds lie midway between neighbouring scores. ``fixed_sensitivity``: the highest that
    reaches the target; ``fixed_specificity``: the lowest that does; ``youden``: the largest sum of
    both (Youden 1950), the lowest if several. NaN where a kind has no weight.

    Args:
        scores: (n,) in 0 to 1.
        low: (n,) true for low BMD; both kinds must be there.
        weights: (B, n) weights of the rows, such as ones or resampling counts.
        rule: The rule.
        target: Sensitivity or specificity asked for.

    Raises:
        ValueError: All rows are of one kind, or the rule is unknown.
    """
    if low.all() or not low.any():
        raise ValueError("a threshold needs rows of both kinds")
    order = np.argsort(scores)
    distinct, ends = np.unique(scores[order], return_index=True)
    ends = np.append(ends, len(scores))
    cuts = np.concatenate([[0.0], (distinct[1:] + distinct[:-1]) / 2, [_NOBODY]])
    below = []
    for kind in (low, ~low):
        sums = np.cumsum(weights[:, order] * kind[order], axis=1)
        with np.errstate(invalid="ignore"):
            below.append(np.insert(sums, 0, 0, axis=1)[:, ends] / sums[:, -1:])
    sensitivity, specificity = 1 - below[0], below[1]
    if rule == "fixed_sensitivity" and target is not None:
        chosen = (sensitivity >= target - _ROUNDING).sum(axis=1) - 1
    elif rule == "fixed_specificity" and target is not None:
        chosen = (specificity < target - _ROUNDING).sum(axis=1)
    elif rule == "youden":
        chosen = np.round(sensitivity + specificity, 12).argmax(axis=1)
    else:
        raise ValueError(f"unknown rule {rule!r}, or a rule without its target")
    lacking = np.isnan(sensitivity[:, 0] + specificity[:, 0])
    return np.where(lacking, np.nan, cuts[chosen])


def operating_points(
    rows: OutOfFold,
    *,
    sensitivity: float = 0.9,
    specificity: float = 0.9,
    resamples: int = 500,
    seed: int = 0,
) -> list[OperatingPoint]:
    """Fixed sensitivity, fixed specificity, Youden, and the plain 0.5, each on left-out rows.

    A threshold is chosen on the other folds of the same repeat and applied to the left-out fold; a
    row counts with the share of repeats in which it is called. Two intervals answer two questions.
    Wilson's over split groups is for the thresholds as they are. That of ``chosen_anew``, the
    middle 95 % of resamples of whole split groups in which the thresholds are chosen again, is for
    the rule: with 36 normals a threshold for a fixed specificity moves a lot, and the sensitivity
    with it (Wilson's interval would cover its mean in half of such cohorts only).

    Args:
        rows: The arm on its test folds.
        sensitivity: Target of the fixed sensitivity.
        specificity: Target of the fixed specificity.
        resamples: Bootstrap resamples.
        seed: Seed of the resamples.

    Raises:
        EvaluationError: A target is not between 0 and 1.
    """
    for name, value in (("sensitivity", sensitivity), ("specificity", specificity)):
        if not 0 < value < 1:
            raise EvaluationError(f"{name} is {value}; the target must lie between 0 and 1")
    rules: dict[str, float | None] = {"half": None}
    if rows.cross_fitted:
        targets = {"fixed_sensitivity": sensitivity, "fixed_specificity": specificity}
        rules = {**targets, "youden": None, **rules}
    return [_operate(rows, rule, target, resamples, seed) for rule, target in rules.items()]


def fold_thresholds(rows: OutOfFold, rule: str, target: float | None) -> list[float]:
    """One threshold a fold, chosen on the others; 0.5 for the rule ``half``.

    Raises:
        ValueError: The rows are not cross-fitted.
    """
    if rule == "half":
        return [0.5] * len(rows.folds)
    return [
        float(choose_thresholds(f.other_scores, low, np.ones((1, len(low))), rule, target)[0])
        for f in rows.folds
        for low in (rows.low[f.other_rows],)
    ]


def _operate(
    rows: OutOfFold, rule: str, target: float | None, resamples: int, seed: int
) -> OperatingPoint:
    thresholds = fold_thresholds(rows, rule, target)
    called = rows.average(
        [fold.scores >= cut for fold, cut in zip(rows.folds, thresholds, strict=True)]
    )
    reached = {
        "sensitivity": rows.share(True, called),
        "specificity": rows.share(False, 1 - called),
    }
    anew = {}
    if rule != "half":
        again = _choose_anew(rows, rule, target, resamples, seed)
        for (name, estimate), values in zip(reached.items(), again, strict=True):
            anew[name] = _spread(estimate, values[~np.isnan(values)], resamples)
    return OperatingPoint(
        rule,
        target,
        thresholds,
        **reached,
        chosen_anew=anew,
        reading=_read(rule, target, reached, anew),
    )


def _spread(estimate: Estimate, values: Floats, resamples: int) -> Estimate:
    """The estimate with the middle 95 % of its resamples."""
    if 2 * len(values) < resamples:
        lacking = f"no interval: {resamples - len(values)} of {resamples} resamples lack a class"
        return Estimate(estimate.value, estimate.n, reason=lacking)
    low, high = np.quantile(values, [0.025, 0.975])
    return Estimate(estimate.value, estimate.n, float(low), float(high), "bootstrap")


def _choose_anew(
    rows: OutOfFold, rule: str, target: float | None, resamples: int, seed: int
) -> Floats:
    """Sensitivity and specificity (2, B) of resamples; NaN where one lacks a class."""
    groups = int(rows.groups.max()) + 1
    rng = np.random.default_rng(seed)
    right, total = np.zeros((2, resamples)), np.zeros((2, resamples))
    step = max(1, _CHUNK // len(rows.low))
    for start in range(0, resamples, step):
        part = slice(start, min(start + step, resamples))
        drawn = rng.multinomial(groups, np.full(groups, 1 / groups), size=part.stop - start).astype(
            np.float64
        )
        for fold in rows.folds:
            others = fold.other_rows
            cuts = choose_thresholds(
                fold.other_scores, rows.low[others], drawn[:, rows.groups[others]], rule, target
            )
            called, low = fold.scores >= cuts[:, None], rows.low[fold.rows]
            weights = drawn[:, rows.groups[fold.rows]]
            for side, (hit, kind) in enumerate(((called, low), (~called, ~low))):
                right[side, part] += (weights * hit)[:, kind].sum(axis=1)
                total[side, part] += weights[:, kind].sum(axis=1)
            right[:, part] += np.where(np.isnan(cuts), np.nan, 0.0)
    with np.errstate(invalid="ignore"):
        shares: Floats = right / total
    return shares


def _read(
    rule: str,
    target: float | None,
    reached: dict[str, Estimate],
    anew: dict[str, Estimate],
) -> str:
    said = ", ".join(
        str(e.reason) if e.value is None else f"{name} {e.value:.3f} ({e.low:.3f} to {e.high:.3f})"
        for name, e in reached.items()
    )
    pinned = rule.removeprefix("fixed_")
    free = ", ".join(
        e.reason or f"{name} {e.low:.3f} to {e.high:.3f}"
        for name, e in anew.items()
        if name != pinned
    )
    other = f". Had another cohort of this size chosen the thresholds: {free}" if free else ""
    if target is None:
        chosen = "At 0.5" if rule == "half" else "At the largest sum of both on other folds"
        return f"{chosen}: {said}{other}."
    value = reached[pinned].value
    short = value is not None and round(value, 3) < target
    verdict = "; on the left-out rows it falls short of what was asked for" if short else ""
    return f"Chosen on other folds for {pinned} {target:.2f}: {said}{verdict}{other}."
