"""Drawings of a patient report: scale, icon array, bars, pictures and the stamp."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pictures
from reportlab.graphics.shapes import Circle, Drawing, Line, Polygon, Rect, String
from reportlab.lib.colors import Color, HexColor, white
from reportlab.lib.units import mm
from reportlab.platypus import Image

from osteofusion.data.radiograph import RadiographPreprocessing
from osteofusion.explain.overlay import overlay
from osteofusion.serving.description import PreprocessingDescription, TriageDescription
from osteofusion.serving.prediction import Explanation
from osteofusion.serving.report_words import BANDS, of, percent
from osteofusion.typesetting import BOLD, FONT

INK, SOFT, LINE = HexColor("#17212B"), HexColor("#52606D"), HexColor("#C3CCD4")
ALARM, ALARM_TINT = HexColor("#A4262C"), HexColor("#FDEEEE")
RAISED, LOWERED, PALE = HexColor("#C1582C"), HexColor("#2E7D9A"), HexColor("#DDE3E8")
BAND_COLOURS = {
    "rule_out": HexColor("#2E7D9A"),
    "dxa": HexColor("#D99A1C"),
    "rule_in": HexColor("#B5472B"),
}
METHODS = {"gradcam": "Grad-CAM", "hirescam": "HiResCAM"}
_SIDE = 10  # of the icon array
_LONGEST = 1000  # pixels of a picture's longer side, some 300 dpi
_QUALITY = 88
_BAR = 9  # points that a bar takes in a row, to stand level with its text


def icon_array(risk: float, side: float) -> Drawing:
    """100 people, as many of them coloured as the risk says."""
    drawing = Drawing(side, side)
    step = side / _SIDE
    for i in range(_SIDE * _SIDE):
        row, column = divmod(i, _SIDE)
        colour = RAISED if i < of(risk, _SIDE * _SIDE) else PALE
        x, y = (column + 0.5) * step, side - (row + 0.5) * step
        drawing.add(Circle(x, y + 0.28 * step, 0.17 * step, fillColor=colour, strokeColor=None))
        body = Rect(x - 0.22 * step, y - 0.46 * step, 0.44 * step, 0.53 * step, fillColor=colour)
        body.rx = body.ry = 0.16 * step
        body.strokeColor = None
        drawing.add(body)
    return drawing


def scale(risk: float, triage: TriageDescription | None, width: float) -> Drawing:
    """The risk on a scale from 0 to 100 % with the bands of the triage."""
    height, pad, bar = 20 * mm, 4 * mm, 4.5 * mm
    drawing, track, floor = Drawing(width, height), width - 2 * pad, 7.5 * mm
    zones = _zones(triage)
    for name, low, high in zones:
        zone = Rect(pad + low * track, floor, (high - low) * track, bar, strokeColor=white)
        zone.fillColor = BAND_COLOURS.get(name, PALE)
        drawing.add(zone)
    for share in (0, 0.25, 0.5, 0.75, 1):
        drawing.add(_word(pad + share * track, floor - 8, f"{share:.0%}".replace("%", "\u00a0%")))
    x = pad + risk * track
    drawing.add(Line(x, floor - 1.5, x, floor + bar + 2, strokeColor=INK, strokeWidth=1.6))
    tip = floor + bar + 1
    drawing.add(Polygon([x, tip, x - 3.2, tip + 6, x + 3.2, tip + 6], fillColor=INK))
    drawing.add(_word(min(max(x, pad + 4), width - pad - 4), tip + 8, percent(risk), 9, BOLD, INK))
    left = pad
    for name, low, high in zones:
        if name not in BANDS:
            continue
        drawing.add(Rect(left, 0, 6, 6, fillColor=BAND_COLOURS[name], strokeColor=None))
        said = f"{BANDS[name]}: {_between(low, high)}"
        drawing.add(_word(left + 9, 0.5, said, anchor="start"))
        left += track / 3
    return drawing


def _zones(triage: TriageDescription | None) -> list[tuple[str, float, float]]:
    if triage is None:
        return [("", 0.0, 1.0)]
    edges = [0.0, min(triage.rule_out, 1.0), min(triage.rule_in, 1.0), 1.0]
    return list(zip(BANDS, edges[:-1], edges[1:], strict=True))


def _between(low: float, high: float) -> str:
    if low >= high:
        return "none"
    if low == 0:
        return f"below {percent(high)}"
    return f"from {percent(low)}" if high == 1 else f"{percent(low)} to {percent(high)}"


def _word(
    x: float,
    y: float,
    text: str,
    size: float = 7,
    font: str = FONT,
    colour: Color = SOFT,
    anchor: str = "middle",
) -> String:
    return String(x, y, text, fontName=font, fontSize=size, fillColor=colour, textAnchor=anchor)


def share_bar(share: float, width: float) -> Drawing:
    """A share of the width."""
    drawing = Drawing(width, _BAR)
    drawing.add(Rect(0, 1, width, 5, fillColor=PALE, strokeColor=None))
    drawing.add(Rect(0, 1, width * share, 5, fillColor=SOFT, strokeColor=None))
    return drawing


def effect_bar(effect: float, furthest: float, width: float) -> Drawing:
    """An effect to the right of the middle where it raised the risk, to the left where not."""
    drawing, middle = Drawing(width, _BAR), width / 2
    length = middle * effect / furthest
    colour = RAISED if effect > 0 else LOWERED
    bar = Rect(min(middle, middle + length), 1, abs(length), 5, fillColor=colour, strokeColor=None)
    drawing.add(bar)
    drawing.add(Line(middle, 0, middle, 7, strokeColor=SOFT, strokeWidth=0.5))
    return drawing


def pictures(
    explanation: Explanation,
    preprocessing: PreprocessingDescription | None,
    width: float,
    height: float,
) -> list[tuple[str, Image]]:
    """The radiograph and, where the model has a map of it, the overlay, each with what it is."""
    film = explanation.radiograph
    if film is None:
        return []
    found = [("The radiograph as given", _picture(film, width, height))]
    if explanation.saliency and preprocessing is not None:
        method, saliency = _first(explanation.saliency)
        square = RadiographPreprocessing(
            preprocessing.size, preprocessing.clahe, preprocessing.pixel_spacing
        )
        drawn = overlay(film, saliency, square, spacing=explanation.spacing)
        said = (
            f"{METHODS.get(method, method)}: which parts of the image raised the risk, from blue "
            "(little) to red (most of this image), also where the image as a whole lowered it. "
            "Contrast enhanced. It marks no lesion and measures no bone."
        )
        found.append((said, _picture(drawn, width, height)))
    return found


def _first(
    saliency: Mapping[str, NDArray[np.float32]],
) -> tuple[str, NDArray[np.float32]]:
    """The map of the method that the page shows first."""
    name = next((method for method in METHODS if method in saliency), next(iter(saliency)))
    return name, saliency[name]


def _picture(pixels: NDArray[np.uint8], width: float, height: float) -> Image:
    """(H, W) or (H, W, 3) uint8 as a JPEG that keeps its shape within `width` x `height`."""
    factor = _LONGEST / max(pixels.shape[:2])
    if factor < 1:
        size = [max(1, round(side * factor)) for side in pixels.shape[1::-1]]
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    data = io.BytesIO()
    Pictures.fromarray(pixels).save(data, "JPEG", quality=_QUALITY)
    data.seek(0)
    return Image(data, width, height, kind="bound", hAlign="LEFT")


def stamp(canvas: Any, text: str, page: tuple[float, float]) -> None:
    """Write `text` across the page, so that nobody can overlook or cut it off."""
    canvas.saveState()
    canvas.translate(page[0] / 2, page[1] / 2)
    canvas.rotate(52)
    canvas.setFillColor(ALARM)
    canvas.setFillAlpha(0.16)
    for line, (offset, size) in zip(text.split("\n"), ((8, 44), (-34, 25)), strict=True):
        canvas.setFont(BOLD, size)
        canvas.drawCentredString(0, offset, line)
    canvas.restoreState()
