"""Paired differences of AUROC, on clustered rows (DeLong et al. 1988; Obuchowski 1997)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, rankdata, t

from osteofusion.evaluation.auroc import (
    PRIOR_CLUSTERS,
    Z95,
    ClusteredAuroc,
    auroc_interval,
    clustered_auroc,
    placement_variance,
    squares,
    steadied_variance,
)
from osteofusion.evaluation.metrics import Estimate, Floats, Ints

IDENTICAL = "the two arms order the rows identically"


def auroc_difference(
    positive: npt.NDArray[np.bool_], first: Floats, second: Floats, clusters: Ints
) -> Estimate:
    """Paired difference of two AUROCs on the same rows, with its 95 % interval.

    Args:
        positive: (n,) true for the positive rows; both kinds must be there.
        first: (n,) scores of one arm.
        second: (n,) scores of the other arm.
        clusters: (n,) codes of the split groups.

    Returns:
        AUROC of ``first`` minus AUROC of ``second``, as in :func:`mean_auroc_difference`.

    Raises:
        ValueError: All rows are positive, or all are negative.
    """
    n = len(positive)
    if np.array_equal(rankdata(first), rankdata(second)):
        return Estimate(0.0, n, 0.0, 0.0, "constant", IDENTICAL)
    one = clustered_auroc(positive, first, clusters)
    two = clustered_auroc(positive, second, clusters)
    return mean_auroc_difference([one], [two], n)[0]


def mean_auroc_difference(
    first: Sequence[ClusteredAuroc], second: Sequence[ClusteredAuroc], n: int
) -> tuple[Estimate, float]:
    """Paired difference of AUROCs, or of means of several such as macro averages.

    Args:
        first: AUROCs of one arm, contributions on common clusters.
        second: Those of the other arm, in the same order.
        n: Number of rows.

    Returns:
        Mean of ``first`` minus mean of ``second`` with its 95 % interval, and the two-sided p value
        of no difference by the same t statistic. Where the rows show no spread (both perfect, or
        one cluster of a kind), the interval combines those of the two arms as if they were not
        paired (Newcombe's square and add).
    """
    value1, value2 = (float(np.mean([each.value for each in arm])) for arm in (first, second))
    value = value1 - value2
    if min(min(each.clusters) for each in first) < 2 or {value1, value2} <= {0.0, 1.0}:
        (low1, high1, _), (low2, high2, _) = auroc_interval(first), auroc_interval(second)
        ends = mover((value1, low1, high1), (value2, low2, high2))
        found = Estimate(value, n, max(ends[0], -1.0), min(ends[1], 1.0), "newcombe")
        return found, p_of_interval(value, *ends)
    pairs = list(zip(first, second, strict=True))
    steadied = [_steadied(one, two) for one, two in pairs]
    variance = float(np.mean([each for each, _ in steadied]))
    raw = sum(
        squares(one.positive - two.positive) + squares(one.negative - two.negative)
        for one, two in pairs
    )
    if raw > 0:
        together = np.mean([one.contributions - two.contributions for one, two in pairs], axis=0)
        variance *= len(pairs) * squares(together) / raw
    freedom = min(freedom for _, freedom in steadied)
    error = float(np.sqrt(variance))
    half = float(t.ppf(0.975, freedom)) * error
    found = Estimate(value, n, max(value - half, -1.0), min(value + half, 1.0), "delong")
    return found, float(2 * t.sf(abs(value) / error, freedom)) if error > 0 else float(value == 0)


def mover(
    first: tuple[float, float, float], second: tuple[float, float, float], correlation: float = 0
) -> tuple[float, float]:
    """Interval of a difference from the values and intervals of its two sides (Newcombe 1998).

    Args:
        first: Value, low and high.
        second: Value, low and high.
        correlation: Correlation of the two values.
    """
    value1, low1, high1 = first
    value2, low2, high2 = second
    ends = []
    for step1, step2 in ((value1 - low1, high2 - value2), (high1 - value1, value2 - low2)):
        square = step1**2 + step2**2 - 2 * correlation * step1 * step2
        ends.append(float(np.sqrt(max(square, 0.0))))
    return value1 - value2 - ends[0], value1 - value2 + ends[1]


def p_of_interval(value: float, low: float, high: float) -> float:
    """Two-sided p value of no difference from the 95 % interval's distance to 0 on its side.

    Below 0.05 exactly where the interval excludes 0.
    """
    half = value - low if value > 0 else high - value
    if value == 0 or half <= 0:
        return float(value == 0)
    return float(2 * norm.sf(Z95 * abs(value) / half))


def _steadied(one: ClusteredAuroc, two: ClusteredAuroc) -> tuple[float, float]:
    pairs = list(zip((one.positive, one.negative), (two.positive, two.negative), strict=True))
    variance1, variance2 = placement_variance(one), placement_variance(two)
    models = [
        variance1 + variance2 - 2 * _drawn_correlation(a, b, count) * np.sqrt(variance1 * variance2)
        for (a, b), count in zip(pairs, one.clusters, strict=True)
    ]
    return steadied_variance([a - b for a, b in pairs], models, one.clusters)


def _drawn_correlation(first: Floats, second: Floats, clusters: int) -> float:
    """Correlation of two arms on one side, drawn to 0 as much as the model weighs there."""
    scale = np.sqrt(squares(first) * squares(second))
    seen = float(first @ second / scale) if scale > 0 else 0.0
    return seen * clusters / (clusters + PRIOR_CLUSTERS)
