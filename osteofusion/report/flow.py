"""The flow of a cohort as a diagram."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

_WIDTH = 6.4  # of the figure, inches
_LINE = 0.19  # height of a line of text
_GAP = 0.32  # between boxes, for the arrow


@dataclass(frozen=True)
class FlowBox:
    """A box of the diagram.

    Attributes:
        title: Its first line.
        lines: What stands below.
        aside: Whether it stands on the right of the way, for who leaves it.
        side: Whether it stands beside others at the end, for the sides of a split.
    """

    title: str
    lines: list[str]
    aside: bool = False
    side: bool = False

    @property
    def height(self) -> float:
        """Of the box, inches."""
        return _LINE * (1 + len(self.lines)) + 0.22


def draw_flow(boxes: Sequence[FlowBox]) -> Figure:
    """Draw boxes from top to bottom, those aside on the right, sides beside each other."""
    steps = [box for box in boxes if not box.side and not box.aside]
    sides = [box for box in boxes if box.side]
    rows = [(step, _beside(boxes, step)) for step in steps]
    heights = [max(box.height for box in row if box is not None) for row in rows]
    last = max((box.height for box in sides), default=0.0)
    total = sum(heights) + _GAP * len(rows) + last
    figure = Figure(figsize=(_WIDTH, total + 0.1))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, _WIDTH), ylim=(-total - 0.05, 0.05))
    axes.axis("off")
    top = 0.0
    for number, ((step, aside), height) in enumerate(zip(rows, heights, strict=True)):
        _box(axes, step, 0.05, top, 3.0)
        if aside is not None:
            _box(axes, aside, 3.5, top, 2.85)
            _arrow(axes, (3.05, top - 0.2), (3.5, top - 0.2))
        if number + 1 < len(rows) or sides:
            _arrow(axes, (1.55, top - step.height), (1.55, top - height - _GAP))
        top -= height + _GAP
    width = (_WIDTH - 0.1) / max(len(sides), 1)
    for number, box in enumerate(sides):
        _box(axes, box, 0.05 + number * width, top, width - 0.15)
    return figure


def _beside(boxes: Sequence[FlowBox], step: FlowBox) -> FlowBox | None:
    """The box aside that follows a step in the list."""
    place = next(i for i, box in enumerate(boxes) if box is step) + 1
    return boxes[place] if place < len(boxes) and boxes[place].aside else None


def _box(axes: Axes, box: FlowBox, left: float, top: float, width: float) -> None:
    ink = axes.xaxis.label.get_color()
    axes.add_patch(
        FancyBboxPatch(
            (left, top - box.height), width, box.height,
            boxstyle="round,pad=0,rounding_size=0.06",
            facecolor="none", edgecolor=ink, linewidth=1, linestyle="--" if box.aside else "-",
        )
    )  # fmt: skip
    axes.text(left + 0.12, top - 0.11, box.title, va="top", weight="bold", fontsize=9)
    for number, line in enumerate(box.lines, start=1):
        axes.text(left + 0.12, top - 0.11 - _LINE * number, line, va="top", fontsize=9)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    ink = axes.xaxis.label.get_color()
    style = {"arrowstyle": "-|>", "color": ink, "linewidth": 1, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", xy=end, xytext=start, arrowprops=style)
