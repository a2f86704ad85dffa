"""Results as published reports of classifiers lay them out, with intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from osteofusion.errors import EvaluationError
from osteofusion.evaluation.evaluate import evaluate
from osteofusion.evaluation.intervals import wilson_interval
from osteofusion.evaluation.metrics import Estimate, Ints, decide
from osteofusion.evaluation.predictions import read_rows

_Interval = tuple[float, float, float]


def classification_table(
    predictions: pd.DataFrame, classes: Sequence[str], arm: str
) -> pd.DataFrame:
    """Precision, recall, F1 and support of each class, then accuracy and AUROC, each with interval.

    In brackets stand 95 % intervals over split groups: Wilson's for proportions. F1 is the
    proportion of hits where each is counted for the class that is there and the class that is
    called, so it has one too.

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
    labels, decisions, groups = _calls(predictions, classes, arm)
    rows = {
        name: [
            _shown(_proportion(decisions == code, labels == code, groups)),
            _shown(_proportion(labels == code, decisions == code, groups)),
            _shown(_f1(labels == code, decisions == code, groups)),
            str(int((labels == code).sum())),
        ]
        for code, name in enumerate(classes)
    }
    own = predictions[predictions["arm"] == arm]
    # Neither of the two has a bootstrap interval, so there need not be many resamples.
    metrics = evaluate(own, classes, resamples=100).arms[arm].metrics
    for name, estimate in (
        ("accuracy", metrics["accuracy"]),
        ("AUROC", metrics["auroc" if len(classes) == 2 else "macro_auroc"]),
    ):
        rows[name] = ["", "", _estimate(estimate), str(len(labels))]
    return pd.DataFrame.from_dict(
        rows, orient="index", columns=["precision", "recall", "F1", "support"]
    ).rename_axis("class")


def accuracy_gap(predictions: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Accuracy on the training side less that on the test side, for each arm that has both.

    A large gap is what a model has learnt by heart. Its 95 % interval is that of two independent
    proportions (method 10 of Newcombe 1998, on Wilson's intervals over split groups).

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
        found[arm] = [train, test, gap, low, high]
    columns = ["train", "test", "gap", "low", "high"]
    return pd.DataFrame.from_dict(found, orient="index", columns=columns).rename_axis("arm")


def _calls(predictions: pd.DataFrame, classes: Sequence[str], arm: str) -> tuple[Ints, Ints, Ints]:
    """Labels, decisions and split groups (n,) of an arm."""
    own = predictions[predictions["arm"] == arm]
    if own.empty:
        arms = ", ".join(map(str, predictions["arm"].unique()))
        raise EvaluationError(f"the predictions table has no arm {arm!r}; it has {arms}")
    rows = read_rows(own, classes)
    return rows.labels, decide(rows.probabilities[arm]), rows.groups


def _accuracy(predictions: pd.DataFrame, classes: Sequence[str], arm: str) -> _Interval:
    labels, decisions, groups = _calls(predictions, classes, arm)
    found = _proportion(np.ones(len(labels), dtype=bool), labels == decisions, groups)
    assert found is not None  # there are rows
    return found


def _proportion(
    chosen: npt.NDArray[np.bool_], success: npt.NDArray[np.bool_], groups: Ints
) -> _Interval | None:
    """A share with its interval; None of no rows."""
    if not chosen.any():
        return None
    return float(success[chosen].mean()), *wilson_interval(chosen, success, groups)


def _f1(
    there: npt.NDArray[np.bool_], called: npt.NDArray[np.bool_], groups: Ints
) -> _Interval | None:
    """F1 of a class: 2 TP / (2 TP + FP + FN)."""
    twice = np.concatenate([np.flatnonzero(there), np.flatnonzero(called)])
    hit = (there & called)[twice]
    return _proportion(np.ones(len(twice), dtype=bool), hit, groups[twice])


def _shown(found: _Interval | None) -> str:
    if found is None:
        return "n/a"
    value, low, high = found
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _estimate(estimate: Estimate) -> str:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return "n/a" if estimate.value is None else f"{estimate.value:.3f}"
    return _shown((estimate.value, estimate.low, estimate.high))
