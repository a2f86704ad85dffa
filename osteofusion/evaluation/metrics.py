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
    "calibration_intercept",
    "calibration_slope",
    "ece",
)
_LOW_BMD = ("sensitivity", "specificity", "ppv", "npv")  # of low BMD, read from three classes
_MULTICLASS = (
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "mcc",
    "quadratic_kappa",
    *(f"low_bmd_{name}" for name in _LOW_BMD),
    "brier",
    "calibration_intercept",
    "calibration_slope",
    "ece",
)


@dataclass(frozen=True)
class Estimate:
    """A metric on some rows.

    Attributes:
        value: The metric; None where it is not defined.
        low: Lower end of the 95 % interval; None where there is none.
        high: Upper end.
        method: How the interval was made: ``delong``, ``newcombe``, ``wilson``, ``bootstrap``,
            ``pseudo-rows``, ``sandwich``, ``mover`` or ``constant``.
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
        *(f"auprc_{name}" for name in classes),
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


def low_bmd_reading(labels: Ints, probabilities: Floats) -> tuple[Ints, Floats]:
    """Labels (n,) and probabilities (n, 2) of the first class against all others together.

    A binary task is its own reading. Of three classes it is low BMD, called from 0.5 of the summed
    probability, whichever single class is the most probable.
    """
    if probabilities.shape[1] == 2:
        return labels, probabilities
    low = probabilities[:, 1:].sum(axis=1)
    return (labels > 0).astype(np.int64), np.column_stack([probabilities[:, 0], low])


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
    """Observed less predicted low BMD of each row, in the column of its bin: (n, 10)."""
    labels, probabilities = low_bmd_reading(labels, probabilities)
    scores = probabilities[:, 1]
    bins = np.minimum((scores * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps: Floats = np.eye(CALIBRATION_BINS)[bins] * (labels - scores)[:, None]
    return gaps


def metric_values(labels: Ints, probabilities: Floats, weights: Floats) -> dict[str, Floats]:
    """All metrics but the AUROCs and the calibration line for each of B weightings.

    Areas under precision-recall curves are ``auprc_0`` and so on by class code.

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
    gaps = weights @ calibration_gaps(labels, probabilities)
    values["ece"] = _divide(np.abs(gaps).sum(axis=1), total)
    if classes == 2:
        values["brier"] = _divide(weights @ errors[:, 1] ** 2, total)
        values["auprc"] = average_precision(labels == 1, probabilities[:, 1], weights)
        values["auprc_negative"] = average_precision(labels == 0, probabilities[:, 0], weights)
        return values
    values["brier"] = _divide(weights @ (errors**2).sum(axis=1), total)
    for code in range(classes):
        values[f"auprc_{code}"] = average_precision(labels == code, probabilities[:, code], weights)
    low, p = low_bmd_reading(labels, probabilities)
    read = _from_confusion(confusion_matrices(low, decide(p), 2, weights))
    return values | {f"low_bmd_{name}": read[name] for name in _LOW_BMD}


def value_name(name: str, classes: Sequence[str]) -> str:
    """Name of a metric among :func:`metric_values`, which know classes by their codes."""
    return {f"auprc_{label}": f"auprc_{code}" for code, label in enumerate(classes)}.get(name, name)


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
