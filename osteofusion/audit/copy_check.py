"""Do two radiographs show the same film? Registration, then correlation of fine detail."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from osteofusion.audit.copy_features import (
    SIDE,
    CodedFeatures,
    Floats,
    even_contrast,
    scale_to,
    scaled_shape,
)
from osteofusion.data.radiograph import Gray

_MIN_INLIERS = 8  # of 400; the hardest copies, a quarter of a film, have 10
_COMPARED_SIDE = 768
_WINDOW = (25, 25)
_LEVEL, _SLOPE = 0.55, 0.45
_STEPS = 5  # more change nothing for copies, and take long where there is nothing to find
_MIN_OVERLAP = 0.3
_MIN_DETAILED = 0.02
# Gray levels, and their square: above what JPEG leaves in the black around a knee.
_MIN_DETAIL, _MIN_VARIANCE = 0.3, 0.2

_Affine = NDArray[np.floating[Any]]
_Image = NDArray[Any]  # where the annotations of OpenCV leave the element type open
_Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Comparison:
    """How one radiograph lies on another, and how well their fine detail agrees there.

    Attributes:
        correlation: median over all places with detail of the normalised cross-correlation in
            windows of 25 pixels, after a band-pass; 1 for equal pixels.
        side: root of the pixels that the whole of what they show has at the resolution compared.
        transform: (3, 3) affine map of the first one's pixels to the second one's.
        mirrored: whether one is the mirror image of the other.
        scale: pixels of the second for one of the first.
        rotation: degrees by which the first is turned, before any mirroring.
        overlap_a: share of the first that the second covers.
        overlap_b: share of the second that the first covers.
        brightness: median absolute difference of gray level in the overlap.
    """

    correlation: float
    side: float
    transform: _Affine
    mirrored: bool
    scale: float
    rotation: float
    overlap_a: float
    overlap_b: float
    brightness: float

    @property
    def same_film(self) -> bool:
        """Whether the detail agrees better than that of different knees does at this resolution.

        Where pixels are coarse, all knees look alike: Fisher's z of the correlation of different
        ones grows with the logarithm of the pixel. The line stands between them and copies down to
        JPEG quality 20, a quarter of the width or a quarter of the film.
        """
        coarser = max(0.0, math.log2(_COMPARED_SIDE / self.side))
        return self.correlation >= math.tanh(_LEVEL + _SLOPE * coarser)


def register(a: CodedFeatures, b: CodedFeatures, *, mirrored: bool) -> _Affine | None:
    """Similarity transform (3, 3) of the first picture of `SIDE` pixels onto the (mirrored) second.

    None where RANSAC (Fischler and Bolles, CACM 1981) finds too few features that agree on place,
    size and direction.
    """
    codes = b.flipped if mirrored else b.codes
    matcher = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True)
    matches = matcher.match(a.codes.view(np.uint8), codes.view(np.uint8))
    if len(matches) < _MIN_INLIERS:
        return None
    source = a.points[[match.queryIdx for match in matches]]
    target = b.points[[match.trainIdx for match in matches]]
    if mirrored:
        target[:, 0] = b.shape[1] - 1 - target[:, 0]
        target[:, 3] = 180 - target[:, 3]
    matrix, inlier = cv2.estimateAffinePartial2D(
        np.ascontiguousarray(source[:, :2]),
        np.ascontiguousarray(target[:, :2]),
        ransacReprojThreshold=4,
        maxIters=1000,
    )
    if matrix is None or np.linalg.det(matrix[:, :2]) < 1e-4:  # all on one point
        return None
    scale, rotation = _scale_and_rotation(matrix)
    turn = (target[:, 3] - source[:, 3] - rotation + 180) % 360 - 180
    growth = np.log2(target[:, 2] / source[:, 2] / scale)
    agreeing = (inlier.ravel() > 0) & (np.abs(turn) < 20) & (np.abs(growth) < 0.6)
    if agreeing.sum() < _MIN_INLIERS:
        return None
    return np.vstack([matrix, [0, 0, 1]])


def compare(a: Gray, b: Gray, matrix: _Affine, *, mirrored: bool) -> Comparison | None:
    """Refine a registration and correlate what it lays upon each other.

    Args:
        a: (H, W) uint8.
        b: (H, W) uint8.
        matrix: from :func:`register`.
        mirrored: as given to it.

    Returns:
        None where the two hardly overlap or the overlap has no detail.
    """
    if mirrored:
        b = np.ascontiguousarray(b[:, ::-1])
    start = np.linalg.inv(_to_picture(b, SIDE)) @ matrix @ _to_picture(a, SIDE)
    # The finer of the two is brought to the grid of the coarser, so that no detail is invented.
    finer_is_a = abs(np.linalg.det(start[:2, :2])) <= 1
    fine, coarse = (a, b) if finer_is_a else (b, a)
    placed = _refine(fine, coarse, start if finer_is_a else np.linalg.inv(start))
    native: _Affine = placed if finer_is_a else np.linalg.inv(placed)
    overlap_a, overlap_b = _overlaps(a, b, native)
    if max(overlap_a, overlap_b) < _MIN_OVERLAP:
        return None
    scale, rotation = _scale_and_rotation(native)
    flip = np.array([[-1.0, 0, b.shape[1] - 1], [0, 1, 0], [0, 0, 1]])
    found = None
    # Most pairs fail at the low resolution already, at a third of the cost.
    for side in sorted({min(max(coarse.shape), side) for side in (SIDE, _COMPARED_SIDE)}):
        grid = scale_to(coarse, side)
        moved, inside = _warp(fine, _to_picture(coarse, side) @ placed, grid)
        inside = cv2.erode(inside, np.ones((9, 9), np.uint8))
        covered = inside > 0
        correlation = _median_correlation(moved, grid, covered)
        if correlation is None:
            return None
        found = Comparison(
            correlation=correlation,
            side=math.sqrt(covered.sum() / min(overlap_a, overlap_b)),
            transform=flip @ native if mirrored else native,
            mirrored=mirrored,
            scale=scale,
            rotation=rotation,
            overlap_a=overlap_a,
            overlap_b=overlap_b,
            brightness=float(np.median(np.abs(moved[covered] - grid[covered]))),
        )
        if not found.same_film:
            break
    return found


def _refine(fine: Gray, coarse: Gray, placed: _Affine) -> _Affine:
    """Full affine map by enhanced correlation (Evangelidis and Psarakis, PAMI 2008)."""
    side = min(max(coarse.shape), SIDE)
    grid = scale_to(coarse, side)
    to_grid = _to_picture(coarse, side) @ placed
    moved, inside = _warp(fine, to_grid, grid)
    step = np.eye(3, dtype=np.float32)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, _STEPS, 1e-4)
    inside = cv2.erode(inside, np.ones((5, 5), np.uint8))
    try:
        _, step[:2] = cv2.findTransformECC(
            even_contrast(grid),
            even_contrast(moved),
            step[:2],
            cv2.MOTION_AFFINE,
            criteria,
            inside,
            5,
        )
    except cv2.error:  # it does not converge, as for most pairs that are no copies
        return placed
    return np.linalg.inv(_to_picture(coarse, side)) @ np.linalg.inv(step) @ to_grid


def _median_correlation(a: Floats, b: Floats, inside: _Mask) -> float | None:
    """Of the detail of 1 to 3 pixels: knees agree in what is larger, copies in this too.

    The median does not mind a label that different films share, nor a word that is burned into one
    of two copies. Cut to its usual size, detail in bone counts as much as outlines and frames do.
    """
    weight = inside.astype(np.float32)
    total = cv2.boxFilter(weight, -1, _WINDOW) + 1e-6

    def mean(values: Floats) -> Floats:
        return cast("Floats", cv2.boxFilter(values * weight, -1, _WINDOW) / total)

    a, b = _detail(a, inside), _detail(b, inside)
    mean_a, mean_b = mean(a), mean(b)
    variance_a, variance_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    detailed = inside & (variance_a > _MIN_VARIANCE) & (variance_b > _MIN_VARIANCE)
    if detailed.sum() < max(_MIN_DETAILED * inside.sum(), _WINDOW[0]):
        return None
    covariance = mean(a * b) - mean_a * mean_b
    local = covariance[detailed] / np.sqrt(variance_a[detailed] * variance_b[detailed])
    return min(1.0, float(np.median(local)))


def _detail(image: Floats, inside: _Mask) -> Floats:
    """Band-pass of 1 to 3 pixels, cut to its usual size where there is any."""
    detail = cv2.GaussianBlur(image, (0, 0), 1) - cv2.GaussianBlur(image, (0, 0), 3)
    size = np.abs(detail[inside])
    size = size[size > _MIN_DETAIL]
    usual = max(0.5, 1.4826 * float(np.median(size))) if size.size else 0.5
    return cast("Floats", np.clip(detail, -usual, usual))


def _warp(image: Gray, matrix: _Affine, grid: Floats) -> tuple[_Image, _Image]:
    """Bring an image to the pixels of a coarser grid; and 1 where it covers the grid, else 0."""
    scale, _ = _scale_and_rotation(matrix)
    # A warp does not average what it leaves out, so the picture is made small before.
    side = max(1, round(min(scale, 1) * max(image.shape)))
    small = scale_to(image, side)
    rest = (matrix @ np.linalg.inv(_to_picture(image, side)))[:2]
    size = (grid.shape[1], grid.shape[0])
    moved = cv2.warpAffine(
        small, rest, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    ones = np.ones(small.shape, np.uint8)
    return moved, cv2.warpAffine(ones, rest, size, flags=cv2.INTER_NEAREST)


def _overlaps(a: Gray, b: Gray, native: _Affine) -> tuple[float, float]:
    """Share of each that the other covers, (0..1, 0..1)."""
    (height_a, width_a), (height_b, width_b) = a.shape, b.shape
    corners = np.array([[0, 0, 1], [width_a, 0, 1], [width_a, height_a, 1], [0, height_a, 1]])
    frame_a = (corners @ native[:2].T).astype(np.float32)
    frame_b = np.array([[0, 0], [width_b, 0], [width_b, height_b], [0, height_b]], dtype=np.float32)
    shared, _ = cv2.intersectConvexConvex(frame_a, frame_b)
    area_a = cv2.contourArea(frame_a)
    return min(1.0, shared / max(area_a, 1e-6)), min(1.0, shared / b.size)


def _scale_and_rotation(matrix: NDArray[Any]) -> tuple[float, float]:
    scale = math.sqrt(abs(np.linalg.det(matrix[:2, :2])))
    rotation = math.atan2(matrix[1, 0] - matrix[0, 1], matrix[0, 0] + matrix[1, 1])
    return scale, math.degrees(rotation)


def _to_picture(image: Gray, side: int) -> _Affine:
    """Pixel coordinates of an image to those of its picture of `side` pixels."""
    height, width = scaled_shape(image.shape, side)
    x, y = width / image.shape[1], height / image.shape[0]
    return np.array([[x, 0, x / 2 - 0.5], [0, y, y / 2 - 0.5], [0, 0, 1]])
