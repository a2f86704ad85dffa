"""Saliency laid over the radiograph it belongs to. Needs no torch: the service draws with it."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from osteofusion.data.radiograph import Gray, RadiographPreprocessing
from osteofusion.errors import ConfigError

COLORMAPS = {
    "jet": cv2.COLORMAP_JET,
    "hot": cv2.COLORMAP_HOT,
    "viridis": cv2.COLORMAP_VIRIDIS,
}
LONGEST = 1600  # pixels of an overlay's longer side; a larger film is drawn smaller


def overlay(
    radiograph: Gray,
    saliency: NDArray[np.float32],
    preprocessing: RadiographPreprocessing,
    *,
    colormap: str = "jet",
    opacity: float = 0.4,
    spacing: float | None = None,
) -> Gray:
    """Colour the CLAHE-enhanced radiograph, in its own geometry, by a saliency map.

    The colour is as opaque as the map is high, up to `opacity` from half its maximum on, so that
    the film stays readable where the model did not look.

    Args:
        radiograph: (H, W) uint8, as `read_radiograph` returns it.
        saliency: (h, w) in [0, 1] over the square that the model saw.
        preprocessing: What brought the radiograph to that square.
        colormap: ``jet``, ``hot`` or ``viridis``.
        opacity: Of the colour where the map is high, in [0, 1].
        spacing: Millimetres a pixel; needed where `preprocessing` has a ``pixel_spacing``.

    Returns:
        (H, W, 3) uint8 RGB; of a film longer than `LONGEST` pixels, scaled down to that.

    Raises:
        ConfigError: Unknown colormap, or `opacity` outside [0, 1].
    """
    if colormap not in COLORMAPS:
        raise ConfigError(f"Unknown colormap {colormap!r}; choose {', '.join(COLORMAPS)}.")
    if not 0 <= opacity <= 1:
        raise ConfigError(f"The opacity is {opacity}; it must be a share between 0 and 1.")
    film = backdrop(radiograph)
    heat = in_radiograph(saliency, radiograph.shape, film.shape, preprocessing, spacing)
    levels = np.rint(heat * 255).astype(np.uint8)
    colour = cv2.cvtColor(cv2.applyColorMap(levels, COLORMAPS[colormap]), cv2.COLOR_BGR2RGB)
    alpha = (opacity * np.minimum(2 * heat, 1))[..., None]
    mixed = film[..., None] * (1 - alpha) + colour * alpha
    return cast("Gray", np.rint(mixed).astype(np.uint8))


def backdrop(radiograph: Gray) -> Gray:
    """The radiograph with local contrast equalised (CLAHE), at most `LONGEST` pixels long."""
    height, width = radiograph.shape
    scale = LONGEST / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        radiograph = cast("Gray", cv2.resize(radiograph, size, interpolation=cv2.INTER_AREA))
    return cast("Gray", cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(radiograph))


def in_radiograph(
    saliency: NDArray[np.float32],
    shape: tuple[int, ...],
    drawn: tuple[int, ...],
    preprocessing: RadiographPreprocessing,
    spacing: float | None = None,
) -> NDArray[np.float32]:
    """A map over the square as one over the radiograph, zero where the square cut it off.

    Args:
        saliency: (h, w) in [0, 1] over the square.
        shape: Height and width of the radiograph.
        drawn: Height and width of the map that is wanted.
        preprocessing: What brought the radiograph to the square.
        spacing: Millimetres a pixel of the radiograph.
    """
    side = preprocessing.size
    square = cv2.resize(saliency, (side, side), interpolation=cv2.INTER_CUBIC)
    to_square = preprocessing.to_square((shape[0], shape[1]), spacing)
    scale = np.array([shape[1] / drawn[1], shape[0] / drawn[0]])
    to_radiograph = np.vstack([np.column_stack([np.diag(scale), (scale - 1) / 2]), [0, 0, 1]])
    heat = cv2.warpAffine(
        square,
        to_square @ to_radiograph,
        (drawn[1], drawn[0]),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
    )
    return cast("NDArray[np.float32]", heat.clip(0, 1))
