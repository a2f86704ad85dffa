"""What a backbone that is not trained says of each radiograph: computed once, then kept."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import timm
import torch
from torch import Tensor

from osteofusion.data.cache import RadiographCache
from osteofusion.data.radiograph import RadiographPreprocessing
from osteofusion.errors import OsteofusionError
from osteofusion.files import atomic_path, cache_root
from osteofusion.models.image import ImageEncoder, StagedEncoder
from osteofusion.progress import shown

BATCH = 16
File = tuple[Path, str]


@dataclass(frozen=True)
class FrozenFeatures:
    """Features of radiographs by the SHA-256 of their file.

    Attributes:
        source: What computed them, as `FeatureStore.source`.
        values: Pooled vectors (D,) or maps (C, h, w), float32.
    """

    source: str
    values: dict[str, Tensor]

    def get(self, sha256: str) -> Tensor:
        """The features of one file; zeros for no file, which `present` keeps from the model."""
        if not sha256:
            return torch.zeros_like(next(iter(self.values.values())))
        return self.values[sha256]


class FeatureStore:
    """Features on disk, one file for each radiograph, preprocessing and encoder.

    An encoder is known by its layers and weights, so another one never meets these entries.

    Args:
        folder: Where entries live; made when first needed.
        encoder: The encoder; it runs in evaluation mode, in its own precision, where it is.
        images: Source of the pixels.
        pooled: Whether to keep pooled vectors, not maps.
    """

    def __init__(
        self, folder: Path, encoder: StagedEncoder, images: RadiographCache, *, pooled: bool
    ) -> None:
        self.folder = folder
        self.encoder = encoder
        self.images = images
        self.pooled = pooled

    @cached_property
    def source(self) -> str:
        """Name of the preprocessing, the encoder and the kind of features, fit for a folder."""
        kind = "pooled" if self.pooled else "map"
        return f"{self.images.preprocessing.key}-{fingerprint(self.encoder)[:16]}-{kind}"

    def read(self, files: Sequence[File], *, progress: bool = False) -> FrozenFeatures:
        """Features of all `files`, pairs of image file and its SHA-256; absent ones are computed.

        Raises:
            RadiographError: a file cannot be read, or has changed.
            OsteofusionError: the folder cannot be written.
        """
        values = {sha256: self._load(sha256) for _, sha256 in files}
        absent = list({file[1]: file for file in files if values[file[1]] is None}.values())
        steps = range(0, len(absent), BATCH)
        for start in shown(steps, len(steps), "Encoding radiographs", progress):
            batch = absent[start : start + BATCH]
            for (_, sha256), features in zip(batch, self._encode(batch), strict=True):
                self._store(sha256, features)
                values[sha256] = features
        return FrozenFeatures(
            self.source,
            {name: torch.from_numpy(each) for name, each in values.items() if each is not None},
        )

    def _encode(self, files: Sequence[File]) -> np.ndarray:
        weight = next(self.encoder.parameters())
        pixels = torch.from_numpy(np.stack([self.images.get(*file) for file in files]))
        training = self.encoder.training
        encode = self.encoder.forward if self.pooled else self.encoder.forward_map
        try:
            self.encoder.eval()
            with torch.inference_mode():
                image = pixels[:, None].to(weight.device).to(weight.dtype) / 255.0
                features: np.ndarray = encode(image).float().cpu().contiguous().numpy()
        finally:
            self.encoder.train(training)
        return features

    def _load(self, sha256: str) -> np.ndarray | None:
        try:
            features: np.ndarray = np.load(self._entry(sha256), allow_pickle=False)
        except (OSError, ValueError, EOFError):  # absent or damaged
            return None
        return features

    def _store(self, sha256: str, features: np.ndarray) -> None:
        try:
            with atomic_path(self._entry(sha256)) as temporary:
                np.save(temporary, features)
        except OSError as error:
            raise OsteofusionError(
                f"The cache of features {self.folder} cannot be written ({error.strerror}): make "
                "room or access, or set $OSTEOFUSION_CACHE to another folder."
            ) from error

    def _entry(self, sha256: str) -> Path:
        return self.folder / self.source / f"{sha256}.npy"


def frozen_features(
    files: Sequence[File],
    backbone: str,
    pretrained: bool | str | os.PathLike[str],
    preprocessing: RadiographPreprocessing,
    *,
    pooled: bool = True,
    progress: bool = False,
) -> np.ndarray:
    """What a timm backbone makes of radiographs, as it comes, computed once and kept on disk.

    Args:
        files: Image files with their SHA-256 (`osteofusion.data.radiograph.content_hash`).
        backbone: A timm model name.
        pretrained: True for published weights, or a local weights file.
        preprocessing: What is done to a radiograph first.
        pooled: Vectors; else the last feature maps.
        progress: Whether to draw a progress bar on stderr.

    Returns:
        (n, D) float32, or (n, C, h, w).

    Raises:
        ConfigError: the backbone or its weights cannot be had.
        RadiographError: a file cannot be read.
    """
    encoder = ImageEncoder(backbone, pretrained)
    images = RadiographCache(cache_root() / "radiographs", preprocessing)
    store = FeatureStore(cache_root() / "features", encoder, images, pooled=pooled)
    features = store.read(files, progress=progress)
    return np.stack([features.values[sha256].numpy() for _, sha256 in files])


def fingerprint(encoder: StagedEncoder) -> str:
    """SHA-256 of an encoder's layers and weights."""
    digest = hashlib.sha256(f"timm {timm.__version__} {encoder!r}".encode())
    for name, value in encoder.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
