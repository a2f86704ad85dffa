"""Is this radiograph of the kind the model was trained on? Told by how far its features lie."""

from __future__ import annotations

import os
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from osteofusion.errors import OsteofusionError
from osteofusion.files import atomic_path

Floats = NDArray[np.float64]

MIN_ROWS = 20
FLAGGED = 0.01  # of radiographs like those of training, about
_DIRECTIONS = 64  # at most; 331 kB of a bundle at 1280 features
_FOLDS = 5


@dataclass(frozen=True)
class Embedding:
    """Where the features of training radiographs lie: summary statistics, no single radiograph.

    Attributes:
        mean: (D,) of each feature, after a radiograph's features are brought to length 1.
        scale: (D,) its spread.
        directions: (k, D) orthonormal, of the largest variance of the scaled features.
        variances: (k,) along them, shrunk.
        rest: Variance along every other direction, shrunk.
        threshold: Distance above which a radiograph is unlike those of training.
    """

    mean: Floats
    scale: Floats
    directions: Floats
    variances: Floats
    rest: float
    threshold: float

    def distance(self, features: NDArray[np.float32]) -> Floats:
        """Mahalanobis distance (n,) of features (n, D), or of maps (n, D, h, w) by their mean.

        1 is the root mean square that the statistics expect of training radiographs.
        """
        scaled = (_directions(features) - self.mean) / self.scale
        along = scaled @ self.directions.T
        left = np.maximum((scaled**2).sum(axis=1) - (along**2).sum(axis=1), 0)
        squares = (along**2 / self.variances).sum(axis=1) + left / self.rest
        distances: Floats = np.sqrt(squares / len(self.mean))
        return distances

    def unlike(self, features: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Whether each radiograph is unlike those of training, (n,); NaN features are.

        Args:
            features: As for `distance`.
        """
        return ~(self.distance(features) <= self.threshold)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write plain arrays as .npz."""
        arrays: dict[str, Any] = {
            name: value.astype(np.float32) if isinstance(value, np.ndarray) else np.array(value)
            for name, value in asdict(self).items()
        }
        with atomic_path(path) as temporary:
            np.savez(temporary, **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Embedding:
        """Read what `save` wrote.

        Raises:
            OsteofusionError: The file is missing or damaged.
        """
        try:
            with np.load(Path(path), allow_pickle=False) as stored:
                held = {name: stored[name].astype(np.float64) for name in cls.__annotations__}
            rest, threshold = (float(held.pop(name)) for name in ("rest", "threshold"))
        except (OSError, ValueError, TypeError, KeyError, zipfile.BadZipFile):
            raise OsteofusionError(
                f"{path} cannot be read as the statistics of an embedding; export the model again."
            ) from None
        return cls(**held, rest=rest, threshold=threshold)


def fit_embedding(features: NDArray[np.float32]) -> Embedding:
    """Describe training radiographs by their features, and choose when another is unlike them.

    The distance is Mahalanobis' (Lee et al., arXiv 1807.03888) on standardised features, with a
    covariance shrunk as Ledoit and Wolf (2004) have it, since there are fewer radiographs than
    features. Its leading directions are kept and the others share one variance, so that what lies
    outside the training radiographs' subspace counts most (as in ViM, arXiv 2203.10807). Features
    are brought to length 1 first: an encoder answers to what it does not know with short ones,
    which would lie near every mean. That matters for fine-tuned encoders; as ImageNet left them,
    hands lie far from knees by any of these distances.

    Threshold: the 99 % quantile of the training radiographs' own distances, each from statistics
    of the other four fifths; identical radiographs are never on both sides.

    Args:
        features: (n, D) of training radiographs, or maps (n, D, h, w), whose mean counts.

    Raises:
        ValueError: Fewer than 20 different radiographs, features that are not finite, or none that
            varies; one sentence.
    """
    values = _directions(features)
    if not np.isfinite(values).all():
        raise ValueError("some features of training radiographs are not finite")
    _, kinds = np.unique(values, axis=0, return_inverse=True)
    kinds = kinds.ravel()
    if (count := int(kinds.max(initial=-1)) + 1) < MIN_ROWS:
        raise ValueError(f"there are {count} different training radiographs, and it takes 20")
    folds = np.random.default_rng(0).permutation(count)[kinds] % _FOLDS
    distances = np.empty(len(values))
    for fold in range(_FOLDS):
        held = folds == fold
        distances[held] = _describe(values[~held], np.inf).distance(values[held])
    return _describe(values, float(np.quantile(distances, 1 - FLAGGED)))


def _directions(features: NDArray[np.float32]) -> Floats:
    """Features as float64 rows of length 1; maps by their spatial mean."""
    values = np.asarray(features, dtype=np.float64)
    values = values.mean(axis=(2, 3)) if values.ndim == 4 else values
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):  # infinity becomes NaN, which is unlike everything
        return values / np.where(lengths > 0, lengths, 1)


def _describe(values: Floats, threshold: float) -> Embedding:
    # Here and not above: predicting needs no scikit-learn.
    from sklearn.covariance import ledoit_wolf_shrinkage

    mean, spread = values.mean(axis=0), values.std(axis=0)
    if not spread.any():
        raise ValueError("the features are the same in all training radiographs")
    # A feature that hardly varies in training must not decide by itself.
    scale = spread + 0.1 * spread.mean()
    scaled = (values - mean) / scale
    _, lengths, directions = np.linalg.svd(scaled, full_matrices=False)
    variances = lengths**2 / len(scaled)
    shrinkage = ledoit_wolf_shrinkage(scaled, assume_centered=True)
    floor = shrinkage * variances.sum() / scaled.shape[1]
    kept = min(_DIRECTIONS, len(values) // 2, scaled.shape[1] - 1)
    others = (1 - shrinkage) * variances[kept:].sum() / (scaled.shape[1] - kept)
    return Embedding(
        mean,
        scale,
        directions[:kept],
        (1 - shrinkage) * variances[:kept] + floor,
        float(floor + others),
        threshold,
    )
