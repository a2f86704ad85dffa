"""Overlays lie where the radiograph is, whatever was done to it for the model."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from osteofusion.data.radiograph import RadiographPreprocessing
from osteofusion.errors import ConfigError
from osteofusion.explain.overlay import LONGEST, backdrop, in_radiograph, overlay


@given(
    height=st.integers(60, 700),
    width=st.integers(60, 700),
    size=st.integers(32, 300),
    scale=st.none() | st.floats(0.3, 3.0),
    at=st.tuples(st.floats(0.05, 0.95), st.floats(0.05, 0.95)),
)
def test_a_disc_comes_back_to_where_it_was_drawn(height, width, size, scale, at):
    spacing = None if scale is None else 0.2 * scale
    preprocessing = RadiographPreprocessing(size, pixel_spacing=None if scale is None else 0.2)
    factor = size / max(height, width) if scale is None else scale
    x, y = round(at[0] * width), round(at[1] * height)
    radius = int(np.ceil(max(3, 3 / factor)))
    inside = radius <= x < width - radius and radius <= y < height - radius
    there = preprocessing.to_square((height, width), spacing) @ [x, y, 1]
    margin = radius * factor + 1
    assume(inside and margin <= there.min() and there.max() <= size - 1 - margin)
    film = np.zeros((height, width), np.uint8)
    cv2.circle(film, (x, y), radius, 255, -1)

    square = preprocessing(film, spacing) / np.float32(255)
    found = np.argwhere(square > 0.5).mean(axis=0)[::-1]
    np.testing.assert_allclose(found, there, atol=1)

    heat = in_radiograph(square, film.shape, film.shape, preprocessing, spacing)
    assert heat.shape == film.shape
    back = np.argwhere(heat > 0.5).mean(axis=0)[::-1]
    np.testing.assert_allclose(back, (x, y), atol=max(1.5, 1 / factor))


def test_what_the_square_cut_off_has_no_colour():
    preprocessing = RadiographPreprocessing(64, pixel_spacing=0.2)
    heat = in_radiograph(np.ones((4, 4), np.float32), (200, 64), (200, 64), preprocessing, 0.2)
    seen = np.zeros(200, bool)
    seen[68:132] = True
    assert heat[seen].min() > 0.99
    assert heat[~seen][:-1].max() < 0.01  # but for the interpolated edge
    assert heat[:67].max() == heat[133:].max() == 0


@pytest.mark.parametrize(
    ("colormap", "strongest"), [("jet", 0), ("hot", 0), ("viridis", 1)], ids=str
)
def test_colour_is_red_green_blue_and_only_where_the_map_is_high(colormap, strongest):
    film = np.full((90, 60), 100, np.uint8)
    saliency = np.zeros((9, 9), np.float32)
    saliency[2, 3] = 1
    preprocessing = RadiographPreprocessing(36)
    drawn = overlay(film, saliency, preprocessing, colormap=colormap, opacity=0.9)
    heat = in_radiograph(saliency, film.shape, film.shape, preprocessing)
    peak = drawn[np.unravel_index(heat.argmax(), heat.shape)].astype(int)
    assert peak.argmax() == strongest
    assert peak.max() - peak.min() > 40
    grey = np.repeat(backdrop(film)[..., None], 3, axis=2)
    assert np.array_equal(drawn[heat == 0], grey[heat == 0])
    assert (heat == 0).mean() > 0.5
    plain = overlay(film, saliency, preprocessing, colormap=colormap, opacity=0)
    assert np.array_equal(plain, grey)


def test_a_large_film_is_drawn_at_a_bounded_size():
    film = np.zeros((3000, 4000), np.uint8)
    drawn = overlay(film, np.eye(4, dtype=np.float32), RadiographPreprocessing(64))
    assert drawn.shape == (LONGEST * 3 // 4, LONGEST, 3)
    # The largest cells of the letterboxed diagonal are its two middle ones.
    colour = np.ptp(drawn.astype(int), axis=2)
    assert colour[400, 600] > 40
    assert colour[400, 1000] < 10


def test_wrong_settings_are_refused():
    film, saliency = np.zeros((40, 40), np.uint8), np.ones((2, 2), np.float32)
    square = RadiographPreprocessing(32)
    with pytest.raises(ConfigError, match="'rainbow'; choose jet, hot, viridis"):
        overlay(film, saliency, square, colormap="rainbow")
    with pytest.raises(ConfigError, match="opacity is 2"):
        overlay(film, saliency, square, opacity=2)


def test_drawing_needs_no_torch():
    code = "import sys, osteofusion.explain.overlay as o; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
