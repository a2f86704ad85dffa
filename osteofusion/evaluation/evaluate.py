"""From a predictions table to metrics with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from osteofusion.evaluation.auroc import auroc_interval, clustered_auroc
from osteofusion.evaluation.intervals import (
    ClusterBootstrap,
    balanced_accuracy_interval,
    wilson_interval,
)
from osteofusion.evaluation.metrics import (
    Estimate,
    Floats,
    Ints,
    auroc_targets,
    confusion_matrices,
    decide,
    point_metrics,
    proportion_rows,
)
from osteofusion.evaluation.predictions import read_rows

FEW_ROWS = 10
# Whatever the share of the classes, one call for all rows gives 1 / C, 0 and 0.
_FIXED_BY_ONE_CALL = frozenset({"balanced_accuracy", "mcc", "quadratic_kappa"})


@dataclass(frozen=True)
class ArmEvaluation:
    """What one arm reached.

    Attributes:
        metrics: Metric name to estimate, in report order.
        confusion: Counts [true class][called class].
        degenerate_resamples: Bootstrap resamples without a row of some class; metrics that need
            the class leave them out.
    """

    metrics: dict[str, Estimate]
    confusion: list[list[int]]
    degenerate_resamples: int


@dataclass(frozen=True)
class Evaluation:
    """All arms of a predictions table on the same rows.

    Attributes:
        split: Split that the rows belong to.
        classes: Class names in order.
        class_counts: Class name to number of rows.
        n_rows: Number of radiographs.
        n_groups: Number of split groups, the unit of every interval.
        arms: Arm name to its evaluation, in the order of the table.
        resamples: Bootstrap resamples.
        seed: Seed of the resamples.
        notes: What a reader should know before comparing arms.
    """

    split: str
    classes: list[str]
    class_counts: dict[str, int]
    n_rows: int
    n_groups: int
    arms: dict[str, ArmEvaluation]
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
) -> Evaluation:
    """Evaluate every arm of a predictions table, each metric with a 95 % interval over groups.

    AUROCs: clustered DeLong on the logit scale; proportions and balanced accuracy: Wilson on the
    effective number of rows; the rest: bootstrap over groups, the same resamples for all arms.

    Args:
        predictions: One row a radiograph and arm of one split, columns as in
            :func:`osteofusion.evaluation.predictions.read_rows`.
        classes: Class names in order; the last one is the positive class of a binary task.
        resamples: Bootstrap resamples.
        seed: Seed of the resamples.
        notes: Sentences of the caller, put before those found here.

    Raises:
        EvaluationError: The table does not hold the same labelled rows of one split for each arm.
    """
    rows = read_rows(predictions, classes)
    arms = {
        arm: _evaluate_arm(rows.labels, values, rows.groups, classes, resamples, seed)
        for arm, values in rows.probabilities.items()
    }
    counts = np.bincount(rows.labels, minlength=len(classes))
    class_counts = {name: int(count) for name, count in zip(classes, counts, strict=True)}
    return Evaluation(
        split=rows.split,
        classes=list(classes),
        class_counts=class_counts,
        n_rows=len(rows.labels),
        n_groups=int(rows.groups.max()) + 1,
        arms=arms,
        resamples=resamples,
        seed=seed,
        notes=[*notes, *_size_notes(class_counts, arms)],
    )


def _evaluate_arm(
    labels: Ints,
    probabilities: Floats,
    groups: Ints,
    classes: Sequence[str],
    resamples: int,
    seed: int,
) -> ArmEvaluation:
    decisions = decide(probabilities)
    bootstrap = ClusterBootstrap(labels, probabilities, groups, resamples=resamples, seed=seed)
    metrics = {}
    for name, point in point_metrics(labels, probabilities, classes).items():
        if point.value is None:
            metrics[name] = point
        elif "auroc" in name:
            metrics[name] = _auroc(name, point, labels, probabilities, groups, classes)
        elif (chosen := proportion_rows(name, labels, decisions)) is not None:
            low, high = wilson_interval(*chosen, groups)
            metrics[name] = replace(point, low=low, high=high, method="wilson")
        elif name in _FIXED_BY_ONE_CALL and len(np.unique(decisions)) == 1:
            metrics[name] = _constant(point, f"every row is called {classes[decisions[0]]}")
        elif name == "balanced_accuracy":
            low, high = balanced_accuracy_interval(labels, decisions, groups)
            metrics[name] = replace(point, low=low, high=high, method="wilson")
        else:
            metrics[name] = bootstrap.interval(name, point)
    counts = confusion_matrices(labels, decisions, len(classes), np.ones((1, len(labels))))[0]
    return ArmEvaluation(metrics, counts.astype(int).tolist(), bootstrap.degenerate)


def _auroc(
    name: str,
    point: Estimate,
    labels: Ints,
    probabilities: Floats,
    groups: Ints,
    classes: Sequence[str],
) -> Estimate:
    names = [f"auroc_{label}" for label in classes] if name == "macro_auroc" else [name]
    targets = [auroc_targets(labels, probabilities, each, classes) for each in names]
    if all(np.ptp(scores) == 0 for _, scores in targets):
        return _constant(point, "every row has the same probability")
    areas = [clustered_auroc(positive, scores, groups) for positive, scores in targets]
    low, high, method = auroc_interval(areas)
    return replace(point, low=low, high=high, method=method)


def _constant(point: Estimate, reason: str) -> Estimate:
    return replace(point, low=point.value, high=point.value, method="constant", reason=reason)


def _size_notes(class_counts: dict[str, int], arms: dict[str, ArmEvaluation]) -> list[str]:
    few = [f"{count} {name}" for name, count in class_counts.items() if count < FEW_ROWS]
    if not few:
        return []
    arm, evaluated = next(iter(arms.items()))
    metric, estimate = next(iter(evaluated.metrics.items()))
    said = f"Only {' and '.join(few)} radiographs on this side"
    if estimate.low is None or estimate.high is None:
        return [f"{said}: no arm can be told from another ({estimate.reason})."]
    return [
        f"{said}: the {metric.replace('_', ' ').replace('auroc', 'AUROC')} of {arm} is known to "
        f"lie between {estimate.low:.2f} and {estimate.high:.2f} only, a width of "
        f"{estimate.high - estimate.low:.2f}; smaller differences between arms say little."
    ]
