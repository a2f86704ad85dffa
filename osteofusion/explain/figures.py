"""Overlays beside attributions, and the importance of each input."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from textwrap import fill

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from numpy.typing import NDArray

from osteofusion.evaluation.curves import ForestRow, draw_forest
from osteofusion.evaluation.figures import STYLE, save_figure
from osteofusion.explain.importance import CAVEAT, Importance
from osteofusion.files import atomic_path

_A_PAGE = 4  # radiographs
_BARS = 8  # clinical values of a radiograph
_TOWARDS = ("#1B6CA8", "#C2571A")  # normal, low BMD


@dataclass(frozen=True)
class Panel:
    """What is shown of one radiograph.

    Attributes:
        heading: Who, and what the model said.
        overlays: RGB pictures by title; empty without a radiograph.
        effects: What moved the log-odds of low BMD, by what it says, in the order shown.
    """

    heading: str
    overlays: Mapping[str, NDArray[np.uint8]]
    effects: Mapping[str, float]


def save_panels(panels: Iterable[Panel], path: Path, *, title: str, stamp: str | None) -> None:
    """Write a PDF with four radiographs a page; no more than a page of them is held at a time."""
    panels = iter(panels)
    with rc_context(STYLE), atomic_path(path) as temporary, PdfPages(temporary) as pdf:
        while page := list(islice(panels, _A_PAGE)):
            pdf.savefig(draw_panels(page, title=title, stamp=stamp))


def draw_panels(panels: Sequence[Panel], *, title: str, stamp: str | None = None) -> Figure:
    """Draw each radiograph's overlays and, beside them, its effects; no more than fit a page."""
    pictures = max(len(panel.overlays) for panel in panels)
    bars = any(panel.effects for panel in panels)
    columns = max(1, pictures + bars)
    with rc_context(STYLE):
        figure = Figure(figsize=(8.3, 11.7), layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(title, fontsize=10)
        for part, panel in zip(
            figure.subfigures(_A_PAGE, squeeze=False)[:, 0], panels, strict=False
        ):
            part.suptitle(panel.heading, fontsize=9, x=0.02, ha="left")
            widths = [1.0] * pictures + [1.4] * bars
            axes = part.subplots(1, columns, squeeze=False, width_ratios=widths or [1.0])[0]
            for axis in axes:
                axis.set_axis_off()
            for axis, (name, picture) in zip(axes, panel.overlays.items(), strict=False):
                axis.imshow(picture)
                axis.set_title(name, fontsize=8)
            if panel.effects:
                _draw_effects(axes[-1], panel.effects)
        if stamp:
            figure.supxlabel(stamp, color="#B00020", fontweight="bold", fontsize=11)
    return figure


def save_importance(importance: Sequence[Importance], path: Path, *, stamp: str | None) -> None:
    """Draw the AUROC lost by each shuffled input and write the figure."""
    rows = [
        ForestRow(each.name.replace("_", " "), each.lost, each.low, each.high, each.low > 0)
        for each in importance
    ]
    with rc_context(STYLE):
        figure = Figure(figsize=(7.4, 1.9 + 0.27 * len(rows)), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        draw_forest(axes, rows, "AUROC of low BMD lost", reference=0.0)
        figure.suptitle(f"Permutation importance\n{fill(CAVEAT, 120)}", fontsize=7)
        if stamp:
            figure.supxlabel(stamp, color="#B00020", fontweight="bold", fontsize=11)
    save_figure(figure, path)


def _draw_effects(axis: Axes, effects: Mapping[str, float]) -> None:
    """Bars to the right for low BMD, to the left for normal; beside each what it stands for."""
    shown = dict(list(effects.items())[:_BARS])
    axis.set_axis_on()
    values = list(shown.values())
    places = np.arange(len(values))
    axis.barh(places, values, color=[_TOWARDS[value > 0] for value in values], height=0.6)
    axis.axvline(0, color="#888888", linewidth=0.8)
    axis.set_yticks(places, list(shown), fontsize=7)
    axis.set_ylim(max(len(values), 4) - 0.5, -0.5)
    axis.set_xlabel("log-odds of low BMD", fontsize=7)
    axis.tick_params(axis="x", labelsize=7)
    left = len(effects) - len(shown)
    axis.set_title(f"What moved it ({left} smaller ones not shown)" if left else "What moved it")
    axis.title.set_fontsize(8)
