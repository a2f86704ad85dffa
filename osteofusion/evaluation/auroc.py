"""Intervals for AUROC on clustered rows, of one test side or averaged over test folds.

The variance sums the placement values of DeLong et al. (1988) within each cluster, as Obuchowski
(1997) does; with one row a cluster it is DeLong's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import norm, rankdata, t

from osteofusion.evaluation.metrics import Floats, Ints

Z95 = float(norm.ppf(0.975))
# A few rows show too little of their own spread, most of all near AUROC 1: Hanley and McNeil's
# variance joins as so many clusters a side. 5 brings 36 against 203 rows from 0.93 to 0.945 at
# AUROC 0.95; see tests/evaluation/test_coverage.py.
PRIOR_CLUSTERS = 5


@dataclass(frozen=True)
class ClusteredAuroc:
    """An AUROC with what each cluster contributes to its error.

    Attributes:
        value: The AUROC.
        positive: (G,) deviations of the clusters through their positive rows.
        negative: (G,) deviations of the clusters through their negative rows.
        clusters: Number of clusters with positive rows, and with negative rows.
    """

    value: float
    positive: Floats
    negative: Floats
    clusters: tuple[int, int]

    @property
    def contributions(self) -> Floats:
        """(G,) deviations; those of averages and differences of AUROCs add up likewise."""
        return self.positive + self.negative

    @property
    def variance(self) -> float:
        """Variance of the AUROC (DeLong; Obuchowski where clusters hold several rows)."""
        return squares(self.contributions)


def clustered_auroc(
    positive: npt.NDArray[np.bool_], scores: Floats, clusters: Ints, size: int | None = None
) -> ClusteredAuroc:
    """AUROC and the contributions of its clusters, in O(n log n).

    Args:
        positive: (n,) true for the positive rows; both kinds must be there.
        scores: (n,) larger means more likely positive.
        clusters: (n,) codes 0 to G - 1.
        size: G, where these rows are one fold and further clusters are in others.

    Raises:
        ValueError: All rows are positive, or all are negative.
    """
    m = int(positive.sum())
    n = len(positive) - m
    if not m or not n:
        raise ValueError(f"an AUROC needs rows of both kinds, got {m} positive and {n} negative")
    overall = rankdata(scores)
    above = (overall[positive] - rankdata(scores[positive])) / n
    below = 1 - (overall[~positive] - rankdata(scores[~positive])) / m
    value = float(above.mean())
    size = int(clusters.max()) + 1 if size is None else size
    sides, counts = [], []
    for rows, placements in ((positive, above), (~positive, below)):
        sums = np.bincount(clusters[rows], weights=placements - value, minlength=size)
        count = len(np.unique(clusters[rows]))
        # G / (G - 1) makes the variance unbiased; a single cluster has no spread to show
        unbiased = np.sqrt(count / (count - 1)) if count > 1 else 0.0
        sides.append(sums / rows.sum() * unbiased)
        counts.append(count)
    return ClusteredAuroc(value, sides[0], sides[1], (counts[0], counts[1]))


def mean_auroc(folds: Sequence[ClusteredAuroc], clusters: tuple[int, int]) -> ClusteredAuroc:
    """Mean of the AUROCs of several test folds, as one AUROC with one interval.

    A cluster's contribution is its mean over all folds, 0 where it is not: folds of one repeat hold
    different clusters, and what a cluster says in each repeat is taken together.

    Args:
        folds: AUROC of each fold of each repeat, contributions on common clusters.
        clusters: Number of different clusters with positive rows, and with negative rows.
    """
    sides = []
    for side, contributions in enumerate(
        zip(*((f.positive, f.negative) for f in folds), strict=True)
    ):
        # A fold with one cluster of a kind shows none of its spread: the others stand for it.
        shares = np.array([1 / fold.clusters[side] for fold in folds])
        seen = shares[shares < 1].sum()
        mean: Floats = np.mean(contributions, axis=0)
        sides.append(mean * np.sqrt(shares.sum() / seen) if seen else mean)
    value = float(np.mean([fold.value for fold in folds]))
    return ClusteredAuroc(value, sides[0], sides[1], clusters)


def auroc_interval(estimates: Sequence[ClusteredAuroc]) -> tuple[float, float, str]:
    """95 % interval of an AUROC, or of the mean of several on the same rows.

    On the logit scale, which stays within 0 and 1, with Satterthwaite's degrees of freedom and a
    variance steadied by a model. Where the rows show no spread (AUROC 0 or 1, or one cluster of a
    kind): :func:`newcombe_interval` on the numbers of clusters.

    Returns:
        Low, high and the method, ``delong`` or ``newcombe``.
    """
    value = float(np.mean([e.value for e in estimates]))
    variance = squares(np.mean([e.contributions for e in estimates], axis=0))
    fewest = [min(e.clusters[side] for e in estimates) for side in (0, 1)]
    if not 0 < value < 1 or variance <= 0 or min(fewest) < 2:
        return (*newcombe_interval(value, fewest[0], fewest[1]), "newcombe")
    raw = sum(squares(e.positive) + squares(e.negative) for e in estimates)
    steadied = [
        steadied_variance([e.positive, e.negative], [placement_variance(e)] * 2, e.clusters)
        for e in estimates
    ]
    variance *= sum(each for each, _ in steadied) / raw
    freedom = min(freedom for _, freedom in steadied)
    half = float(t.ppf(0.975, freedom) * np.sqrt(variance)) / (value * (1 - value))
    return float(expit(logit(value) - half)), float(expit(logit(value) + half)), "delong"


def newcombe_interval(value: float, positive: int, negative: int) -> tuple[float, float]:
    """95 % score interval of a Mann-Whitney AUROC from its sample sizes alone.

    All AUROCs whose Hanley-McNeil error, at that AUROC, reaches the one observed (method 5 of
    Newcombe 2006). Like Wilson's interval it has a length at 0 and 1, where DeLong's has none.
    """

    def excess(theta: float) -> float:
        half = (positive + negative) / 2 - 1
        spread = 1 + half * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return (value - theta) ** 2 - Z95**2 * theta * (1 - theta) / (positive * negative) * spread

    inside = min(max(value, 1e-9), 1 - 1e-9)  # at 0 and 1 the variance, and so a root, is there
    low = brentq(excess, 0, inside) if value > 0 else 0.0
    high = brentq(excess, inside, 1) if value < 1 else 1.0
    return float(low), float(high)


def squares(contributions: Floats) -> float:
    """Sum of squares: the variance, of contributions."""
    return float((contributions**2).sum())


def placement_variance(estimate: ClusteredAuroc) -> float:
    """Variance of a placement value at this AUROC (Hanley and McNeil 1982, mean of both sides)."""
    half_pair = 0.5 / (estimate.clusters[0] * estimate.clusters[1])  # none at 0 and 1 otherwise
    theta = min(max(estimate.value, half_pair), 1 - half_pair)
    return (theta / (2 - theta) + 2 * theta**2 / (1 + theta)) / 2 - theta**2


def steadied_variance(
    sides: Sequence[Floats], models: Sequence[float], clusters: Sequence[int]
) -> tuple[float, float]:
    """Variance of both sides, each with the model's worth of clusters, and Satterthwaite's df.

    Args:
        sides: Contributions of the clusters through their positive rows, and negative rows.
        models: Variance of a placement value on each side, by a model.
        clusters: Number of clusters on each side.
    """
    variances = [
        (squares(side) * count + PRIOR_CLUSTERS * model / count) / (count + PRIOR_CLUSTERS)
        for side, model, count in zip(sides, models, clusters, strict=True)
    ]
    below = sum(
        variance**2 / (count - 1 + PRIOR_CLUSTERS)
        for variance, count in zip(variances, clusters, strict=True)
    )
    return sum(variances), sum(variances) ** 2 / below
