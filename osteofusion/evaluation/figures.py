"""One sheet of figures: ROC, precision-recall, calibration and confusion matrix."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_curve

from osteofusion.evaluation.intervals import wilson_interval
from osteofusion.evaluation.metrics import Floats, Ints, auroc, confusion_matrices, decide
from osteofusion.evaluation.predictions import TestRows, read_rows
from osteofusion.files import atomic_path

Mask = npt.NDArray[np.bool_]

# Okabe and Ito (2008): told apart with any colour vision; dashes tell them apart in grey print.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))
_STYLE: Any = {  # matplotlib types the keys one by one
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.fonttype": "none",
}
_BIN_ROWS = 10  # rows that a point of the calibration curve should rest on


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
    side = _words(classes[1]) if len(classes) == 2 else "low BMD"
    with rc_context(_STYLE):
        figure = Figure(figsize=(8.4, 9.4), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(2, 2)
        _draw_roc(axes[0, 0], rows, positive, side)
        _draw_precision_recall(axes[0, 1], rows, positive, classes, side)
        _draw_calibration(axes[1, 0], rows, positive, arm, side)
        _draw_confusion(axes[1, 1], rows.labels, rows.probabilities[arm], classes, arm)
        figure.suptitle(
            f"{rows.split} rows: {len(rows.labels)} radiographs in "
            f"{rows.groups.max() + 1} split groups"
        )
        if stamp:
            figure.supxlabel(stamp, color="#B00020", fontweight="bold", fontsize=11)
    return figure


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure whole or not at all; the suffix chooses the format (``.png``, ``.svg``)."""
    with rc_context(_STYLE), atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)


def _draw_roc(axes: Axes, rows: TestRows, positive: Mask, side: str) -> None:
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
    axes.set(title=f"ROC, {side}", xlabel="1 - specificity", ylabel="sensitivity")
    if positive.all() or not positive.any():
        _say(axes, "only one class on these rows")
        return
    for index, (arm, values) in enumerate(rows.probabilities.items()):
        scores = values[:, 1:].sum(axis=1)
        wrong, found, _ = roc_curve(positive, scores, drop_intermediate=False)
        label = f"{_words(arm)}: AUROC {auroc(positive, scores):.3f}"
        axes.plot(wrong, found, label=label, **_line(index))
    _square(axes)
    _name_lines_below(axes)


def _draw_precision_recall(
    axes: Axes, rows: TestRows, positive: Mask, classes: Sequence[str], side: str
) -> None:
    negative_is_rarer = bool(positive.mean() > 0.5)
    chosen = positive != negative_is_rarer
    name = _words(classes[0]) if negative_is_rarer else side
    axes.set(title=f"Precision-recall, {name} (rarer side)", xlabel="recall", ylabel="precision")
    if not chosen.any():
        _say(axes, f"no row is {name}")
        return
    axes.axhline(chosen.mean(), color="0.7", linewidth=0.8)
    for index, (arm, values) in enumerate(rows.probabilities.items()):
        scores = values[:, 0] if negative_is_rarer else values[:, 1:].sum(axis=1)
        precision, recall, _ = precision_recall_curve(chosen, scores)
        precision[-1] = precision[-2]  # scikit-learn starts every curve at precision 1
        area = average_precision_score(chosen, scores)
        label = f"{_words(arm)}: AUPRC {area:.3f}"
        axes.step(recall, precision, where="post", label=label, **_line(index))
    _square(axes)
    _name_lines_below(axes)


def _draw_calibration(axes: Axes, rows: TestRows, positive: Mask, arm: str, side: str) -> None:
    scores = rows.probabilities[arm][:, 1:].sum(axis=1)
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
    bins = int(np.clip(len(scores) // _BIN_ROWS, 1, 10))
    for members in np.array_split(np.argsort(scores, kind="stable"), bins):
        chosen = np.zeros(len(scores), dtype=bool)
        chosen[members] = True
        low, high = wilson_interval(chosen, positive, rows.groups)
        middle, share = scores[members].mean(), positive[members].mean()
        axes.plot([middle, middle], [low, high], color=_COLOURS[0], linewidth=1)
        axes.plot(middle, share, "o", color=_COLOURS[0], markersize=5)
    axes.plot(scores, np.full(len(scores), -0.04), "|", color="0.4", markersize=6, alpha=0.6)
    axes.set(
        title=f"Calibration, {_words(arm)} ({bins} bins, 95 % intervals)",
        xlabel=f"predicted probability of {side}",
        ylabel=f"observed share of {side}",
    )
    _square(axes)


def _draw_confusion(
    axes: Axes, labels: Ints, probabilities: Floats, classes: Sequence[str], arm: str
) -> None:
    weights = np.ones((1, len(labels)))
    counts = confusion_matrices(labels, decide(probabilities), len(classes), weights)[0]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (true, called), share in np.ndenumerate(shares):
        axes.text(
            called,
            true,
            f"{counts[true, called]:.0f}\n{share:.0%}",
            ha="center",
            va="center",
            color="white" if share > 0.5 else "black",
        )
    names = [_words(name) for name in classes]
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names, rotation=90, va="center")
    axes.set(title=f"Confusion matrix, {_words(arm)}", xlabel="called", ylabel="true")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def _line(index: int) -> dict[str, Any]:
    return {
        "color": _COLOURS[index % len(_COLOURS)],
        "linestyle": _DASHES[index % len(_DASHES)],
        "linewidth": 1.8 if index == 0 else 1.3,
    }


def _square(axes: Axes) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.07, 1.03), aspect="equal")


def _name_lines_below(axes: Axes) -> None:
    """Put the legend where it hides no curve."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), handlelength=3)


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes)


def _words(name: str) -> str:
    return name.replace("low_bmd", "low BMD").replace("_", " ")
