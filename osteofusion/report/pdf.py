"""The report as a PDF, laid out from the same blocks as the page."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from reportlab.lib import colors
from reportlab.lib.enums import TA_RIGHT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.platypus import (
    CondPageBreak,
    Flowable,
    Image,
    KeepTogether,
    ListFlowable,
    PageBreak,
    SimpleDocTemplate,
    Spacer,
    Table,
)
from reportlab.platypus import Paragraph as Text

import osteofusion
from osteofusion.evaluation.figures import STYLE
from osteofusion.report.blocks import (
    Block,
    Bullets,
    Drawing,
    Films,
    Grid,
    Heading,
    Paragraph,
    Section,
)
from osteofusion.report.read import Material
from osteofusion.typesetting import BOLD, FONT, markup, set_up

_MARGIN = 15 * mm
_WIDTH = A4[0] - 2 * _MARGIN - 12  # a frame keeps 6 points free on either side
_DPI = 200
_ALARM, _SOFT, _LINE = (
    colors.HexColor("#B3261E"),
    colors.HexColor("#59626C"),
    colors.HexColor("#BBBBBB"),
)
_MOST_ITEMS = 40  # of a list that is folded on the page


def write_pdf(
    material: Material, sections: Sequence[Section], images_note: str, path: Path
) -> None:
    """Write the PDF to `path`."""
    set_up()
    styles = _styles()
    flow: list[Flowable] = [Text(_markup(f"Report: {material.name}"), styles["title"])]
    if material.stamp:
        flow.append(Text(_markup(material.stamp), styles["wrong"]))
    source = f"Data: {material.data.get('manifest')}. Source: {material.data.get('citation')}"
    flow.append(Text(_markup(source), styles["plain"]))
    flow.append(
        Text(_markup(f"{images_note} A research tool, not a medical device."), styles["soft"])
    )
    for number, section in enumerate(sections):
        if number > 1:  # the plain reading and what follows it share the first page
            flow.append(
                PageBreak() if section.key in ("results", "audits", "tripod") else Spacer(0, 8)
            )
        title, content = (
            Text(_markup(section.title), styles["h2"]),
            _flowables(section.blocks, styles),
        )
        if content and isinstance(content[0], KeepTogether):  # a figure; its title goes with it
            content[:1] = [KeepTogether([title, content[0]])]
        else:
            content[:0] = [CondPageBreak(130), title]
        flow += content
    document = SimpleDocTemplate(
        str(path),
        pagesize=A4,
        leftMargin=_MARGIN,
        rightMargin=_MARGIN,
        topMargin=_MARGIN,
        bottomMargin=_MARGIN,
        title=f"Report: {material.name}",
        author="osteofusion",
        lang="en",
        invariant=1,
    )
    foot = partial(_foot, stamp=material.stamp)
    document.build(flow, onFirstPage=foot, onLaterPages=foot)


def _foot(canvas: Any, document: Any, *, stamp: str) -> None:
    canvas.saveState()
    canvas.setFont(FONT, 7)
    canvas.setFillColor(_ALARM if stamp else _SOFT)
    said = stamp or f"osteofusion {osteofusion.__version__}; not a medical device"
    canvas.drawString(_MARGIN, 8 * mm, said)
    canvas.drawRightString(A4[0] - _MARGIN, 8 * mm, str(document.page))
    canvas.restoreState()


def _flowables(blocks: Sequence[Block], styles: dict[str, ParagraphStyle]) -> list[Flowable]:
    found: list[Flowable] = []
    pending: list[Drawing] = []
    for block in blocks:
        if isinstance(block, Drawing) and not block.wide:
            pending.append(block)
            continue
        found += _side_by_side(pending, styles)
        pending = []
        if isinstance(block, Paragraph):
            found.append(Text(_markup(block.text), styles[block.kind]))
        elif isinstance(block, Heading):
            found += [CondPageBreak(110), Text(_markup(block.text), styles["h3"])]
        elif isinstance(block, Bullets):
            found += _bullets(block, styles)
        elif isinstance(block, Grid):
            found += _grid(block, styles)
        elif isinstance(block, Drawing):
            found.append(KeepTogether(_drawing(block, _WIDTH, styles)))
        elif isinstance(block, Films):
            found.append(_films(block, styles))
    return found + _side_by_side(pending, styles)


def _bullets(block: Bullets, styles: dict[str, ParagraphStyle]) -> list[Flowable]:
    if block.title:  # folded on the page, run together here
        shown, more = block.items[:_MOST_ITEMS], len(block.items) - _MOST_ITEMS
        said = "; ".join(shown) + (f"; and {more} more, which the page lists" if more > 0 else "")
        return [Text(f"<b>{_markup(block.title)}:</b> {_markup(said)}", styles["item"])]
    items = [Text(_markup(item), styles["item"]) for item in block.items]
    return [ListFlowable(items, bulletType="bullet", start="•", leftIndent=10, bulletFontSize=7)]


def _grid(block: Grid, styles: dict[str, ParagraphStyle]) -> list[Flowable]:
    width = len(block.head)
    columns = ["cell" if i == 0 or i in block.texts else "number" for i in range(width)]
    heads = ["head" if look == "cell" else "number_head" for look in columns]
    cells = [[_cell(name, styles[look]) for name, look in zip(block.head, heads, strict=True)]]
    looks: list[tuple[Any, ...]] = [
        ("LINEBELOW", (0, 0), (-1, 0), 0.7, colors.black),
        ("LINEBELOW", (0, 1), (-1, -1), 0.25, _LINE),
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("TOPPADDING", (0, 0), (-1, -1), 1.5),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 2),
        ("LEFTPADDING", (0, 0), (-1, -1), 2),
        ("RIGHTPADDING", (0, 0), (-1, -1), 2),
    ]
    for number, row in enumerate(block.rows, start=1):
        if len(row) == 1:
            cells.append([_cell(row[0], styles["group"]), *[""] * (width - 1)])
            looks.append(("SPAN", (0, number), (-1, number)))
        else:
            cells.append(
                [_cell(text, styles[look]) for text, look in zip(row, columns, strict=True)]
            )
    table = Table(cells, colWidths=_widths(block), repeatRows=1, style=looks, hAlign="LEFT")
    return [CondPageBreak(70), Text(_markup(block.caption), styles["caption"]), table, Spacer(0, 6)]


def _widths(block: Grid) -> list[float]:
    """Widths by the longest line of each column, within limits, filled up to the page."""
    rows = [block.head, *(row for row in block.rows if len(row) > 1)]
    longest = [
        max(len(line) for row in rows for line in row[column].split("\n"))
        for column in range(len(block.head))
    ]
    shares = [min(max(length, 8), 46) ** 0.85 for length in longest]
    natural = [4.4 * min(max(length, 6), 60) + 6 for length in longest]
    if sum(natural) <= _WIDTH:
        return natural
    return [_WIDTH * share / sum(shares) for share in shares]


def _cell(text: str, style: ParagraphStyle) -> Text:
    first, *rest = text.split("\n")
    small = "".join(f'<br/><font size="6" color="#59626C">{_markup(part)}</font>' for part in rest)
    return Text(_markup(first) + small, style)


def _side_by_side(drawings: Sequence[Drawing], styles: dict[str, ParagraphStyle]) -> list[Flowable]:
    found: list[Flowable] = []
    for start in range(0, len(drawings), 2):
        pair = [_drawing(each, _WIDTH / 2 - 8, styles) for each in drawings[start : start + 2]]
        row = [*pair, *[""] * (2 - len(pair))]
        found.append(
            Table([row], colWidths=[_WIDTH / 2] * 2, style=[("VALIGN", (0, 0), (-1, -1), "TOP")])
        )
    return found


def _drawing(block: Drawing, width: float, styles: dict[str, ParagraphStyle]) -> list[Flowable]:
    with rc_context(STYLE):
        figure = block.draw()
        FigureCanvasAgg(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, dpi=_DPI)
    buffer.seek(0)
    inches = figure.get_size_inches()
    scale = min(width, 72 * inches[0]) / inches[0]
    picture = Image(buffer, inches[0] * scale, inches[1] * scale, hAlign="LEFT")
    return [picture, Text(_markup(block.caption), styles["caption"])]


def _films(block: Films, styles: dict[str, ParagraphStyle]) -> Flowable:
    side = _WIDTH / 4 - 6
    cells = []
    for film in block.films:
        picture: Flowable = Text(_markup(film.refusal), styles["soft"])
        if film.uri:
            data = io.BytesIO(base64.b64decode(film.uri.split(",", 1)[1]))
            picture = Image(data, side, side, kind="proportional")
        cells.append([picture, Text("<br/>".join(map(_markup, film.lines)), styles["caption"])])
    rows: list[list[Any]] = [cells[start : start + 4] for start in range(0, len(cells), 4)]
    rows[-1] += [""] * (4 - len(rows[-1]))
    return Table(rows, colWidths=[_WIDTH / 4] * 4, style=[("VALIGN", (0, 0), (-1, -1), "TOP")])


def _markup(text: str) -> str:
    """Text as ReportLab's markup; `commands` are set as code."""
    return re.sub(r"`([^`]+)`", r'<font face="Courier">\1</font>', markup(text))


