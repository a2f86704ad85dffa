"""Figures of the audits, in the style that is set at the time, on white or on black."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from osteofusion.evaluation.curves import ForestRow, draw_forest, line, words

_LINE = 0.27  # inches a line of a forest plot
_FRAME = 1.0  # inches of title and axis


def draw_pairing(audit: Mapping[str, Any]) -> Figure:
    """Sex and age as read from the film, class by class; what stands out is strong.

    Args:
        audit: ``pairing`` of the audits, with rows.
    """
    every = [_forest("", row["estimate"], strong=False) for row in audit["rows"]]
    targets = list(dict.fromkeys(row["target"] for row in audit["rows"]))
    figure = _figure(len(audit["rows"]), len(targets))
    for axes, target in zip(
        figure.subplots(len(targets), 1, squeeze=False)[:, 0], targets, strict=True
    ):
        rows = [row for row in audit["rows"] if row["target"] == target]
        lines = [
            _forest(words(row["class"]), row["estimate"], strong=row["stands_out"]) for row in rows
        ]
        metric = "AUROC" if rows[0]["metric"] == "auroc" else "concordance"
        draw_forest(axes, lines, f"{metric}, 0.5 is chance", reference=0.5)
        axes.set_title(f"{target} as read from the radiograph", loc="left")
        _upwards(axes, every)
    return figure


def draw_subgroups(audit: Mapping[str, Any], arm: str) -> Figure:
    """AUROC of an arm in each subgroup, and over pairs of films from one subgroup.

    Args:
        audit: ``subgroups`` of the audits.
        arm: One of its arms.
    """
    rows = [row for row in audit["rows"] if row["arm"] == arm]
    lines = [
        _forest(
            f"{row['subgroup']} ({row['positive']} / {row['negative']})",
            row["auroc"],
            strong=row["by"] == "all",
        )
        for row in rows
    ]
    lines += [
        _forest(f"within one {words(each['within'])}", each["auroc"], strong=True)
        for each in audit["within"]
        if each["arm"] == arm
    ]
    figure = _figure(len(lines), 1)
    axes = figure.subplots()
    draw_forest(axes, lines, "AUROC", reference=rows[0]["auroc"]["value"])
    axes.set_title(f"{words(arm)}, {audit['positive']} / other rows in brackets", loc="left")
    _upwards(axes, lines)
    return figure


def draw_learning_curve(audit: Mapping[str, Any]) -> Figure:
    """AUROC over the number of training rows, with bands of the 95 % intervals.

    Args:
        audit: ``learning_curve`` of the audits, with rows.
    """
    figure = Figure(figsize=(5.4, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    models = list(dict.fromkeys(row["model"] for row in audit["rows"]))
    for index, model in enumerate(models):
        rows = [row for row in audit["rows"] if row["model"] == model]
        sizes = [row["training_rows"] for row in rows]
        style = line(index)
        axes.plot(
            sizes, [r["auroc"]["value"] for r in rows], marker="o", label=words(model), **style
        )
        low, high = ([row["auroc"][end] for row in rows] for end in ("low", "high"))
        axes.fill_between(sizes, low, high, color=style["color"], alpha=0.15, linewidth=0)
    axes.axhline(0.5, color="0.6", linewidth=0.8)
    metric = "AUROC" if audit["metric"] == "auroc" else "macro AUROC"
    axes.set(xlabel="training rows", ylabel=f"{metric} of rows left out", title="Learning curve")
    axes.legend()
    return figure


def _figure(lines: int, parts: int) -> Figure:
    figure = Figure(figsize=(7.2, _FRAME * parts + _LINE * lines), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _forest(name: str, estimate: Mapping[str, Any], *, strong: bool) -> ForestRow:
    return ForestRow(name, estimate["value"], estimate["low"], estimate["high"], strong)


def _upwards(axes: Any, lines: list[ForestRow]) -> None:
    """An axis of AUROCs from where the first interval starts to 1."""
    lows = [each.low for each in lines if each.low is not None]
    axes.set_xlim(min([0.45, *lows]) - 0.02, 1.01)
