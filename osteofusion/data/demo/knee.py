"""An anteroposterior knee: x to the fibula's side, y down, joint line at y = 0."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from osteofusion.data.demo.drawing import CANVAS, ORIGIN, Image, View, depth_below, strands

_FEMUR = (
    (-46, -420), (-45, -200), (-52, -150), (-77, -100), (-94, -62), (-92, -26), (-70, -7),
    (-40, -6), (-18, -22), (0, -42), (18, -22), (40, -5), (72, -5), (94, -26), (96, -64),
    (76, -106), (52, -152), (45, -202), (46, -420),
)  # fmt: skip
_TIBIA = (
    (-42, 420), (-44, 200), (-54, 130), (-76, 85), (-93, 46), (-90, 15), (-60, 10), (-25, 14),
    (-10, 0), (0, 8), (10, 0), (25, 14), (62, 10), (91, 15), (94, 42), (78, 82), (54, 132),
    (44, 202), (42, 420),
)  # fmt: skip
_FIBULA = (
    (74, 420), (76, 140), (68, 96), (72, 68), (88, 54), (106, 66), (108, 94), (98, 138), (94, 420),
)  # fmt: skip
_SKIN = (
    (-165, -420), (-158, -250), (-132, -110), (-126, 0), (-124, 70), (-136, 200), (-120, 420),
    (128, 420), (146, 200), (138, 70), (128, 0), (134, -110), (160, -250), (168, -420),
)  # fmt: skip
_BOXES = {
    "femur_medial_cortex": (-51, -235, -25, -150),
    "femur_lateral_cortex": (25, -235, 51, -150),
    "tibia_medial_cortex": (-50, 150, -24, 235),
    "tibia_lateral_cortex": (24, 150, 50, 235),
    "femur_trabecular": (-80, -105, 80, -20),
    "tibia_trabecular": (-80, 20, 80, 105),
}


def _attenuation(rng: np.random.Generator, density: float) -> Image:
    """Draw a knee whose cortices and trabeculae show ``density``, in SD: (H, W).

    Thin cortices (Barnett and Nordin 1960) and few, widely spaced trabeculae of which only the
    weight-bearing ones are left (Singh 1970) stand for low density. The fibula carries no signal.
    """
    y = np.abs(np.arange(CANVAS[0], dtype=np.float32)[:, None] - ORIGIN[1])
    shaft = expit((y - 120) / 12)
    metaphysis = np.exp(-(((y - 62) / 48) ** 2))

    skin = depth_below(rng, _SKIN)
    film = 0.34 * (1 - np.exp(-skin / 40)) + 0.05 * (skin > 0) * np.exp(-(((skin - 9) / 7) ** 2))
    pattern = strands(rng, 5.6 - 1.0 * density, 2.2 - 0.4 * density)
    for points, thickness, contrast in (
        (_FEMUR, 9.0 + 2.6 * density, 0.036 + 0.010 * density),
        (_TIBIA, 9.0 + 2.6 * density, 0.036 + 0.010 * density),
        (_FIBULA, rng.uniform(4, 7), 0.02),
    ):
        depth = depth_below(rng, points)
        cortex = 2.4 + (thickness - 2.4) * shaft
        shell = np.minimum(depth, 1) * expit((cortex - depth) / 0.9)
        body = 1 - np.exp(-depth / 9)
        film += (0.20 - 0.05 * shaft) * body + 0.24 * shell * (0.6 + 0.4 * shaft)
        film += contrast * metaphysis * body * pattern
    patella = ((np.arange(CANVAS[1]) - ORIGIN[0] - rng.normal(2, 6)) / 44) ** 2
    top = np.arange(CANVAS[0])[:, None] - ORIGIN[1]
    disc = 1 - patella[None, :] - ((top + rng.normal(96, 10)) / 46) ** 2
    film += 0.07 * expit(12 * disc)
    return film.astype(np.float32)


KNEE = (View("", _attenuation, _BOXES),)
