"""From a predictions table to metrics with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import classification_report

from osteofusion.evaluation.areas import Area, areas_of
from osteofusion.evaluation.class_scores import ClassScores, class_scores
from osteofusion.evaluation.differences import Compared, Difference, paired_differences
from osteofusion.evaluation.intervals import (
    ClusterBootstrap,
    balanced_accuracy_interval,
    wilson_interval,
)
from osteofusion.evaluation.metrics import (
    Estimate,
    Ints,
    confusion_matrices,
    decide,
    low_bmd_reading,
    value_name,
)
from osteofusion.evaluation.notes import averaging_notes, fold_notes, size_notes
from osteofusion.evaluation.points import point_metrics, proportion_rows
from osteofusion.evaluation.predictions import TestRows, read_rows
from osteofusion.evaluation.recalibration import intercept_interval, slope_interval

# Whatever the share of the classes, one call for all rows gives 1 / C, 0 and 0.
_FIXED_BY_ONE_CALL = frozenset({"balanced_accuracy", "mcc", "quadratic_kappa"})


@dataclass(frozen=True)
class ArmEvaluation:
    """What one arm reached.

    Attributes:
        metrics: Metric name to estimate, in report order.
        confusion: Counts [true class][called class].
        report: scikit-learn's classification report: class, ``macro avg`` and ``weighted avg`` to
            ``precision``, ``recall``, ``f1-score`` and ``support``, and ``accuracy``; None where a
            class is not called or not there.
        degenerate_resamples: Bootstrap resamples without a row of some class; metrics that need
            the class leave them out.
        by_class: Class to its precision, recall, F1 and support, with intervals.
    """

    metrics: dict[str, Estimate]
    confusion: list[list[int]]
    report: dict[str, Any]
    degenerate_resamples: int
    by_class: dict[str, ClassScores] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """All arms of a predictions table on the same rows.

    Attributes:
        split: Split that the rows belong to.
        classes: Class names in order.
        class_counts: Class name to number of rows.
        n_rows: Number of radiographs.
        n_groups: Number of split groups, the unit of every interval.
        n_folds: Number of test folds over all repeats; 1 for a single split.
        arms: Arm name to its evaluation, in the order of the table.
        differences: Paired differences of the headline metrics.
        resamples: Bootstrap resamples.
        seed: Seed of the resamples.
        notes: What a reader should know before comparing arms.
    """

    split: str
    classes: list[str]
    class_counts: dict[str, int]
    n_rows: int
    n_groups: int
    n_folds: int
    arms: dict[str, ArmEvaluation]
    differences: list[Difference]
    resamples: int
    seed: int
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists, numbers and strings, ready for JSON."""
        return asdict(self)


def evaluate(
    predictions: pd.DataFrame,
    classes: Sequence[str],
    *,
    resamples: int = 2000,
    seed: int = 0,
    notes: Sequence[str] = (),
    compare: Sequence[tuple[str, str]] | None = None,
) -> Evaluation:
    """Evaluate every arm of a predictions table, each metric with a 95 % interval over groups.

    A single split, or all test folds of a cross-validation. Seeds are averaged for each radiograph
    and fold. AUROCs: within each fold, then averaged; clustered DeLong, logit scale. All else:
    probabilities averaged over repeats, folds pooled; proportions and balanced accuracy: Wilson on
    the effective number of rows; calibration intercept and slope: sandwich variance; the rest:
    bootstrap over groups, the same resamples for all arms. The intervals are those of the models at
    hand: they do not hold what other training rows would change.

    Args:
        predictions: One row a radiograph, arm, repeat, fold and seed, columns as in
            :func:`osteofusion.evaluation.predictions.read_rows`.
        classes: Class names in order; the last one is the positive class of a binary task.
        resamples: Bootstrap resamples.
        seed: Seed of the resamples.
        notes: Sentences of the caller, put before those found here.
        compare: (first, second) arms whose difference to report; None compares the first arm of the
            table with every other.

    Raises:
        EvaluationError: The table does not hold the same labelled rows of one split for each arm,
            or an arm to compare is not there.
    """
    rows = read_rows(predictions, classes)
    arms, compared = {}, {}
    for arm in rows.probabilities:
        arms[arm], compared[arm] = _evaluate_arm(rows, arm, classes, resamples, seed)
    counts = np.bincount(rows.labels, minlength=len(classes))
    class_counts = {name: int(count) for name, count in zip(classes, counts, strict=True)}
    groups, folds = int(rows.groups.max()) + 1, len(rows.folds)
    return Evaluation(
        split=rows.split,
        classes=list(classes),
        class_counts=class_counts,
        n_rows=len(rows.labels),
        n_groups=groups,
        n_folds=folds,
        arms=arms,
        differences=paired_differences(compared, compare, classes, groups, several=folds > 1),
        resamples=resamples,
        seed=seed,
        notes=[
            *notes,
            *averaging_notes(rows),
            *fold_notes(rows, classes),
            *size_notes(class_counts, {arm: found.metrics for arm, found in arms.items()}),
        ],
    )


