"""Curves, confusion matrices and forest plots, each drawn onto axes at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_curve

from osteofusion.evaluation.intervals import wilson_interval
from osteofusion.evaluation.metrics import Floats, Ints, auroc

Mask = npt.NDArray[np.bool_]

# Okabe and Ito (2008): told apart with any colour vision; dashes tell them apart in grey print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#777777")
_DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))
_FAINT = "0.6"  # seen on white as on black
_BIN_ROWS = 10  # rows that a point of the calibration curve should rest on


def draw_roc(
    axes: Axes,
    positive: Mask,
    scores: Mapping[str, Floats],
    side: str,
    areas: Mapping[str, float] | None = None,
) -> None:
    """ROC of several arms on the same rows.

    Args:
        axes: Where to draw.
        positive: (n,) true for the positive side.
        scores: Arm name to (n,) scores.
        side: Name of the positive side.
        areas: AUROC of each arm to print, such as means over folds; those of the curves if None.
    """
    axes.plot([0, 1], [0, 1], color=_FAINT, linewidth=0.8)
    axes.set(title=f"ROC, {side}", xlabel="1 - specificity", ylabel="sensitivity")
    if positive.all() or not positive.any():
        _say(axes, "only one class on these rows")
        return
    for index, (arm, values) in enumerate(scores.items()):
        wrong, found, _ = roc_curve(positive, values, drop_intermediate=False)
        area = auroc(positive, values) if areas is None else areas[arm]
        axes.plot(wrong, found, label=f"{words(arm)}: AUROC {area:.3f}", **line(index))
    _square(axes)
    name_lines_below(axes)


def draw_precision_recall(
    axes: Axes, positive: Mask, scores: Mapping[str, Floats], side: str, other: str
) -> None:
    """Precision-recall curves of the rarer side, where they say most.

    Args:
        axes: Where to draw.
        positive: (n,) true for the positive side.
        scores: Arm name to (n,) probabilities of the positive side.
        side: Name of the positive side.
        other: Name of the other side.
    """
    turned = bool(positive.mean() > 0.5)
    chosen, name = positive != turned, other if turned else side
    axes.set(title=f"Precision-recall, {name} (rarer side)", xlabel="recall", ylabel="precision")
    if not chosen.any():
        _say(axes, f"no row is {name}")
        return
    axes.axhline(chosen.mean(), color=_FAINT, linewidth=0.8)
    for index, (arm, values) in enumerate(scores.items()):
        towards = 1 - values if turned else values
        precision, recall, _ = precision_recall_curve(chosen, towards)
        precision[-1] = precision[-2]  # scikit-learn starts every curve at precision 1
        label = f"{words(arm)}: AUPRC {average_precision_score(chosen, towards):.3f}"
        axes.step(recall, precision, where="post", label=label, **line(index))
    _square(axes)
    name_lines_below(axes)


def draw_calibration(
    axes: Axes, positive: Mask, scores: Mapping[str, Floats], groups: Ints, title: str, side: str
) -> None:
    """Observed share over predicted probability in bins of equal size, with 95 % intervals.

    Args:
        axes: Where to draw.
        positive: (n,) true for the positive side.
        scores: Name, such as "before", to (n,) probabilities of the positive side.
        groups: (n,) split groups, over which the intervals are.
        title: Of the axes.
        side: Name of the positive side.
    """
    axes.plot([0, 1], [0, 1], color=_FAINT, linewidth=0.8)
    bins = int(np.clip(len(positive) // _BIN_ROWS, 1, 10))
    for index, (name, values) in enumerate(scores.items()):
        colour, marker = COLOURS[index], "os^v"[index % 4]
        points = []
        for members in np.array_split(np.argsort(values, kind="stable"), bins):
            chosen = np.zeros(len(values), dtype=bool)
            chosen[members] = True
            middle = values[members].mean()
            axes.plot([middle] * 2, wilson_interval(chosen, positive, groups), color=colour, lw=1)
            points.append((middle, positive[members].mean()))
        label = name if len(scores) > 1 else None
        axes.plot(*zip(*points, strict=True), marker, color=colour, markersize=5, label=label)
        rug = np.full(len(values), -0.03 - 0.025 * index)
        axes.plot(values, rug, "|", color=colour, markersize=5, alpha=0.5)
    axes.set(
        title=f"{title} ({bins} bins, 95 % intervals)",
        xlabel=f"predicted probability of {side}",
        ylabel=f"observed share of {side}",
    )
    _square(axes)
    if len(scores) > 1:
        name_lines_below(axes)


def draw_confusion(axes: Axes, counts: npt.ArrayLike, classes: Sequence[str], title: str) -> None:
    """Counts [true][called] and their shares of the true class, shaded by the share."""
    counted = np.asarray(counts, dtype=np.float64)
    shares = counted / np.maximum(counted.sum(axis=1, keepdims=True), 1)
    shades = np.empty((*shares.shape, 4))
    shades[:] = to_rgba(COLOURS[0])
    shades[..., 3] = 0.55 * shares  # so light that the text reads on white and on black
    axes.imshow(shades)
    for (true, called), share in np.ndenumerate(shares):
        text = f"{counted[true, called]:.0f}\n{share:.0%}"
        axes.text(called, true, text, ha="center", va="center")
    names = [words(name) for name in classes]
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names, rotation=90, va="center")
    axes.set(title=title, xlabel="called", ylabel="true")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


@dataclass(frozen=True)
class ForestRow:
    """One line of a forest plot; without a value it says why.

    Attributes:
        name: As read.
        value: The estimate.
        low: Lower end of the 95 % interval.
        high: Upper end.
        strong: Whether to draw it filled and in colour.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    strong: bool = False


