"""Point metrics from probabilities, for many weightings of the rows at once.

Every function takes weights of shape (B, n) and returns (B,) values, NaN where the metric is not
defined. Ones give the metric of the rows, resampling counts give its bootstrap distribution, so
both come from the same code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CALIBRATION_BINS = 10
LOWER_IS_BETTER = frozenset({"brier", "ece"})
_BINARY = (
    "auroc",
    "auprc",
    "auprc_negative",
    "sensitivity",
    "specificity",
    "ppv",
    "npv",
    "accuracy",
    "balanced_accuracy",
    "f1",
    "macro_f1",
    "mcc",
    "brier",
    "ece",
)
_MULTICLASS = (
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "mcc",
    "quadratic_kappa",
    "brier",
)


@dataclass(frozen=True)
class Estimate:
    """A metric on some rows.

    Attributes:
        value: The metric; None where it is not defined.
        low: Lower end of the 95 % interval; None where there is none.
        high: Upper end.
        method: How the interval was made: ``delong``, ``newcombe``, ``wilson``, ``bootstrap``,
            ``pseudo-rows`` or ``constant``.
        n: Rows the metric rests on.
        reason: Why there is no value or no interval, or what qualifies it.
    """

    value: float | None
    n: int
    low: float | None = None
    high: float | None = None
    method: str | None = None
    reason: str | None = None


def metric_names(classes: Sequence[str]) -> tuple[str, ...]:
    """Names of the metrics of a task, in the order of a report."""
    if len(classes) == 2:
        return _BINARY
    return (
        "macro_auroc",
        "low_bmd_auroc",
        *(f"auroc_{name}" for name in classes),
        *_MULTICLASS,
    )


def metric_bounds(name: str, classes: int) -> tuple[float, float]:
    """Smallest and largest value that a metric can take."""
    if name in ("mcc", "quadratic_kappa"):
        return -1.0, 1.0
    return 0.0, 2.0 if name == "brier" and classes > 2 else 1.0


def decide(probabilities: Floats) -> Ints:
    """Class codes (n,) called from (n, C) probabilities: 0.5 if binary, else the largest."""
    if probabilities.shape[1] == 2:
        return (probabilities[:, 1] >= 0.5).astype(np.int64)
    return np.asarray(probabilities.argmax(axis=1), dtype=np.int64)


def auroc_targets(
    labels: Ints, probabilities: Floats, name: str, classes: Sequence[str]
) -> tuple[npt.NDArray[np.bool_], Floats]:
    """Positive rows (n,) and scores (n,) behind an AUROC, except for the macro average.

    Raises:
        ValueError: ``name`` is not the AUROC of two sides.
    """
    if name in ("auroc", "low_bmd_auroc"):
        return labels > 0, probabilities[:, 1:].sum(axis=1)
    codes = {f"auroc_{label}": code for code, label in enumerate(classes)}
    if name not in codes:
        raise ValueError(f"{name!r} is not an AUROC of one class against the rest")
    return labels == codes[name], probabilities[:, codes[name]]


def auroc(positive: npt.NDArray[np.bool_], scores: Floats) -> float:
    """Area under the ROC curve as the Mann-Whitney statistic, ties one half; NaN if one-sided."""
    m = int(positive.sum())
    n = len(positive) - m
    if not m or not n:
        return float("nan")
    return float((rankdata(scores)[positive].sum() - m * (m + 1) / 2) / (m * n))


def confusion_matrices(labels: Ints, decisions: Ints, classes: int, weights: Floats) -> Floats:
    """Weighted counts (B, C, C) of true class (rows) against called class (columns)."""
    cells = np.zeros((len(labels), classes * classes))
    cells[np.arange(len(labels)), labels * classes + decisions] = 1
    return (weights @ cells).reshape(-1, classes, classes)


def average_precision(positive: npt.NDArray[np.bool_], scores: Floats, weights: Floats) -> Floats:
    """Area under the precision-recall curve by the step rule, ties taken as one threshold."""
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    ordered = weights[:, order]
    called = np.cumsum(ordered, axis=1)[:, ends]
    found = np.cumsum(ordered * positive[order], axis=1)[:, ends]
    precision = _divide(found, called, empty=0.0)
    return _divide((np.diff(found, axis=1, prepend=0) * precision).sum(axis=1), found[:, -1])


def calibration_gaps(labels: Ints, probabilities: Floats) -> Floats:
    """Observed less predicted positive of each row, in the column of its bin: (n, 10)."""
    scores = probabilities[:, 1]
    bins = np.minimum((scores * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps: Floats = np.eye(CALIBRATION_BINS)[bins] * (labels - scores)[:, None]
    return gaps


def metric_values(labels: Ints, probabilities: Floats, weights: Floats) -> dict[str, Floats]:
    """All metrics but the AUROCs for each of B weightings.

    Args:
        labels: (n,) class codes.
        probabilities: (n, C) probabilities.
        weights: (B, n) weights of the rows, such as ones or resampling counts.

    Returns:
        Metric name to (B,) values; NaN where a class that the metric needs has no weight.
    """
    classes = probabilities.shape[1]
    counts = confusion_matrices(labels, decide(probabilities), classes, weights)
    values = _from_confusion(counts)
    total = weights.sum(axis=1)
    errors = probabilities - np.eye(classes)[labels]
    if classes > 2:
        values["brier"] = _divide(weights @ (errors**2).sum(axis=1), total)
        return values
    values["brier"] = _divide(weights @ errors[:, 1] ** 2, total)
    values["auprc"] = average_precision(labels == 1, probabilities[:, 1], weights)
    values["auprc_negative"] = average_precision(labels == 0, probabilities[:, 0], weights)
    gaps = weights @ calibration_gaps(labels, probabilities)
    values["ece"] = _divide(np.abs(gaps).sum(axis=1), total)
    return values


def point_metrics(
    labels: Ints, probabilities: Floats, classes: Sequence[str]
) -> dict[str, Estimate]:
    """Every metric of the task on the rows at hand.

    Binary decisions at 0.5, otherwise the most probable class. Macro averages and balanced
    accuracy need a row of every class. MCC is 0 by convention where one class is called
    throughout. ECE has ten bins of equal width (Naeini et al. 2015). The Brier score of more than
    two classes is the sum over classes, between 0 and 2 (Brier 1950).

    Args:
        labels: (n,) class codes.
        probabilities: (n, C) probabilities.
        classes: C class names in order.

    Returns:
        Metric name to estimate without interval, in report order; value None with a reason where
        not defined.
    """
    decisions = decide(probabilities)
    values = {
        name: float(value[0])
        for name, value in metric_values(labels, probabilities, np.ones((1, len(labels)))).items()
    }
    areas = [f"auroc_{name}" for name in classes] if len(classes) > 2 else ["auroc"]
    for name in [*areas, *(["low_bmd_auroc"] if len(classes) > 2 else [])]:
        values[name] = auroc(*auroc_targets(labels, probabilities, name, classes))
    values["macro_auroc"] = float(np.mean([values[name] for name in areas]))

    absent = [name for code, name in enumerate(classes) if not (labels == code).any()]
    points = {}
    for name in metric_names(classes):
        n = metric_rows(name, labels, decisions)
        if np.isnan(values[name]):
            called = {"ppv": classes[-1], "npv": classes[0]}.get(name)
            reason = f"no row is called {called}" if called else f"no row is {' or '.join(absent)}"
            points[name] = Estimate(None, n, reason=reason)
        elif name == "mcc" and len(np.unique(decisions)) == 1:
            reason = f"every row is called {classes[decisions[0]]}: 0 by convention"
            points[name] = Estimate(0.0, n, reason=reason)
        else:
            points[name] = Estimate(values[name], n)
    return points


def metric_rows(name: str, labels: Ints, decisions: Ints) -> int:
    """Number of rows a metric rests on: the denominator of a proportion, else all rows."""
    chosen = proportion_rows(name, labels, decisions)
    return len(labels) if chosen is None else int(chosen[0].sum())


def proportion_rows(
    name: str, labels: Ints, decisions: Ints
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]] | None:
    """Rows (n,) in the denominator and successes (n,) of a proportion; None for other metrics."""
    right = labels == decisions
    denominators = {
        "sensitivity": labels == 1,
        "specificity": labels == 0,
        "ppv": decisions == 1,
        "npv": decisions == 0,
        "accuracy": np.ones(len(labels), dtype=bool),
    }
    return (denominators[name], right) if name in denominators else None


def _from_confusion(counts: Floats) -> dict[str, Floats]:
    classes = counts.shape[-1]
    total = counts.sum(axis=(1, 2))
    true, called = counts.sum(axis=2), counts.sum(axis=1)
    hits = np.diagonal(counts, axis1=1, axis2=2)
    recall = _divide(hits, true)
    f1 = np.where(true > 0, _divide(2 * hits, true + called), np.nan)
    varied = (total**2 - (true**2).sum(axis=1)) * (total**2 - (called**2).sum(axis=1))
    mcc = _divide(hits.sum(axis=1) * total - (true * called).sum(axis=1), np.sqrt(varied), 0.0)
    values = {
        "accuracy": _divide(hits.sum(axis=1), total),
        "balanced_accuracy": recall.mean(axis=1),
        "macro_f1": f1.mean(axis=1),
        "mcc": np.where((true > 0).sum(axis=1) > 1, mcc, np.nan),
    }
    if classes == 2:
        precision = _divide(hits, called)
        return values | {
            "sensitivity": recall[:, 1],
            "specificity": recall[:, 0],
            "ppv": precision[:, 1],
            "npv": precision[:, 0],
            "f1": f1[:, 1],
        }
    distance = np.subtract.outer(np.arange(classes), np.arange(classes)) ** 2
    observed = (counts * distance).sum(axis=(1, 2))
    expected = np.einsum("bi,bj,ij->b", true, called, distance) / total
    return values | {"quadratic_kappa": 1 - _divide(observed, expected)}


def _divide(above: Floats, below: Floats, empty: float = np.nan) -> Floats:
    values = np.full(np.shape(above), empty)
    np.divide(above, below, out=values, where=below > 0)
    return values
