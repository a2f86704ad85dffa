"""AUROC, concordance and shares over split groups, in a form whose differences are paired."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit
from scipy.stats import t

from osteofusion.evaluation.auroc import ClusteredAuroc, auroc_interval, clustered_auroc
from osteofusion.evaluation.metrics import Estimate, Floats, Ints

Bools = npt.NDArray[np.bool_]
_MOST_ROWS = 3000


@dataclass(frozen=True)
class Measure:
    """A value with what each split group contributes to its error.

    Attributes:
        value: The value.
        contributions: (G,) deviations of all groups of the cohort; those of means and differences
            of measures add up likewise, so rows that they share are accounted for.
        clusters: Groups that it rests on, of the rarer side.
    """

    value: float
    contributions: Floats
    clusters: int


def area(
    positive: Bools, scores: Floats, groups: Ints, rows: Bools | None = None
) -> ClusteredAuroc:
    """AUROC on some of the rows, with contributions of all groups of the cohort.

    Args:
        positive: (n,) true for the positive rows.
        scores: (n,) larger means more likely positive.
        groups: (n,) codes 0 to G - 1.
        rows: (n,) rows to look at, of both kinds; all by default.
    """
    size = int(groups.max()) + 1
    chosen = np.ones(len(groups), dtype=bool) if rows is None else rows
    return clustered_auroc(positive[chosen], scores[chosen], groups[chosen], size)


def class_areas(y: Ints, scores: Floats, groups: Ints) -> list[ClusteredAuroc]:
    """AUROC of scores (n, 1) for code 1, or of (n, C) for each of C classes against the rest."""
    codes = [1] if scores.shape[1] == 1 else range(scores.shape[1])
    return [area(y == code, scores[:, at], groups) for at, code in enumerate(codes)]


def within_strata(
    positive: Bools, scores: Floats, groups: Ints, strata: Iterable[Any]
) -> ClusteredAuroc | None:
    """AUROC over the pairs of rows from one stratum only: what the stratum cannot explain.

    The mean over strata, weighted by their pairs; None where no stratum has rows of both kinds.

    Args:
        positive: (n,) true for the positive rows.
        scores: (n,) larger means more likely positive.
        groups: (n,) codes 0 to G - 1.
        strata: n words; None where unknown.
    """
    words = np.array([None if word is None else str(word) for word in strata], dtype=object)
    parts, pairs = [], []
    used = np.zeros(len(words), dtype=bool)
    for word in sorted({word for word in words if word is not None}):
        rows = words == word
        m, n = int(positive[rows].sum()), int((~positive[rows]).sum())
        if m and n:
            parts.append(area(positive, scores, groups, rows))
            pairs.append(m * n)
            used |= rows
    if not parts:
        return None
    weights = np.array(pairs) / sum(pairs)
    return ClusteredAuroc(
        float(weights @ [part.value for part in parts]),
        weights @ np.array([part.positive for part in parts]),
        weights @ np.array([part.negative for part in parts]),
        (len(np.unique(groups[used & positive])), len(np.unique(groups[used & ~positive]))),
    )


def auroc_estimate(areas: Sequence[ClusteredAuroc], n: int) -> Estimate:
    """Mean of AUROCs on the same rows, with its 95 % interval."""
    low, high, method = auroc_interval(areas)
    return Estimate(mean_area(areas).value, n, low, high, method)


def mean_area(areas: Sequence[ClusteredAuroc]) -> Measure:
    """Mean of AUROCs."""
    return mean_of([Measure(each.value, each.contributions, min(each.clusters)) for each in areas])


def mean_of(measures: Sequence[Measure]) -> Measure:
    """Mean of measures."""
    together: Floats = np.mean([each.contributions for each in measures], axis=0)
    return Measure(
        float(np.mean([each.value for each in measures])),
        together,
        min(each.clusters for each in measures),
    )


def mean_value(values: Floats, groups: Ints) -> Measure:
    """Mean of a number a row, such as a share of hits."""
    size = int(groups.max()) + 1
    count = len(np.unique(groups))
    value = float(values.mean())
    unbiased = float(np.sqrt(count / (count - 1))) if count > 1 else 0.0
    sums = np.bincount(groups, weights=values - value, minlength=size).astype(np.float64)
    return Measure(value, sums * (unbiased / len(values)), count)


def concordance(target: Floats, scores: Floats, groups: Ints, rows: Bools) -> Measure:
    """Share of pairs of rows whose scores order them as the target does (Harrell's C); 0.5: chance.

    Ties of the score count one half; pairs of one target value do not count. The contributions
    are the first-order ones of a U-statistic, summed within groups. Of more than 3,000 rows as
    many are drawn, since pairs grow with their square.

    Args:
        target: (n,) numbers.
        scores: (n,) scores.
        groups: (n,) codes 0 to G - 1.
        rows: (n,) rows to look at; two of them at least differ in the target.
    """
    size = int(groups.max()) + 1
    if rows.sum() > _MOST_ROWS:
        drawn = np.random.default_rng(0).choice(np.flatnonzero(rows), _MOST_ROWS, replace=False)
        rows = np.isin(np.arange(len(rows)), drawn)
    order = np.sign(np.subtract.outer(target[rows], target[rows]))
    agree = (1 + order * np.sign(np.subtract.outer(scores[rows], scores[rows]))) / 2
    pairs = order != 0
    value = float(agree[pairs].mean())
    deviations = ((agree - value) * pairs).sum(axis=1) * 2 / pairs.sum()
    count = len(np.unique(groups[rows]))
    unbiased = float(np.sqrt(count / (count - 1))) if count > 1 else 0.0
    sums = np.bincount(groups[rows], weights=deviations, minlength=size).astype(np.float64)
    return Measure(value, sums * unbiased, count)


def share_estimate(measure: Measure, n: int) -> Estimate:
    """A measure between 0 and 1 with its 95 % interval, on the logit scale."""
    error = float(np.sqrt((measure.contributions**2).sum()))
    if not 0 < measure.value < 1 or error <= 0 or measure.clusters < 2:
        reason = "no interval: the rows show no spread"
        return Estimate(measure.value, n, reason=reason)
    half = _quantile(measure) * error / (measure.value * (1 - measure.value))
    low, high = expit(logit(measure.value) + np.array([-half, half])).tolist()
    return Estimate(measure.value, n, low, high, "clustered")


def difference(first: Measure, second: Measure, n: int) -> tuple[Estimate, float | None]:
    """First minus second with its 95 % interval, and the two-sided p-value of no difference."""
    value = first.value - second.value
    error = float(np.sqrt(((first.contributions - second.contributions) ** 2).sum()))
    fewest = first if first.clusters <= second.clusters else second
    if error <= 0 or fewest.clusters < 2:
        if value == 0:
            return Estimate(0.0, n, 0.0, 0.0, "constant", "both are the same"), None
        return Estimate(value, n, reason="no interval: the rows show no spread"), None
    half = _quantile(fewest) * error
    p = float(2 * t.sf(abs(value) / error, fewest.clusters - 1))
    return Estimate(value, n, value - half, value + half, "clustered"), p


def auroc_gap(positive: Bools, first: Floats, second: Floats, groups: Ints) -> Estimate:
    """AUROC of the first scores minus AUROC of the second, paired on the same rows."""
    one, two = (mean_area([area(positive, scores, groups)]) for scores in (first, second))
    return difference(one, two, len(positive))[0]


def plain(estimate: Estimate) -> dict[str, Any]:
    """An estimate for JSON."""
    return asdict(estimate)


def in_words(estimate: Estimate, *, signed: bool = False, digits: int = 3) -> str:
    """Such as "0.945 (0.914 to 0.972)"."""
    sign = "+" if signed else ""
    if estimate.value is None:
        return f"not known ({estimate.reason})"
    said = f"{estimate.value:{sign}.{digits}f}"
    if estimate.low is None or estimate.high is None:
        return said
    return f"{said} ({estimate.low:{sign}.{digits}f} to {estimate.high:{sign}.{digits}f})"


def _quantile(measure: Measure) -> float:
    return float(t.ppf(0.975, measure.clusters - 1))