def draw_forest(
    axes: Axes, rows: Sequence[ForestRow], label: str, *, reference: float | None = None
) -> None:
    """Estimates with 95 % intervals, one below the other, their numbers on the right.

    Args:
        axes: Where to draw.
        rows: From top to bottom.
        label: What the estimates are.
        reference: Value to draw a line at, such as 0 for differences.
    """
    if reference is not None:
        axes.axvline(reference, color=_FAINT, linewidth=1)
    signed = "+" if reference == 0 else ""
    for place, row in enumerate(rows):
        colour = COLOURS[0] if row.strong else COLOURS[-1]
        said = "not defined"
        if row.value is not None:
            face = colour if row.strong else "none"
            axes.plot(row.value, place, "s", color=colour, markerfacecolor=face, markersize=6)
            said = f"{row.value:{signed}.3f}"
            if row.low is not None and row.high is not None:
                axes.plot([row.low, row.high], [place] * 2, color=colour, linewidth=1.6)
                said += f" ({row.low:{signed}.3f} to {row.high:{signed}.3f})"
        said = said.replace("-", "\N{MINUS SIGN}")
        axes.text(1.02, place, said, transform=axes.get_yaxis_transform(), va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.set(ylim=(len(rows) - 0.5, -0.5), xlabel=f"{label}, 95 % interval")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def draw_decision_curves(axes: Axes, curve: Mapping[str, Any]) -> None:
    """Net benefit over threshold probabilities, beside calling everybody and nobody.

    Args:
        axes: Where to draw.
        curve: As :class:`~osteofusion.evaluation.decision_curve.DecisionCurve` says in JSON.
    """
    thresholds = np.asarray(curve["thresholds"])
    axes.axhline(0, color=_FAINT, linewidth=1.2, label="nobody to DXA")
    axes.plot(
        thresholds, curve["treat_all"], color=_FAINT, linestyle="--", linewidth=1.2,
        label="everybody to DXA",
    )  # fmt: skip
    axes.fill_between(thresholds, curve["low"], curve["high"], color=COLOURS[0], alpha=0.18, lw=0)
    for index, (arm, values) in enumerate(curve["arms"].items()):
        axes.plot(thresholds, values, label=words(arm), **line(index))
    top = curve["prevalence"]
    axes.set(
        title=f"Decision curves at prevalence {100 * top:.3g} %",
        xlabel="risk from which a DXA is worth it",
        ylabel="net benefit per person",
        xlim=(0, 1),
        ylim=(-0.3 * top, 1.1 * top),
    )
    name_lines_below(axes)


def line(index: int) -> dict[str, Any]:
    """Colour, dashes and width of the arm drawn at that place."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": _DASHES[index % len(_DASHES)],
        "linewidth": 1.8 if index == 0 else 1.3,
    }


def name_lines_below(axes: Axes) -> None:
    """Put the legend where it hides no curve."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), handlelength=3)


def words(name: str) -> str:
    """A name of an arm or class as read."""
    return name.replace("low_bmd", "low BMD").replace("_", " ")


def _square(axes: Axes) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.07, 1.03), aspect="equal")


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes)
