"""Augmentation: deterministic in the seed, within its limits, one resampling step."""

import multiprocessing
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osteofusion.data.transforms import Augmentation, Augmenter
from osteofusion.errors import ConfigError

NOTHING = dict.fromkeys(
    ["rotation", "horizontal_flip", "brightness", "contrast", "shift", "scale", "shear"], 0.0
)
EVERYTHING = Augmentation(20, 0.5, 0.2, 0.2, 0.1, 0.2, 10)


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)


def only(**changes):
    return Augmenter(Augmentation(**{**NOTHING, **changes}))


def test_the_seed_alone_decides(image):
    forward = Augmenter(EVERYTHING)
    results = {seed: forward(image, seed) for seed in range(20)}
    assert len({result.tobytes() for result in results.values()}) == 20
    backward = Augmenter(EVERYTHING)
    for seed in (*reversed(range(20)), 7, 7, 3):
        np.testing.assert_array_equal(backward(image, seed), results[seed])


def test_global_generators_are_neither_read_nor_moved(image):
    import random

    augmenter = Augmenter(EVERYTHING)
    random.seed(1), np.random.seed(1)  # noqa: NPY002
    first, state = augmenter(image, 5), random.getstate()
    random.seed(2), np.random.seed(2)  # noqa: NPY002
    np.testing.assert_array_equal(augmenter(image, 5), first)
    random.seed(1)
    assert random.getstate() == state


def _share(arguments):
    image, seeds = arguments
    augmenter = Augmenter(EVERYTHING) if _inherited is None else _inherited
    return {seed: augmenter(image, seed) for seed in seeds}


_inherited = None


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_do_not_depend_on_the_number_of_forked_workers(image, workers, monkeypatch):
    augmenter = Augmenter(EVERYTHING)
    expected = {seed: augmenter(image, seed) for seed in range(12)}
    monkeypatch.setattr(sys.modules[__name__], "_inherited", augmenter)  # as a DataLoader does
    shares = [(image, range(i, 12, workers)) for i in range(workers)]
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        for part in pool.map_async(_share, shares, chunksize=1).get(timeout=60):
            for seed, result in part.items():
                np.testing.assert_array_equal(result, expected[seed])


def test_a_pickled_copy_does_the_same(image):
    augmenter = Augmenter(EVERYTHING)
    copy = pickle.loads(pickle.dumps(augmenter))
    for seed in (4, 2, 4):
        np.testing.assert_array_equal(copy(image, seed), augmenter(image, seed))


def test_zero_everywhere_changes_nothing(image):
    augmenter = Augmenter(Augmentation(**NOTHING))
    for seed in range(10):
        np.testing.assert_array_equal(augmenter(image, seed), image)


def test_the_input_is_not_written_to(image):
    before = image.copy()
    augmenter = Augmenter(EVERYTHING)
    for seed in range(20):
        augmenter(image, seed)
    np.testing.assert_array_equal(image, before)


def test_flip_mirrors_with_its_probability(image):
    np.testing.assert_array_equal(only(horizontal_flip=1)(image, 0), image[:, ::-1])
    augmenter = only(horizontal_flip=0.5)
    flipped = [bool((augmenter(image, seed) != image).any()) for seed in range(400)]
    assert 0.4 < np.mean(flipped) < 0.6


def test_shift_moves_black_in_and_stays_within_its_limit():
    white = np.full((100, 100), 255, np.uint8)
    augmenter = only(shift=0.1)
    moved = [augmenter(white, seed) for seed in range(50)]
    lost = [max((m[50] == 0).sum(), (m[:, 50] == 0).sum()) for m in moved]
    assert max(lost) <= 10
    assert max(lost) >= 7
    assert all(set(m.ravel()) >= {255} for m in moved)


def test_rotation_stays_within_its_limit():
    line = np.zeros((101, 101), np.uint8)
    line[50, 10:91] = 255
    augmenter = only(rotation=15)
    angles = []
    for seed in range(60):
        y, x = np.nonzero(augmenter(line, seed) > 60)
        angles.append(np.degrees(np.arctan(np.polyfit(x - 50.0, y - 50.0, 1)[0])))
    assert max(map(abs, angles)) <= 15.5
    assert min(angles) < -8
    assert max(angles) > 8


def test_scale_keeps_the_aspect_ratio_and_its_limit():
    square = np.zeros((100, 100), np.uint8)
    square[30:70, 30:70] = 255
    augmenter = only(scale=0.2)
    sides = []
    for seed in range(60):
        scaled = augmenter(square, seed) > 127
        height, width = scaled.any(axis=1).sum(), scaled.any(axis=0).sum()
        assert abs(int(height) - int(width)) <= 1
        sides.append(height)
    assert 31 <= min(sides) < 36
    assert 44 < max(sides) <= 49


def test_brightness_and_contrast_stay_within_their_limits():
    gray = np.full((32, 32), 100, np.uint8)
    for augmenter, limit in ((only(brightness=0.2), 0.2 * 255), (only(contrast=0.2), 0.2 * 100)):
        changes = [int(augmenter(gray, seed)[0, 0]) - 100 for seed in range(100)]
        assert max(map(abs, changes)) <= limit + 1
        assert min(changes) < -limit / 2
        assert max(changes) > limit / 2


def test_geometry_is_resampled_once():
    """Rotation, scale, shift and shear together blur no more than one bilinear step does."""
    stripes = np.zeros((128, 128), np.uint8)
    stripes[:, ::4] = stripes[:, 1::4] = 255
    together = Augmenter(Augmentation(10, 0, 0, 0, 0.05, 0.1, 5))
    alone = only(rotation=10)

    def contrast(augmenter):
        return np.mean([augmenter(stripes, seed)[40:88, 40:88].std() for seed in range(30)])

    assert contrast(together) > 0.93 * contrast(alone)


@settings(max_examples=20, deadline=None)
@given(st.integers(16, 200), st.integers(16, 200), st.integers(0, 2**63 - 1))
def test_shape_and_dtype_are_kept(height, width, seed):
    image = np.full((height, width), 128, np.uint8)
    changed = Augmenter(EVERYTHING)(image, seed)
    assert changed.shape == image.shape
    assert changed.dtype == np.uint8


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rotation", -1),
        ("rotation", 181),
        ("horizontal_flip", 1.5),
        ("brightness", float("nan")),
        ("scale", 1.0),
        ("shear", 90),
    ],
)
def test_values_out_of_range_are_named(name, value):
    with pytest.raises(ConfigError, match=f"{name} is {value}"):
        Augmentation(**{name: value})


def test_albumentations_is_imported_when_needed_and_stays_off_the_network():
    code = """
import sys, socket
def refuse(*a, **k): raise SystemExit("the network was asked")
socket.socket.connect = socket.getaddrinfo = refuse
import osteofusion.data.transforms as transforms
assert "albumentations" not in sys.modules and "torch" not in sys.modules
transforms.Augmenter(transforms.Augmentation())
assert "albumentations" in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
