"""What all drawn radiographs share: outlines, trabeculae, acquisition families, exposure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from osteofusion.data.demo.table import STAMP

Image = npt.NDArray[Any]  # (H, W); OpenCV's annotations leave the element type open
Box = tuple[int, int, int, int]
Outline = Sequence[tuple[float, float]]

CANVAS = (660, 400)  # height, width: room for every pose of a 512-unit field
ORIGIN = np.array([CANVAS[1] / 2, CANVAS[0] / 2])


@dataclass(frozen=True)
class View:
    """A body part as one kind of film shows it, in drawing units: x right, y down from the centre.

    Attributes:
        name: Ending of the file's name; empty where a subject has one film.
        attenuation: Draws a density in SD as a film: (H, W).
        boxes: Where density is drawn, as x0, y0, x1, y1. Fixed, so that no box tells it.
    """

    name: str
    attenuation: Callable[[np.random.Generator, float], Image]
    boxes: Mapping[str, Box]


@dataclass(frozen=True)
class Family:
    """An acquisition family: file suffix, colour mode and film size in pixels."""

    suffix: str
    rgb: bool
    width: int
    height: int


FAMILIES = (
    Family("JPEG", True, 480, 480),
    Family("jpg", False, 512, 420),
    Family("jpg", True, 420, 512),
    Family("jpg", False, 400, 480),
)


def depth_below(rng: np.random.Generator, *outlines: Outline) -> Image:
    """Depth below slightly varied outlines in drawing units, 0 outside: (H, W)."""
    mask = np.zeros(CANVAS, np.uint8)
    for points in outlines:
        corners = np.asarray(points) + rng.normal(0, 1.2, (len(points), 2))
        for _ in range(3):  # Chaikin's corner cutting
            ahead = np.roll(corners, -1, axis=0)
            corners = np.stack([0.75 * corners + 0.25 * ahead, 0.25 * corners + 0.75 * ahead], 1)
            corners = corners.reshape(-1, 2)
        cv2.fillPoly(mask, [np.round((corners + ORIGIN) * 16).astype(np.int32)], 1, shift=4)
    return cv2.distanceTransform(mask, cv2.DIST_L2, 5)


def strands(rng: np.random.Generator, spacing: float, elongation: float) -> Image:
    """Trabecular pattern of zero mean and unit deviation, elongated along the bone: (H, W)."""
    noise = rng.standard_normal(CANVAS, np.float32)
    across, along = 0.3 * spacing, 0.3 * spacing * elongation
    fine = cv2.GaussianBlur(noise, (0, 0), sigmaX=across, sigmaY=along)
    fine = fine - cv2.GaussianBlur(fine, (0, 0), sigmaX=2 * across, sigmaY=2 * along)
    return np.asarray(fine / fine.std())


def draw(
    rng: np.random.Generator, view: View, density: float, family: Family, mean: float
) -> tuple[bytes, dict[str, Box]]:
    """One radiograph as encoded bytes, and where its density was drawn: x0, y0, x1, y1 pixels."""
    side = rng.choice(["L", "R"])
    angle = np.deg2rad(rng.uniform(-6, 6))
    scale = family.height / 512 * rng.uniform(0.92, 1.12, 2) * [1 if side == "L" else -1, 1]
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    size = np.array([family.width, family.height])
    linear = turn * scale
    shift = size * (0.5 + rng.uniform(-0.05, 0.05, 2))
    to_film = np.column_stack([linear, shift - linear @ ORIGIN])

    film = view.attenuation(rng, float(np.clip(density, -2.4, 2.4)))
    film = cv2.warpAffine(film, to_film, size.tolist(), flags=cv2.INTER_AREA)
    pixels = _expose(film, mean, rng)
    height, width = pixels.shape
    font = cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(pixels, STAMP, (8, height - 8), font, 0.4, 190, 1, cv2.LINE_AA)
    cv2.putText(pixels, str(side), (width - 34, 34), font, 0.9, 230, 2, cv2.LINE_AA)
    if family.rgb:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR)
    _, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])

    boxes = {}
    for region, (x0, y0, x1, y1) in view.boxes.items():
        corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]) @ linear.T + shift
        first = np.clip(np.floor(corners.min(0)), 0, size - 1).astype(int)
        last = np.clip(np.ceil(corners.max(0)), first + 1, size).astype(int)
        boxes[region] = (int(first[0]), int(first[1]), int(last[0]), int(last[1]))
    return encoded.tobytes(), boxes


def _expose(film: Image, mean: float, rng: np.random.Generator) -> Image:
    """Film as 8-bit gray levels of the given mean, so that brightness says nothing of density."""
    film = cv2.GaussianBlur(film, (0, 0), rng.uniform(0.4, 1.0))
    film = (film - film.min()) / (np.quantile(film, 0.999) - film.min())
    film = film.clip(0.0, 1.0)
    low, high = np.log(0.2), np.log(6.0)
    for _ in range(20):  # the gamma of this mean, by bisection on every 16th pixel
        middle = (low + high) / 2
        low, high = (
            (middle, high) if (film[::4, ::4] ** np.exp(middle)).mean() > mean else (low, middle)
        )
    film = film ** np.exp(low)
    film = mean + rng.uniform(0.75, 1.0) * (film - mean)
    film = 255 * film + rng.uniform(1.5, 5.0) * rng.standard_normal(film.shape, np.float32)
    return np.asarray(film.clip(0, 255).round().astype(np.uint8))
