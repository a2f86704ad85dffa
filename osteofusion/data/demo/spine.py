"""A lumbar spine, L1 to L5, in two views: x to the patient's side (or back), y down, L3 at 0."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import expit

from osteofusion.data.demo.drawing import (
    CANVAS,
    ORIGIN,
    Box,
    Image,
    Outline,
    View,
    depth_below,
    strands,
)

_STEP = 94  # from one vertebra's centre to the next
_HALF_HEIGHT = 36
_LEVELS = (-2, -1, 0, 1, 2)
_MEASURED = (-1, 0, 1)  # L2 to L4, which every film shows
_TRUNK = (
    (-190, -420), (-180, -200), (-168, -20), (-176, 150), (-192, 420),
    (192, 420), (176, 150), (168, -20), (180, -200), (190, -420),
)  # fmt: skip
_SACRUM = (
    (-62, 240),
    (-20, 236),
    (20, 236),
    (62, 240),
    (96, 290),
    (60, 420),
    (-60, 420),
    (-96, 290),
)


def _half_width(level: int) -> float:
    return 52 + 4 * level


def _lordosis(level: int) -> float:
    """How far a vertebra lies to the back, seen from the side."""
    return 9.0 * level**2 - 22


def _body(x: float, level: int) -> Outline:
    """A vertebral body with its waist, clockwise from the upper left corner."""
    y, w, h = _STEP * level, _half_width(level), _HALF_HEIGHT
    corners = (
        (-w, -h + 7), (-w + 6, -h), (0, -h + 3), (w - 6, -h), (w, -h + 7), (w - 7, 0),
        (w, h - 7), (w - 6, h), (0, h - 3), (-w + 6, h), (-w, h - 7), (-w + 7, 0),
    )  # fmt: skip
    return tuple((x + dx, y + dy) for dx, dy in corners)


def _oval(x: float, y: float, rx: float, ry: float) -> Outline:
    turns = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    return tuple((x + rx * np.cos(turn), y + ry * np.sin(turn)) for turn in turns)


def _behind_from_front(level: int) -> list[Outline]:
    """Pedicles, spinous and transverse processes of a film from the front."""
    y, w = _STEP * level, _half_width(level)
    return [
        _oval(-0.62 * w, y - 8, 9, 14),
        _oval(0.62 * w, y - 8, 9, 14),
        _oval(0, y + 24, 8, 22),
        _oval(-w - 22, y - 4, 24, 7),
        _oval(w + 22, y - 4, 24, 7),
    ]


def _behind_from_side(level: int) -> list[Outline]:
    """Pedicle and spinous process of a film from the side."""
    x, y = _lordosis(level) + _half_width(level), _STEP * level
    return [_oval(x + 14, y - 14, 20, 9), _oval(x + 66, y + 14, 34, 14)]


def _attenuation(
    rng: np.random.Generator,
    density: float,
    place: Callable[[int], float],
    behind: Callable[[int], list[Outline]],
) -> Image:
    """Draw a lumbar spine whose vertebral bodies show ``density``, in SD: (H, W).

    A thin shell around an empty body in which only vertical trabeculae are left, the picture-frame
    and striated vertebra (Saville 1967), stands for low density. What lies behind the bodies
    carries no signal.
    """
    trunk = depth_below(rng, _TRUNK)
    film = 0.36 * (1 - np.exp(-trunk / 60))
    depth = depth_below(rng, *[_body(place(level), level) for level in _LEVELS])
    inside = 1 - np.exp(-depth / 6)
    thickness = 5.6 + 1.7 * density
    film += 0.15 * inside + 0.30 * np.minimum(depth, 1) * expit((thickness - depth) / 0.9)
    pattern = strands(rng, 5.6 - 1.0 * density, 2.4 - 0.5 * density)
    film += (0.040 + 0.011 * density) * inside * pattern
    processes = depth_below(rng, *[outline for level in _LEVELS for outline in behind(level)])
    film += rng.uniform(0.03, 0.06) * (1 - np.exp(-processes / 4))
    film += 0.16 * (1 - np.exp(-depth_below(rng, _SACRUM) / 10))
    # Bowel gas in front of the spine, as on every such film.
    rows, columns = np.indices(CANVAS, dtype=np.float32)
    for _ in range(int(rng.integers(2, 6))):
        x = ORIGIN[0] + rng.choice([-1, 1]) * rng.uniform(90, 150)
        y, size = ORIGIN[1] + rng.uniform(-200, 200), rng.uniform(10, 24)
        film -= 0.10 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * size**2))
    return np.asarray(film.astype(np.float32))


def _front(rng: np.random.Generator, density: float) -> Image:
    return _attenuation(rng, density, lambda level: 0.0, _behind_from_front)


def _side(rng: np.random.Generator, density: float) -> Image:
    return _attenuation(rng, density, _lordosis, _behind_from_side)


def _boxes(place: Callable[[int], float]) -> dict[str, Box]:
    boxes = {}
    for level in _MEASURED:
        x, y, w = round(place(level)), _STEP * level, round(_half_width(level))
        name = f"l{level + 3}"
        boxes[f"{name}_trabecular"] = (x - w + 14, y - 22, x + w - 14, y + 22)
        boxes[f"{name}_cortex"] = (x - 30, y - _HALF_HEIGHT - 3, x + 30, y - _HALF_HEIGHT + 17)
    return boxes


SPINE = (
    View("AP", _front, _boxes(lambda level: 0.0)),
    View("LAT", _side, _boxes(_lordosis)),
)
