"""What a report is made of; the page and the PDF are laid out from the same blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of plain text.

    Attributes:
        text: The text.
        kind: ``absent`` says that a part is missing and why; ``wrong`` is an alarm,
            ``verdict`` the sentence that answers the question.
    """

    text: str
    kind: Literal["plain", "soft", "absent", "wrong", "verdict"] = "plain"


@dataclass(frozen=True)
class Heading:
    """A heading inside a section."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list; with a title it is folded under it on the page."""

    items: tuple[str, ...]
    title: str = ""


@dataclass(frozen=True)
class Grid:
    """A table.

    Attributes:
        caption: What stands in it.
        head: Names of the columns.
        rows: Cells in words; what follows a line break is set small. A row of one cell is the
            heading of those below it.
        texts: Columns after the first that hold words, not numbers.
    """

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Drawing:
    """A figure.

    Attributes:
        name: Of its file, such as ``roc``.
        draw: Draws it, in the style that is set at the time.
        caption: What to see in it.
        description: The same for those who cannot see it.
        wide: Whether it needs a line of its own.
    """

    name: str
    draw: Callable[[], Figure]
    caption: str
    description: str
    wide: bool = False


@dataclass(frozen=True)
class Film:
    """A radiograph as a small JPEG in a data URI, or why there is none, and what it is of."""

    uri: str
    refusal: str
    lines: tuple[str, ...]
    description: str


@dataclass(frozen=True)
class Films:
    """Radiographs side by side."""

    films: tuple[Film, ...]


@dataclass(frozen=True)
class Prevalence:
    """What a rule means at a prevalence that the reader of the page chooses.

    Attributes:
        prevalence: Where the slider starts.
        side: What it is a prevalence of.
        rules: Name, sensitivity and specificity of each rule.
    """

    prevalence: float
    side: str
    rules: tuple[tuple[str, float, float], ...]


Block = Paragraph | Heading | Bullets | Grid | Drawing | Films | Prevalence


@dataclass
class Section:
    """A section of the report: its anchor, its title, and what stands in it."""

    key: str
    title: str
    blocks: list[Block] = field(default_factory=list)


def absent(what: str, why: str) -> Paragraph:
    """One line in place of a part that is missing."""
    return Paragraph(f"{what}: not here. {why}", "absent")
