"""Every metric of a task on the rows at hand, with a reason where it is not defined."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from osteofusion.evaluation.metrics import (
    Estimate,
    Floats,
    Ints,
    auroc,
    auroc_targets,
    decide,
    low_bmd_reading,
    metric_names,
    metric_values,
    value_name,
)
from osteofusion.evaluation.recalibration import calibration_intercept, calibration_line


def point_metrics(
    labels: Ints, probabilities: Floats, classes: Sequence[str]
) -> dict[str, Estimate]:
    """Every metric of the task on the rows at hand.

    Binary decisions at 0.5, otherwise the most probable class. Macro averages and balanced
    accuracy need a row of every class. MCC is 0 by convention where one class is called
    throughout. ECE has ten bins of equal width (Naeini et al. 2015). The Brier score of more than
    two classes is the sum over classes, between 0 and 2 (Brier 1950). Of three classes, ECE, the
    calibration line and what begins with ``low_bmd`` are read from :func:`low_bmd_reading`.

    Args:
        labels: (n,) class codes.
        probabilities: (n, C) probabilities.
        classes: C class names in order.

    Returns:
        Metric name to estimate without interval, in report order; value None with a reason where
        not defined.
    """
    decisions = decide(probabilities)
    once = np.ones((1, len(labels)))
    found = metric_values(labels, probabilities, once)
    areas = [f"auroc_{name}" for name in classes] if len(classes) > 2 else ["auroc"]
    points = {}
    for name in metric_names(classes):
        n = metric_rows(name, labels, probabilities)
        if name.startswith("calibration"):
            points[name] = _calibration(name, labels, probabilities, classes)
            continue
        if name == "macro_auroc":
            targets = [auroc_targets(labels, probabilities, each, classes) for each in areas]
            value = float(np.mean([auroc(*target) for target in targets]))
        elif "auroc" in name:
            value = auroc(*auroc_targets(labels, probabilities, name, classes))
        else:
            value = float(found[value_name(name, classes)][0])
        if np.isnan(value):
            points[name] = Estimate(None, n, reason=_undefined(name, labels, classes))
        elif name == "mcc" and len(np.unique(decisions)) == 1:
            reason = f"every row is called {classes[decisions[0]]}: 0 by convention"
            points[name] = Estimate(0.0, n, reason=reason)
        else:
            points[name] = Estimate(value, n)
    return points


def metric_rows(name: str, labels: Ints, probabilities: Floats) -> int:
    """Number of rows a metric rests on: the denominator of a proportion, else all rows."""
    chosen = proportion_rows(name, labels, probabilities)
    return len(labels) if chosen is None else int(chosen[0].sum())


def proportion_rows(
    name: str, labels: Ints, probabilities: Floats
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]] | None:
    """Rows (n,) in the denominator and successes (n,) of a proportion; None for other metrics."""
    if name.startswith("low_bmd_"):
        name = name.removeprefix("low_bmd_")
        labels, probabilities = low_bmd_reading(labels, probabilities)
    decisions = decide(probabilities)
    denominators = {
        "sensitivity": labels == 1,
        "specificity": labels == 0,
        "ppv": decisions == 1,
        "npv": decisions == 0,
        "accuracy": np.ones(len(labels), dtype=bool),
    }
    return (denominators[name], labels == decisions) if name in denominators else None


def _undefined(name: str, labels: Ints, classes: Sequence[str]) -> str:
    low = "low BMD" if name.startswith("low_bmd_") else classes[-1]
    called = {"ppv": low, "npv": classes[0]}.get(name.removeprefix("low_bmd_"))
    if called:
        return f"no row is called {called}"
    absent = [label for code, label in enumerate(classes) if not (labels == code).any()]
    return f"no row is {' or '.join(absent)}"


def _calibration(
    name: str, labels: Ints, probabilities: Floats, classes: Sequence[str]
) -> Estimate:
    low, p = low_bmd_reading(labels, probabilities)
    n = len(labels)
    if low.all() or not low.any():
        return Estimate(None, n, reason=_undefined(name, labels, classes))
    if name == "calibration_intercept":
        return Estimate(calibration_intercept(low == 1, p[:, 1]), n)
    line = calibration_line(low == 1, p[:, 1])
    return Estimate(None, n, reason=line) if isinstance(line, str) else Estimate(float(line[1]), n)