def _evaluate_arm(
    rows: TestRows, arm: str, classes: Sequence[str], resamples: int, seed: int
) -> tuple[ArmEvaluation, Compared]:
    labels, probabilities, groups = rows.labels, rows.probabilities[arm], rows.groups
    decisions = decide(probabilities)
    bootstrap = ClusterBootstrap(labels, probabilities, groups, resamples=resamples, seed=seed)
    areas = areas_of(rows, arm, classes)
    metrics = {}
    for name, point in point_metrics(labels, probabilities, classes).items():
        if "auroc" in name:
            metrics[name] = _auroc(point, areas.get(name))
        elif point.value is None:
            metrics[name] = point
        elif name.startswith("calibration"):
            metrics[name] = _calibration(name, point, rows, arm)
        elif (chosen := proportion_rows(name, labels, probabilities)) is not None:
            low, high = wilson_interval(*chosen, groups)
            metrics[name] = replace(point, low=low, high=high, method="wilson")
        elif name in _FIXED_BY_ONE_CALL and len(np.unique(decisions)) == 1:
            metrics[name] = _constant(point, f"every row is called {classes[decisions[0]]}")
        elif name == "balanced_accuracy":
            low, high = balanced_accuracy_interval(labels, decisions, groups)
            metrics[name] = replace(point, low=low, high=high, method="wilson")
        else:
            metrics[name] = bootstrap.interval(value_name(name, classes), point)
    counts = confusion_matrices(labels, decisions, len(classes), np.ones((1, len(labels))))[0]
    evaluated = ArmEvaluation(
        metrics,
        counts.astype(int).tolist(),
        _report(labels, decisions, classes),
        bootstrap.degenerate,
        class_scores(labels, decisions, groups, classes),
    )
    return evaluated, Compared(metrics, areas, bootstrap.values, probabilities)


def _auroc(point: Estimate, area: Area | None) -> Estimate:
    if area is not None:
        return area.estimate()
    if point.value is None:
        return point
    return Estimate(None, 0, reason="no test fold has rows of every class that it needs")


def _calibration(name: str, point: Estimate, rows: TestRows, arm: str) -> Estimate:
    low, p = low_bmd_reading(rows.labels, rows.probabilities[arm])
    positive, scores = low == 1, p[:, 1]
    if len(np.unique(rows.groups)) < 3:
        return replace(point, reason="no interval: there are fewer than three split groups")
    if name == "calibration_intercept":
        ends = intercept_interval(positive, scores, rows.groups)
    else:
        ends = slope_interval(positive, scores, rows.groups)
    if ends[0] == ends[1]:
        return replace(point, reason="no interval: the split groups show no spread")
    return replace(point, low=ends[0], high=ends[1], method="sandwich")


def _report(labels: Ints, decisions: Ints, classes: Sequence[str]) -> dict[str, Any]:
    report = classification_report(
        labels,
        decisions,
        labels=range(len(classes)),
        target_names=list(classes),
        output_dict=True,
        zero_division=np.nan,
    )
    return {
        name: {key: _plain(value) for key, value in line.items()}
        if isinstance(line, dict)
        else _plain(line)
        for name, line in report.items()
    }


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _constant(point: Estimate, reason: str) -> Estimate:
    return replace(point, low=point.value, high=point.value, method="constant", reason=reason)
