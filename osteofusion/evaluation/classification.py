"""Results as published reports of classifiers lay them out, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from osteofusion.errors import EvaluationError
from osteofusion.evaluation.evaluate import Evaluation, evaluate
from osteofusion.evaluation.intervals import balanced_accuracy_interval, wilson_interval
from osteofusion.evaluation.metrics import Estimate, Ints, decide
from osteofusion.evaluation.predictions import read_rows

_Interval = tuple[float, float, float]


@dataclass(frozen=True)
class AccuracyGap:
    """Accuracy on the training side less that on the test side, with its 95 % interval."""

    train: float
    test: float
    gap: float
    low: float
    high: float

    @property
    def estimate(self) -> Estimate:
        """The gap as other metrics are given."""
        return Estimate(self.gap, 0, self.low, self.high, "newcombe")


def classification_table(
    predictions: pd.DataFrame, classes: Sequence[str], arm: str
) -> pd.DataFrame:
    """Precision, recall, F1 and support of each class, then accuracy and AUROC, each with interval.

    In brackets stand 95 % intervals over split groups, as
    :func:`osteofusion.evaluation.class_scores.class_scores` and :func:`evaluate` have them.

    Args:
        predictions: Of one split, as for :func:`osteofusion.evaluation.evaluate`.
        classes: Class names in order.
        arm: The arm to show.

    Returns:
        Text; one row a class, then ``accuracy`` and ``AUROC`` (macro average of three classes),
        which have values of their own in the column `F1` as scikit-learn's report has.

    Raises:
        EvaluationError: The table is wrong, or has no such arm.
    """
    own = predictions[predictions["arm"] == arm]
    if own.empty:
        raise _no_arm(predictions, arm)
    # None of what is shown has a bootstrap interval, so there need not be many resamples.
    evaluation = evaluate(own, classes, resamples=100)
    found = evaluation.arms[arm]
    rows = {
        name: [*map(in_brackets, (each.precision, each.recall, each.f1)), str(each.support)]
        for name, each in found.by_class.items()
    }
    for name, metric in (
        ("accuracy", "accuracy"),
        ("AUROC", "auroc" if len(classes) == 2 else "macro_auroc"),
    ):
        rows[name] = ["", "", in_brackets(found.metrics[metric]), str(evaluation.n_rows)]
    return pd.DataFrame.from_dict(
        rows, orient="index", columns=["precision", "recall", "F1", "support"]
    ).rename_axis("class")


def summary_table(
    evaluation: Evaluation,
    predictions: pd.DataFrame,
    gaps: pd.DataFrame | None = None,
    *,
    arms: Sequence[str] | None = None,
) -> pd.DataFrame:
    """One row an arm: accuracy, precision, recall, F1, ROC-AUC and what accuracy is lost.

    Precision, recall and F1 are those of the positive class of two, and the macro averages of
    three, of which a class that is never called leaves no precision.

    Args:
        evaluation: Of the predictions.
        predictions: The test rows that were evaluated.
        gaps: As :func:`accuracy_gap` returns them; arms without a training side have none.
        arms: Arms to show; default: all.

    Returns:
        Text with 95 % intervals, as :func:`classification_table`.
    """
    classes = evaluation.classes
    two = len(classes) == 2
    names = (
        ("accuracy", "ppv", "sensitivity", "f1", "auroc")
        if two
        else ("accuracy", "precision", "balanced_accuracy", "macro_f1", "macro_auroc")
    )
    rows = {}
    for arm in arms if arms is not None else evaluation.arms:
        metrics = dict(evaluation.arms[arm].metrics)
        if not two:
            metrics["precision"] = _macro_precision(*_calls(predictions, classes, arm))
        rows[arm] = [in_brackets(metrics[name]) for name in names]
        if gaps is not None:
            there = arm in gaps.index
            rows[arm].append(
                in_brackets(AccuracyGap(**gaps.loc[arm]).estimate, sign="+") if there else ""
            )
    head = ["accuracy", "precision", "recall", "F1", "ROC-AUC", "train - test"]
    columns = head if gaps is not None else head[:-1]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("arm")


def accuracy_gap(predictions: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Accuracy on the training side less that on the test side, for each arm that has both.

    A large gap is what a model has learnt by heart. Of several folds it is that of single
    trainings: each is asked about its own rows of either side, and the rows are pooled. The 95 %
    interval is that of two independent proportions (method 10 of Newcombe 1998, on Wilson's
    intervals over split groups); over folds the same groups stand on both sides, which makes it
    rather too wide.

    Args:
        predictions: Rows of the sides ``train`` and ``test``, as `predictions.csv` holds them.
        classes: Class names in order.

    Returns:
        One row an arm: ``train``, ``test``, ``gap``, ``low`` and ``high``.

    Raises:
        EvaluationError: The table is wrong, or has no training or no test rows.
    """
    sides = {side: predictions[predictions["split"] == side] for side in ("train", "test")}
    for side, rows in sides.items():
        if rows.empty:
            raise EvaluationError(
                f"the predictions table has no rows of the {side} side, so there is no gap; use "
                "the predictions.csv of osteofusion fit"
            )
    found = {}
    for arm in dict.fromkeys(sides["test"]["arm"]):
        if arm not in set(sides["train"]["arm"]):
            continue
        (train, *_), (test, *_) = pair = [
            _accuracy(rows, classes, str(arm)) for rows in sides.values()
        ]
        gap = train - test
        low = gap - float(np.hypot(pair[0][0] - pair[0][1], pair[1][2] - pair[1][0]))
        high = gap + float(np.hypot(pair[0][2] - pair[0][0], pair[1][0] - pair[1][1]))
        found[arm] = asdict(AccuracyGap(train, test, gap, low, high))
    columns = list(AccuracyGap.__dataclass_fields__)
    return pd.DataFrame.from_dict(found, orient="index", columns=columns).rename_axis("arm")


