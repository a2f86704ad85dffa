"""Pages of copies side by side, for a person to look at."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

from osteofusion.audit.findings import Copy
from osteofusion.data.radiograph import Gray, read_radiograph
from osteofusion.files import atomic_path

MOST_PAIRS = 40
_PER_PAGE = 4
_SIDE = 420  # pixels of the longer side as drawn
_WHOLE = 0.98  # share of a picture that counts as all of it
_BAD, _FAIR = "#D55E00", "#0072B2"


def save_copy_sheet(
    copies: Sequence[Copy], paths: Sequence[Path], path: str | os.PathLike[str], *, heading: str
) -> int:
    """Write a PDF with the first 40 pairs, four a page, and return how many are not shown.

    On the left the first file, on the right the second; a dashed line is drawn around what the
    other one shows, where that is not all.
    What spoils a result (across splits, labels, subjects or sources) is named in colour.

    Args:
        copies: Pairs, worst first.
        paths: File of each row that the pairs mean.
        path: The PDF.
        heading: What was audited.
    """
    shown = copies[:MOST_PAIRS]
    hidden = len(copies) - len(shown)
    pages = range(0, len(shown), _PER_PAGE)
    with atomic_path(path) as temporary, PdfPages(temporary) as pdf, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a script that the font lacks
        for number, start in enumerate(pages, start=1):
            left_out = f"; {hidden} more pairs are in copies.csv" if hidden else ""
            title = f"{heading}: {len(copies)} pairs of copies{left_out}, page {number}"
            page = shown[start : start + _PER_PAGE]
            pdf.savefig(draw_page(page, paths, title=f"{title} of {len(pages)}"))
    return hidden


def draw_page(copies: Sequence[Copy], paths: Sequence[Path], *, title: str) -> Figure:
    """One page of pairs, one below the other."""
    figure = Figure(figsize=(8.3, 11.7), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(_PER_PAGE, 2, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for row, copy in zip(axes, copies, strict=False):
        first, second = read_radiograph(paths[copy.a]), read_radiograph(paths[copy.b])
        scales = _show(row[0], first), _show(row[1], second)
        if copy.kind != "identical":
            there = np.array(copy.transform)
            _outline(row[0], second, first, np.linalg.inv(there), scales[0])
            _outline(row[1], first, second, there, scales[1])
        _caption(row[0], [copy.image_a, _facts(copy.label_a, copy.split_a, copy.subject_a)])
        _caption(row[1], [copy.image_b, _facts(copy.label_b, copy.split_b, copy.subject_b)])
        what = copy.kind if copy.kind == "identical" else f"{copy.kind}, r {copy.correlation:.2f}"
        bad = f"across {' and '.join(copy.across)}" if copy.across else ""
        colour = _BAD if copy.across else _FAIR
        text = f"{what}{': ' if bad else ''}{bad}"
        row[0].text(
            0.0, -0.03, text, transform=row[0].transAxes, color=colour, va="top", fontsize=8
        )
    figure.suptitle(_short(title, 100), fontsize=9, parse_math=False)
    return figure


def _show(axis: Axes, image: Gray) -> float:
    scale = float(min(1.0, _SIDE / max(image.shape)))
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    axis.imshow(small, cmap="gray", vmin=0, vmax=255, interpolation="none")
    return scale


def _outline(
    axis: Axes, other: Gray, image: Gray, transform: npt.NDArray[np.float64], scale: float
) -> None:
    """What the other picture shows of this one, where that is not all of it."""
    frame = _corners(image)
    mapped = _corners(other) @ transform.T
    mapped = mapped[:, :2] / mapped[:, 2:]
    area, shared = cv2.intersectConvexConvex(
        frame[:, :2].astype(np.float32), mapped.astype(np.float32)
    )
    if shared is not None and 0 < area < _WHOLE * image.size:
        points = shared.reshape(-1, 2) * scale
        axis.add_patch(Polygon(points, fill=False, edgecolor=_BAD, linewidth=1.2, linestyle="--"))


def _corners(image: Gray) -> npt.NDArray[np.float64]:
    height, width = image.shape
    corners = [[0, 0, 1], [width, 0, 1], [width, height, 1], [0, height, 1]]
    return np.array(corners, dtype=np.float64)


def _caption(axis: Axes, lines: Sequence[str]) -> None:
    text = "\n".join(_short(line, 56) for line in lines if line)
    axis.set_title(text, fontsize=7.5, loc="left", parse_math=False)


def _facts(label: str | None, split: str | None, subject: str | None) -> str:
    known = (label, split, f"subject {subject}" if subject else None)
    return ", ".join(word for word in known if word)


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"...{text[3 - limit :]}"
