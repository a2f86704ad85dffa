"""One sheet of figures: ROC, precision-recall, calibration and confusion matrix."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from osteofusion.evaluation.curves import (
    draw_calibration,
    draw_confusion,
    draw_precision_recall,
    draw_roc,
    words,
)
from osteofusion.evaluation.metrics import confusion_matrices, decide
from osteofusion.evaluation.predictions import read_rows
from osteofusion.files import atomic_path

STYLE: Any = {  # matplotlib types the keys one by one
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.fonttype": "none",
}


def draw_sheet(
    predictions: pd.DataFrame,
    classes: Sequence[str],
    *,
    arm: str,
    stamp: str | None = None,
) -> Figure:
    """Draw ROC, precision-recall, calibration and confusion matrix of one split.

    With three classes the curves are those of low BMD, read as the sum over the classes after the
    first. Precision-recall is drawn for the rarer side, where a curve says most.

    Args:
        predictions: Predictions table, as :func:`osteofusion.evaluation.evaluate` takes it.
        classes: Class names in order.
        arm: Arm of the calibration plot and the confusion matrix.
        stamp: Text across the foot, such as "synthetic demo data".

    Raises:
        EvaluationError: The table cannot be evaluated.
        ValueError: ``arm`` is not in the table.
    """
    rows = read_rows(predictions, classes)
    if arm not in rows.probabilities:
        raise ValueError(f"arm {arm!r} is not in the table; arms: {', '.join(rows.probabilities)}")
    positive = rows.labels > 0
    side = words(classes[1]) if len(classes) == 2 else "low BMD"
    scores = {name: values[:, 1:].sum(axis=1) for name, values in rows.probabilities.items()}
    decisions = decide(rows.probabilities[arm])
    once = np.ones((1, len(rows.labels)))
    counts = confusion_matrices(rows.labels, decisions, len(classes), once)[0]
    with rc_context(STYLE):
        figure = Figure(figsize=(8.4, 9.4), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(2, 2)
        draw_roc(axes[0, 0], positive, scores, side)
        draw_precision_recall(axes[0, 1], positive, scores, side, words(classes[0]))
        alone = {arm: scores[arm]}
        title = f"Calibration, {words(arm)}"
        draw_calibration(axes[1, 0], positive, alone, rows.groups, title, side)
        draw_confusion(axes[1, 1], counts, classes, f"Confusion matrix, {words(arm)}")
        figure.suptitle(
            f"{rows.split} rows: {len(rows.labels)} radiographs in "
            f"{rows.groups.max() + 1} split groups"
        )
        if stamp:
            figure.supxlabel(stamp, color="#B00020", fontweight="bold", fontsize=11)
    return figure


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure whole or not at all; the suffix chooses the format (``.png``, ``.svg``)."""
    with rc_context(STYLE), atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)