def gaps_in_json(gaps: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Arm to ``train``, ``test``, ``gap``, ``low`` and ``high``, for `metrics.json`."""
    return {
        str(arm): {str(name): value for name, value in row.items()}
        for arm, row in gaps.to_dict(orient="index").items()
    }


def in_brackets(estimate: Estimate, sign: str = "") -> str:
    """A value and its interval in one line of text."""
    if estimate.value is None:
        return "n/a"
    said = f"{estimate.value:{sign}.3f}"
    if estimate.low is None or estimate.high is None or estimate.method == "constant":
        return said
    return f"{said} ({estimate.low:{sign}.3f} to {estimate.high:{sign}.3f})"


def _no_arm(predictions: pd.DataFrame, arm: str) -> EvaluationError:
    arms = ", ".join(map(str, predictions["arm"].unique()))
    return EvaluationError(f"the predictions table has no arm {arm!r}; it has {arms}")


def _calls(predictions: pd.DataFrame, classes: Sequence[str], arm: str) -> tuple[Ints, Ints, Ints]:
    """Labels, decisions and split groups (n,) of an arm."""
    own = predictions[predictions["arm"] == arm]
    if own.empty:
        raise _no_arm(predictions, arm)
    rows = read_rows(own, classes)
    return rows.labels, decide(rows.probabilities[arm]), rows.groups


def _accuracy(predictions: pd.DataFrame, classes: Sequence[str], arm: str) -> _Interval:
    """Of single trainings: a radiograph counts once for each that was asked about it."""
    rows = read_rows(predictions[predictions["arm"] == arm], classes)
    asked = np.concatenate([fold.rows for fold in rows.folds])
    called = np.concatenate([decide(fold.probabilities[arm]) for fold in rows.folds])
    right = rows.labels[asked] == called
    low, high = wilson_interval(np.ones(len(asked), dtype=bool), right, rows.groups[asked])
    return float(right.mean()), low, high


def _macro_precision(labels: Ints, decisions: Ints, groups: Ints) -> Estimate:
    """Mean precision: recall with labels and calls in each other's place."""
    if not set(labels) <= set(decisions):
        return Estimate(None, 0, reason="a class is never called")
    low, high = balanced_accuracy_interval(decisions, labels, groups)
    shares = [float((labels == decisions)[decisions == code].mean()) for code in set(decisions)]
    return Estimate(float(np.mean(shares)), len(labels), low, high, "wilson")
