"""How a patient report is set: styles of its text and looks of its tables."""

from __future__ import annotations

from typing import Any

from reportlab.lib.enums import TA_RIGHT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.platypus import Table

from osteofusion.serving.report_graphics import ALARM, ALARM_TINT, INK, LINE, SOFT
from osteofusion.typesetting import BOLD, FONT

MARGIN = 15 * mm
WIDTH = A4[0] - 2 * MARGIN - 12  # a frame keeps 6 points free on either side


def bare(padding: float) -> list[tuple[Any, ...]]:
    """The same padding on all sides of every cell."""
    sides = ("LEFTPADDING", "RIGHTPADDING", "TOPPADDING", "BOTTOMPADDING")
    return [(side, (0, 0), (-1, -1), padding) for side in sides]


def ruled(rows: list[list[Any]], widths: list[float], head: int = 1) -> Table:
    """A table with a line below each row; the first `head` rows come again on a new page."""
    looks: list[tuple[Any, ...]] = [
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("LINEBELOW", (0, head), (-1, -1), 0.25, LINE),
        *bare(2),
    ]
    if head:
        looks.append(("LINEBELOW", (0, 0), (-1, 0), 0.7, INK))
    return Table(rows, colWidths=widths, repeatRows=head, style=looks, hAlign="LEFT", splitInRow=1)


def text_styles() -> dict[str, ParagraphStyle]:
    """Styles of text by name."""
    base = ParagraphStyle("plain", fontName=FONT, fontSize=8.5, leading=11.5, textColor=INK)

    def like(name: str, size: float, **changes: Any) -> ParagraphStyle:
        return ParagraphStyle(name, base, fontSize=size, leading=1.32 * size, **changes)

    bold = {"fontName": BOLD}
    return {
        "plain": base,
        "title": like("title", 16, spaceAfter=2, **bold),
        "h2": like("h2", 10.5, spaceBefore=7, spaceAfter=2, keepWithNext=1, **bold),
        "figure": like("figure", 17, spaceAfter=2, **bold),
        "lead": like("lead", 9.5),
        "soft": like("soft", 7.5, textColor=SOFT, spaceBefore=2),
        "small": like("small", 7.5, textColor=SOFT, spaceBefore=2),
        "alarm": like(
            "alarm",
            8.5,
            textColor=ALARM,
            backColor=ALARM_TINT,
            borderPadding=2,
            spaceBefore=4,
            spaceAfter=3,
        ),
        "head": like("head", 7.5, **bold),
        "cell": like("cell", 7.5),
        "bold_cell": like("bold_cell", 7.5, **bold),
        "mark": like("mark", 7.5, textColor=ALARM),
        "number": like("number", 7.5, alignment=TA_RIGHT),
    }