def _styles() -> dict[str, ParagraphStyle]:
    plain = ParagraphStyle("plain", fontName=FONT, fontSize=8.5, leading=11.5, spaceAfter=4)

    def like(name: str, **changes: Any) -> ParagraphStyle:
        return ParagraphStyle(name, parent=plain, **changes)

    bold = {"fontName": BOLD}
    return {
        "plain": plain,
        "soft": like("soft", textColor=_SOFT),
        "absent": like("absent", textColor=_SOFT, leftIndent=6),
        "wrong": like("wrong", textColor=_ALARM, **bold),
        "verdict": like("verdict", **bold),
        "title": like("title", fontSize=16, leading=20, **bold),
        "h2": like("h2", fontSize=12, leading=16, spaceBefore=8, **bold),
        "h3": like("h3", fontSize=9.5, leading=13, spaceBefore=5, **bold),
        "item": like("item", fontSize=8, leading=10.5, spaceAfter=1),
        "caption": like("caption", fontSize=7, leading=9, textColor=_SOFT),
        "head": like("head", fontSize=6.5, leading=8, spaceAfter=0, **bold),
        "group": like("group", fontSize=6.5, leading=8, spaceAfter=0, **bold),
        "cell": like("cell", fontSize=6.5, leading=8, spaceAfter=0),
        "number": like("number", fontSize=6.5, leading=8, spaceAfter=0, alignment=TA_RIGHT),
        "number_head": like(
            "number_head", fontSize=6.5, leading=8, spaceAfter=0, alignment=TA_RIGHT, **bold
        ),
    }
