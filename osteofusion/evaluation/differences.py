"""Paired differences between arms on the same rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from osteofusion.errors import EvaluationError
from osteofusion.evaluation.areas import Area
from osteofusion.evaluation.metrics import Estimate, Floats, metric_bounds, value_name
from osteofusion.evaluation.paired_auroc import (
    IDENTICAL,
    mean_auroc_difference,
    mover,
    p_of_interval,
)

COMPARED = (
    "auroc",
    "macro_auroc",
    "low_bmd_auroc",
    "auprc_negative",
    "sensitivity",
    "specificity",
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "mcc",
    "quadratic_kappa",
    "brier",
)
ONE_SPLIT = "no p value from a single split: another split is another draw"
# Few clusters say too much of how two arms go together: their correlation is drawn to 0 as if so
# many more had shown none.
_PRIOR_CLUSTERS = 5


@dataclass(frozen=True)
class Compared:
    """What a comparison needs of an arm.

    Attributes:
        metrics: Metric name to estimate.
        areas: AUROC name to area.
        resampled: Metric name to (B,) values on resamples that are the same for all arms.
        probabilities: (n, C).
    """

    metrics: Mapping[str, Estimate]
    areas: Mapping[str, Area]
    resampled: Mapping[str, Floats]
    probabilities: Floats


@dataclass(frozen=True)
class Difference:
    """One arm less another on the same rows.

    Attributes:
        first: Name of an arm.
        second: Name of the arm taken from it.
        metric: Name of the metric.
        estimate: The difference with its 95 % interval.
        p: Two-sided p value of no difference; None from a single split.
        p_adjusted: The same adjusted for the number of pairs (Holm 1979), metric by metric.
    """

    first: str
    second: str
    metric: str
    estimate: Estimate
    p: float | None
    p_adjusted: float | None


def paired_differences(
    arms: Mapping[str, Compared],
    pairs: Sequence[tuple[str, str]] | None,
    classes: Sequence[str],
    clusters: int,
    *,
    several: bool,
) -> list[Difference]:
    """Differences of the headline metrics, pair by pair.

    AUROCs: DeLong on the contributions of both arms. The others: the arms' own intervals put
    together with their correlation over common resamples (MOVER; Newcombe 1998, Zou 2008), which
    keeps what a Wilson or logit interval knows of the ends of the range.

    Args:
        arms: The arms, in order.
        pairs: (first, second) names; None compares the first arm with every other.
        classes: Class names.
        clusters: Number of split groups.
        several: Whether the rows come from several test folds, so that a p value means something.

    Raises:
        EvaluationError: A pair names an arm that is not there.
    """
    names = list(arms)
    pairs = [(names[0], other) for other in names[1:]] if pairs is None else pairs
    for name in [name for pair in pairs for name in pair]:
        if name not in arms:
            raise EvaluationError(
                f"arm {name!r} cannot be compared: the predictions table has the arms "
                f"{', '.join(names)}"
            )
    found = [
        _difference(first, second, metric, arms, classes, clusters, several)
        for first, second in pairs
        for metric in COMPARED
        if metric in arms[first].metrics
    ]
    adjusted = _adjust(found)
    return [replace(each, p_adjusted=p) for each, p in zip(found, adjusted, strict=True)]


def holm(p_values: Sequence[float]) -> list[float]:
    """P values adjusted so that the chance of any false finding is kept (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(p) for p in adjusted]


def _adjust(found: Sequence[Difference]) -> list[float | None]:
    adjusted: list[float | None] = [None] * len(found)
    for metric in COMPARED:
        tested = [(i, d.p) for i, d in enumerate(found) if d.metric == metric and d.p is not None]
        for (place, _), p in zip(tested, holm([p for _, p in tested]), strict=True):
            adjusted[place] = p
    return adjusted


def _difference(
    first: str,
    second: str,
    metric: str,
    arms: Mapping[str, Compared],
    classes: Sequence[str],
    clusters: int,
    several: bool,
) -> Difference:
    one, two = arms[first], arms[second]
    n = one.metrics[metric].n
    p: float | None
    if np.array_equal(one.probabilities, two.probabilities) and metric not in one.areas:
        estimate, p = _same(one.metrics[metric], "the two arms have the same probabilities")
    elif metric not in one.areas:
        estimate, p = _by_mover(metric, one, two, classes, clusters)
    elif all(map(np.array_equal, one.areas[metric].ranks, two.areas[metric].ranks)):
        estimate, p = Estimate(0.0, n, 0.0, 0.0, "constant", IDENTICAL), 1.0
    else:
        estimate, p = mean_auroc_difference(one.areas[metric].means, two.areas[metric].means, n)
    if not several and estimate.value is not None:
        reason = "; ".join(filter(None, (estimate.reason, ONE_SPLIT)))
        estimate, p = replace(estimate, reason=reason), None
    return Difference(first, second, metric, estimate, p, None)


def _same(estimate: Estimate, reason: str) -> tuple[Estimate, float | None]:
    if estimate.value is None:
        return estimate, None
    return Estimate(0.0, estimate.n, 0.0, 0.0, "constant", reason), 1.0


def _by_mover(
    metric: str, one: Compared, two: Compared, classes: Sequence[str], clusters: int
) -> tuple[Estimate, float | None]:
    a, b = one.metrics[metric], two.metrics[metric]
    if a.value is None or b.value is None:
        return Estimate(None, a.n, reason=a.reason if a.value is None else b.reason), None
    value = a.value - b.value
    if a.low is None or a.high is None or b.low is None or b.high is None:
        reason = a.reason if a.low is None else b.reason
        return Estimate(value, a.n, reason=reason), None
    key = value_name(metric, classes)
    together = _correlation(one.resampled[key], two.resampled[key])
    ends = mover(
        (a.value, a.low, a.high),
        (b.value, b.low, b.high),
        together * clusters / (clusters + _PRIOR_CLUSTERS),
    )
    low, high = metric_bounds(metric, len(classes))
    span = high - low
    found = Estimate(value, a.n, max(ends[0], -span), min(ends[1], span), "mover")
    return found, p_of_interval(value, *ends)


def _correlation(first: Floats, second: Floats) -> float:
    """Correlation of the resamples in which both are defined; 0 where one does not vary."""
    both = ~np.isnan(first) & ~np.isnan(second)
    first, second = first[both], second[both]
    if len(first) < 2 or min(np.ptp(first), np.ptp(second)) < 1e-12:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])
