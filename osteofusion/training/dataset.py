"""Rows to tensors, and the order in which an epoch visits them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler

from osteofusion.data.cache import RadiographCache
from osteofusion.data.transforms import Augmenter
from osteofusion.training.features import FrozenFeatures

UNLABELLED = -1


class RadiographDataset(Dataset[dict[str, Tensor]]):
    """Radiographs with their clinical rows.

    An item is requested by ``i`` (as stored) or by ``(i, seed)`` (augmented with that seed) and is
    a dict of ``image`` (1, S, S) uint8, absent without a cache (or, where a frozen backbone's
    features are given, ``image_features`` (D,) or (C, h, w) float32); ``clinical`` (F,) float64,
    NaN for missing; ``present`` (2,) bool, image and clinical; ``label`` int64, -1 when unknown;
    ``t_score`` float64, NaN when unknown; and ``index`` int64, the row in the cohort.

    Args:
        images: Path and content hash of each row's file; an empty hash where there is none.
        clinical: (n, F) float64.
        labels: (n,) class codes.
        t_scores: (n,) SD, NaN where unknown; a target, never an input.
        index: (n,) rows in the cohort.
        cache: Source of decoded images; None when the model reads none.
        features: What a frozen backbone makes of the images; they are then not read.
        augmenter: Applied to rows requested with a seed.
    """

    def __init__(
        self,
        images: Sequence[tuple[Path, str]],
        clinical: np.ndarray,
        labels: np.ndarray,
        t_scores: np.ndarray,
        index: np.ndarray,
        cache: RadiographCache | None,
        features: FrozenFeatures | None = None,
        augmenter: Augmenter | None = None,
    ) -> None:
        # OpenCV's threads do not survive the fork of a loader's worker, which would wait for them
        # for ever; for images of this size they gain nothing.
        cv2.setNumThreads(0)
        self.images = list(images)
        self.clinical = torch.tensor(clinical, dtype=torch.float64)
        self.labels = torch.tensor(labels, dtype=torch.int64)
        self.t_scores = torch.tensor(t_scores, dtype=torch.float64)
        self.index = torch.tensor(index, dtype=torch.int64)
        self.cache = cache
        self.features = features
        self.augmenter = augmenter

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Tensor]:
        i, seed = key if isinstance(key, tuple) else (key, None)
        if self.augmenter is None:
            seed = None
        clinical = self.clinical[i]
        has_clinical = not bool(clinical.isnan().all())
        has_image = self.cache is not None and bool(self.images[i][1])
        item = {
            "clinical": clinical,
            "present": torch.tensor([has_image, has_clinical]),
            "label": self.labels[i],
            "t_score": self.t_scores[i],
            "index": self.index[i],
        }
        if self.features is not None:
            item["image_features"] = self.features.get(self.images[i][1], seed)
        elif self.cache is not None:
            item["image"] = self._image(i, seed) if has_image else self._blank()
        return item

    def _image(self, i: int, seed: int | None) -> Tensor:
        assert self.cache is not None
        image = self.cache.get(*self.images[i])
        if seed is not None and self.augmenter is not None:
            image = self.augmenter(image, seed)
        return torch.from_numpy(np.ascontiguousarray(image)).unsqueeze(0)

    def _blank(self) -> Tensor:
        """Something to stack where there is no image; `present` keeps it from the model."""
        assert self.cache is not None
        side = self.cache.preprocessing.size
        return torch.zeros(1, side, side, dtype=torch.uint8)


class _Rows(Dataset[int]):
    """All that the base sampler wants to know of the data: how many rows there are."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n


class EpochSampler(DistributedSampler[Any]):
    """Draws ``(row, augmentation seed)`` pairs that depend on the seed and the epoch alone.

    Neither the number of workers nor an interruption changes what an epoch sees; with several
    processes each takes every ``num_replicas``-th pair.

    Args:
        weights: (n,) sampling weights, drawn with replacement; None visits each row once.
        n: Rows.
        seed: Seed of the run.
        num_replicas: Processes.
        rank: This process.
        views: (n, K) seeds of each row's fixed augmentations, taken in turn; None for a new one
            every time.
    """

    def __init__(
        self,
        weights: np.ndarray | None,
        n: int,
        seed: int,
        num_replicas: int = 1,
        rank: int = 0,
        views: np.ndarray | None = None,
    ) -> None:
        super().__init__(_Rows(n), num_replicas=num_replicas, rank=rank, seed=seed)
        self.weights = None if weights is None else weights / weights.sum()
        self.n = n
        self.views = views

    def __iter__(self) -> Iterator[tuple[int, int]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        if self.weights is None:
            order = rng.permutation(self.n)
        else:
            order = rng.choice(self.n, size=self.n, p=self.weights)
        order = np.resize(order, self.total_size)  # every process draws equally many
        if self.views is None:
            seeds = rng.integers(2**31, size=self.total_size)
        else:  # a row that is drawn again in an epoch shows its next view
            again = pd.Series(order).groupby(order).cumcount().to_numpy()
            seeds = self.views[order, (self.epoch + again) % self.views.shape[1]]
        mine = slice(self.rank, None, self.num_replicas)
        yield from zip(order[mine].tolist(), seeds[mine].tolist(), strict=True)
