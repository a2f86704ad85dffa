"""Figures of the page, as SVG that takes the colours of the page around it."""

from __future__ import annotations

import io
import re
import warnings
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from osteofusion.data.manifest import Manifest
from osteofusion.data.page.classes import COLOURS, classes, words
from osteofusion.data.page.missing import applies

MAP_COLOURS = {"missing": "#D55E00", "not_meant": "#999999", "known": "#0072B2"}
INK = "#010203"  # stands for the text colour of the page, light or dark
STYLE: Any = {  # matplotlib types the keys one by one
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
    "text.parse_math": False,  # a column may be called "cost in $"
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color"), INK),
}
_BINS = 24
_MOST_LINES = 600  # of the map, beyond which neighbours are blended: no screen shows more


def draw_missing(table: pd.DataFrame, names: list[str], manifest: Manifest) -> Markup:
    """Map of the missing cells: one row a subject, sorted by class, and one column each.

    Args:
        table: One row a subject.
        names: Columns to show.
        manifest: Says which columns do not apply to whom.
    """
    by_class = classes(table)
    table = table.iloc[np.argsort(by_class.cat.codes, kind="stable")]
    cells = np.empty((len(table), len(names), 4))
    for i, name in enumerate(names):
        empty = table[name].isna().to_numpy()
        among = applies(table, name, manifest).to_numpy()
        cells[:, i] = (*to_rgb(MAP_COLOURS["known"]), 0.15)
        cells[empty & ~among, i] = (*to_rgb(MAP_COLOURS["not_meant"]), 0.5)
        cells[empty & among, i] = (*to_rgb(MAP_COLOURS["missing"]), 1.0)
    if len(cells) > _MOST_LINES:
        cells = np.stack([part.mean(axis=0) for part in np.array_split(cells, _MOST_LINES)])
    with rc_context(STYLE):
        figure = Figure(figsize=(max(3.5, 1.4 + 0.28 * len(names)), 5.2), layout="constrained")
        axes = figure.subplots()
        frame = (-0.5, len(names) - 0.5, len(table) - 0.5, -0.5)
        axes.imshow(cells, aspect="auto", interpolation="none", extent=frame)
        axes.set_xticks(range(len(names)), [words(name) for name in names], rotation=90)
        axes.xaxis.tick_top()
        counts = by_class.value_counts(sort=False)
        ends = counts.cumsum()
        axes.set_yticks(ends - counts / 2 - 0.5, [f"{name}\n{n}" for name, n in counts.items()])
        for edge in ends[:-1]:
            axes.axhline(edge - 0.5, color=INK, linewidth=1)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        return inline_svg(
            figure, "map", "Map of missing cells; the table below says the same in numbers."
        )


def draw_distribution(table: pd.DataFrame, name: str, unit: str) -> Markup:
    """Histogram of a numeric column, one below the other for each class, with the medians."""
    known = table[table[name].notna()]
    groups = [(str(label), rows[name]) for label, rows in known.groupby(classes(known))]
    edges = _edges(known[name].to_numpy(np.float64))
    with rc_context(STYLE):
        figure = Figure(figsize=(3.6, 0.5 + 0.55 * len(groups)), layout="constrained")
        axes = figure.subplots()
        for i, (label, values) in enumerate(reversed(groups)):
            counts = np.histogram(values, edges)[0]
            axes.stairs(
                0.9 * counts / max(counts.max(), 1) + i,
                edges,
                baseline=i,
                fill=True,
                color=COLOURS[label],
            )
            axes.plot([values.median()] * 2, [i, i + 0.9], color=INK, linewidth=1.5)
        axes.set_yticks(
            np.arange(len(groups)) + 0.35, [f"{label} ({len(v)})" for label, v in reversed(groups)]
        )
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(unit)
        middles = ", ".join(f"{label} {values.median():.3g}" for label, values in groups)
        said = f"Histogram of {words(name)} by class; medians: {middles} {unit}".strip()
        return inline_svg(figure, f"histogram {name}", said)


def _edges(values: np.ndarray) -> np.ndarray:
    low, high = values.min(), values.max()
    whole = bool((values == np.round(values)).all())
    if whole and high - low < 2 * _BINS:  # one bar a whole number, or a few of them
        width = np.ceil((high - low + 1) / _BINS)
        return np.arange(low - 0.5, high + 0.5 + width, width)
    return np.linspace(low, high if high > low else low + 1, _BINS + 1)


def inline_svg(figure: Figure, name: str, description: str) -> Markup:
    """A figure drawn in `STYLE`, as SVG inside a page, in the page's own ink."""
    buffer = io.StringIO()
    # The same cohort gives the same page, and no two figures share an ID.
    with rc_context({"svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a script that the font lacks
        FigureCanvasSVG(figure)
        without = {"Date": None, "Creator": None}
        figure.savefig(buffer, format="svg", transparent=True, metadata=without)
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :].replace(INK, "currentColor")
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r' id="[^"]*_\d+"', "", drawing)  # names such as `axes_1`
    width = re.search(r'width="([\d.]+)pt"', drawing)
    view = re.search(r'viewBox="[^"]*"', drawing)
    assert width is not None  # matplotlib writes both
    assert view is not None
    head = Markup('<svg {} role="img" aria-label="{}" width="{}pt">').format(
        Markup(view[0]), description, width[1]
    )
    return head + Markup(drawing[drawing.index(">") + 1 :])
