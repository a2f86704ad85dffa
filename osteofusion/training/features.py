"""What a backbone that is not trained says of each radiograph: computed once, then kept."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import timm
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from osteofusion.data.cache import RadiographCache
from osteofusion.data.radiograph import Gray, RadiographPreprocessing
from osteofusion.data.transforms import Augmenter
from osteofusion.errors import OsteofusionError
from osteofusion.files import atomic_path, cache_root
from osteofusion.models.image import ImageEncoder, StagedEncoder
from osteofusion.progress import shown

BATCH = 16


class View(NamedTuple):
    """A radiograph as a backbone sees it.

    Attributes:
        path: Its file.
        sha256: The file's `content_hash`.
        seed: Of its augmentation; None as it is.
    """

    path: Path
    sha256: str
    seed: int | None = None


@dataclass(frozen=True)
class FrozenFeatures:
    """Features of views.

    Attributes:
        values: Pooled vectors (D,) or maps (C, h, w), float32, by SHA-256 and seed.
        blank: Zeros of their shape.
    """

    values: dict[tuple[str, int | None], Tensor]
    blank: Tensor

    def get(self, sha256: str, seed: int | None = None) -> Tensor:
        """The features of one view; zeros for no file, which `present` keeps from the model."""
        if not sha256:
            return self.blank
        return self.values[sha256, seed]


class FeatureStore:
    """Features on disk, one file for each radiograph or view, preprocessing and encoder.

    An encoder is known by its layers and weights, so another one never meets these entries.

    Args:
        folder: Where entries live; made when first needed.
        encoder: The encoder; it runs in evaluation mode, in its own precision, where it is.
        images: Source of the pixels.
        pooled: Whether to keep pooled vectors, not maps.
        augmenter: Makes the views that have a seed.
    """

    def __init__(
        self,
        folder: Path,
        encoder: StagedEncoder,
        images: RadiographCache,
        *,
        pooled: bool,
        augmenter: Augmenter | None = None,
    ) -> None:
        self.folder = folder
        self.encoder = encoder
        self.images = images
        self.pooled = pooled
        self.augmenter = augmenter

    @cached_property
    def source(self) -> str:
        """Name of the preprocessing, the encoder and the kind of features, fit for a folder."""
        kind = "pooled" if self.pooled else "map"
        return f"{self.images.preprocessing.key}-{fingerprint(self.encoder)[:16]}-{kind}"

    def read(self, views: Sequence[View], *, progress: bool = False) -> FrozenFeatures:
        """Features of all `views`; absent ones are computed.

        Raises:
            RadiographError: a file cannot be read, or has changed.
            OsteofusionError: the folder cannot be written.
        """
        wanted = {view[1:]: view for view in views}
        found = {key: self._load(view) for key, view in wanted.items()}
        absent = [view for key, view in wanted.items() if found[key] is None]
        steps = range(0, len(absent), BATCH)
        for start in shown(steps, len(steps), "Encoding radiographs", progress):
            batch = absent[start : start + BATCH]
            encoded = self._encode(np.stack([self._pixels(view) for view in batch]))
            for view, features in zip(batch, encoded, strict=True):
                self._store(view, features)
                found[view[1:]] = features
        values = {key: torch.from_numpy(each) for key, each in found.items() if each is not None}
        some = next(iter(values.values()), None)
        if some is None:
            size = self.images.preprocessing.size
            some = torch.from_numpy(self._encode(np.zeros((1, size, size), dtype=np.uint8))[0])
        return FrozenFeatures(values, torch.zeros_like(some))

    def _encode(self, images: np.ndarray) -> np.ndarray:
        weight, pixels = next(self.encoder.parameters()), torch.from_numpy(images)
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

    def _pixels(self, view: View) -> Gray:
        image = self.images.get(view.path, view.sha256)
        if view.seed is None:
            return image
        assert self.augmenter is not None
        return self.augmenter(image, view.seed)

    def _load(self, view: View) -> np.ndarray | None:
        try:
            features: np.ndarray = np.load(self._entry(view), allow_pickle=False)
        except (OSError, ValueError, EOFError):  # absent or damaged
            return None
        return features

    def _store(self, view: View, features: np.ndarray) -> None:
        try:
            with atomic_path(self._entry(view)) as temporary:
                np.save(temporary, features)
        except OSError as error:
            raise OsteofusionError(
                f"The cache of features {self.folder} cannot be written ({error.strerror}): make "
                "room or access, or set $OSTEOFUSION_CACHE to another folder."
            ) from error

    def _entry(self, view: View) -> Path:
        name = view.sha256
        if view.seed is not None:
            assert self.augmenter is not None
            name += f"-{self.augmenter.key}-{view.seed}"
        return self.folder / self.source / f"{name}.npy"


@dataclass(frozen=True)
class FrozenPhase:
    """The time in which an encoder does not change.

    Attributes:
        store: Computes its features.
        epochs: How many epochs of training that is; None for ever.
    """

    store: FeatureStore
    epochs: int | None

    def lasts(self, trainer: Trainer | None) -> bool:
        """Whether what is loaded now is for this time."""
        if self.epochs is None:
            return True
        if trainer is None or trainer.state.fn != TrainerFn.FITTING:
            return False
        return trainer.current_epoch < self.epochs

    def read(
        self,
        images: Sequence[tuple[Path, str]],
        seeds: np.ndarray | None,
        trainer: Trainer | None,
    ) -> FrozenFeatures:
        """Features of radiographs; under several processes each encodes its share.

        Args:
            images: Path and SHA-256 of each, the latter empty where there is no file.
            seeds: (n, K) of their augmentations; None for the radiographs as they are.
            trainer: Knows the processes.
        """
        each = [[None]] * len(images) if seeds is None else seeds.tolist()
        views = [
            View(*image, seed)
            for image, own in zip(images, each, strict=True)
            if image[1]
            for seed in own
        ]
        first = trainer is None or trainer.is_global_zero
        if trainer is not None and trainer.world_size > 1:
            self.store.read(views[trainer.global_rank :: trainer.world_size])
            trainer.strategy.barrier()
        return self.store.read(views, progress=first)


def view_seeds(hashes: Sequence[str], seed: int, views: int) -> np.ndarray:
    """Seeds (n, `views`) int64 of the fixed augmentations of files.

    They depend on the file and `seed` alone, so that folds and arms share what is computed.

    Args:
        hashes: SHA-256 of each file; empty where there is none.
        seed: Of the run.
        views: How many each file has.
    """
    return np.array(
        [
            np.random.default_rng([seed, int(sha256 or "0", 16)]).integers(2**31, size=views)
            for sha256 in hashes
        ]
    )


def frozen_features(
    files: Sequence[tuple[Path, str]],
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
    features = store.read([View(*file) for file in files], progress=progress)
    return np.stack([features.get(sha256).numpy() for _, sha256 in files])


def fingerprint(encoder: StagedEncoder) -> str:
    """SHA-256 of an encoder's layers and weights."""
    digest = hashlib.sha256(f"timm {timm.__version__} {encoder!r}".encode())
    for name, value in encoder.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
