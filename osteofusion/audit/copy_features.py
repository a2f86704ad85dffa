"""Local features of a radiograph, and their short binary codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from osteofusion.data.radiograph import Gray

SIDE = 384
"""Longer side, in pixels, of the picture in which features are found."""

Codes = NDArray[np.uint64]
Floats = NDArray[np.float32]

_N_FEATURES = 400
_OCTAVES = 4
_BITS = 128
_COMPONENTS = 32

# What a left-right flip of the picture does to a SIFT descriptor of 4 x 4 cells by 8 directions.
_FLIP = np.array(
    [((3 - y) * 4 + x) * 8 + (8 - d) % 8 for y in range(4) for x in range(4) for d in range(8)]
)


@dataclass(frozen=True)
class Features:
    """Keypoints of one radiograph in its picture of `SIDE` pixels.

    Attributes:
        points: (N, 4) float32: x, y, diameter in pixels and direction in degrees.
        shape: height and width of that picture.
        descriptors: (N, 128) uint8 SIFT descriptors.
    """

    points: Floats
    shape: tuple[int, int]
    descriptors: NDArray[np.uint8]


@dataclass(frozen=True)
class CodedFeatures:
    """Features as they are kept in memory, 48 bytes each.

    Attributes:
        points: (N, 4) float32 as in `Features`.
        shape: height and width of the picture that `points` refer to.
        codes: (N, 2) uint64, a code of 128 bits each.
        flipped: (N, 2) uint64, the codes that the mirrored radiograph would have.
    """

    points: Floats
    shape: tuple[int, int]
    codes: Codes
    flipped: Codes


def scaled_shape(shape: tuple[int, ...], side: int) -> tuple[int, int]:
    """Height and width after scaling the longer one to `side` pixels."""
    height, width = (max(1, round(length * side / max(shape))) for length in shape)
    return height, width


def scale_to(image: Gray, side: int) -> Floats:
    """Scale (H, W) uint8 so that the longer side has `side` pixels, as float32."""
    height, width = scaled_shape(image.shape, side)
    how = cv2.INTER_AREA if side < max(image.shape) else cv2.INTER_CUBIC
    return cast("Floats", cv2.resize(image, (width, height), interpolation=how).astype(np.float32))


def even_contrast(image: Floats, sigma: float = 12.0) -> Gray:
    """Remove local mean and contrast, so that exposure, gamma and windowing hardly matter."""
    detail = image - cv2.GaussianBlur(image, (0, 0), sigma)
    spread = np.sqrt(cv2.GaussianBlur(detail * detail, (0, 0), sigma))
    # Below 3 gray levels the picture is noise or empty, and is not to be blown up.
    return cast("Gray", np.clip(128 + 40 * detail / (spread + 3), 0, 255).astype(np.uint8))


def extract_features(image: Gray) -> Features:
    """SIFT features (Lowe, IJCV 2004) of an (H, W) uint8 radiograph, spread over sizes.

    The strongest ones alone would all be small, and a crop that is enlarged to the old size shares
    its small features with the large ones of the whole.
    """
    picture = even_contrast(scale_to(image, SIDE))
    sift = cv2.SIFT.create(contrastThreshold=0.01, edgeThreshold=8)
    found = sift.detect(picture, None)
    size = np.array([point.size for point in found], dtype=np.float32)
    octave = np.clip(np.log2(np.maximum(size, 1) / 1.8).astype(int), 0, _OCTAVES - 1)
    strength = np.array([point.response for point in found])
    chosen: list[int] = []
    for wanted in reversed(range(_OCTAVES)):  # large ones are few and hand on what they leave
        here = np.flatnonzero(octave == wanted)
        here = here[np.argsort(-strength[here], kind="stable")]
        chosen += here[: (_N_FEATURES - len(chosen)) // (wanted + 1)].tolist()
    kept, descriptors = sift.compute(picture, [found[i] for i in chosen])
    shape = (picture.shape[0], picture.shape[1])
    if descriptors is None:
        return Features(np.zeros((0, 4), np.float32), shape, np.zeros((0, 128), np.uint8))
    points = np.array([(*k.pt, k.size, k.angle) for k in kept], dtype=np.float32)
    return Features(points, shape, descriptors.astype(np.uint8))


class Coder:
    """Binary codes whose Hamming distance follows the angle between RootSIFT descriptors.

    RootSIFT: Arandjelovic and Zisserman, CVPR 2012. The code is that of iterative quantisation
    without the iterations (Gong et al., PAMI 2013): the leading principal components, half
    whitened, under random rotations; each sign is a bit.

    Args:
        sample: features of some radiographs of the data set.
    """

    def __init__(self, sample: Sequence[Features]) -> None:
        none = np.zeros((0, 128), np.uint8)
        found = np.concatenate([none, *(features.descriptors for features in sample)])
        rooted = _root(np.concatenate([found, found[:, _FLIP]]))
        self._mean = rooted.sum(axis=0) / max(len(rooted), 1)
        centred = rooted - self._mean
        variance, axes = np.linalg.eigh(centred.T @ centred / max(len(centred), 1))
        scale = np.maximum(variance[::-1][:_COMPONENTS], 1e-6) ** -0.25
        rng = np.random.default_rng(0)
        rotations = [
            np.linalg.qr(rng.standard_normal((_COMPONENTS, _COMPONENTS)))[0]
            for _ in range(_BITS // _COMPONENTS)
        ]
        self._axes: Floats = axes[:, ::-1][:, :_COMPONENTS] * scale @ np.hstack(rotations)
        self._axes = self._axes.astype(np.float32)

    def __call__(self, features: Features) -> CodedFeatures:
        """Codes of the features and of their mirror images."""
        return CodedFeatures(
            features.points,
            features.shape,
            self._encode(features.descriptors),
            self._encode(features.descriptors[:, _FLIP]),
        )

    def _encode(self, descriptors: NDArray[np.uint8]) -> Codes:
        signs = (_root(descriptors) - self._mean) @ self._axes > 0
        return np.packbits(signs, axis=1).view(np.uint64).reshape(-1, _BITS // 64)


def _root(descriptors: NDArray[np.uint8]) -> Floats:
    values = descriptors.astype(np.float32)
    rooted: Floats = np.sqrt(values / np.maximum(values.sum(axis=1, keepdims=True), 1))
    return rooted
