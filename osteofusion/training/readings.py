"""A fused model asked otherwise: each modality withheld, and images shuffled between subjects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Trainer
from torch import Tensor

from osteofusion.models.fusion import CLINICAL, IMAGE
from osteofusion.training.datamodule import Batch, RadiographDataModule
from osteofusion.training.module import FusionModule
from osteofusion.training.scoring import READINGS

_WITHOUT_IMAGE, _WITHOUT_CLINICAL, _SHUFFLED = READINGS


def shuffled_partners(groups: Sequence[int], seed: int) -> np.ndarray | None:
    """Whose image each row is shown: a permutation that leaves nobody within their own group.

    Rows in a random order of groups are moved on by the size of the largest group.

    Args:
        groups: (n,) split group of each row; copies of a film are in one group.
        seed: Of the order.

    Returns:
        (n,) positions; None where a group holds more than half of the rows, so that there is no
        such permutation.
    """
    codes = np.unique(np.asarray(groups), return_inverse=True)[1]
    if not len(codes):
        return None
    largest = int(np.bincount(codes).max())
    if 2 * largest > len(codes):
        return None
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(codes))
    order = order[np.argsort(rng.permutation(codes.max() + 1)[codes[order]], kind="stable")]
    partners = np.empty(len(codes), dtype=np.int64)
    partners[order] = np.roll(order, -largest)
    return partners


class Readings:
    """Asks the model about the test rows of a batch after batch.

    Args:
        trainer: In a test loop over all rows of `data`.
        module: The fused module.
        data: Its data.

    Attributes:
        names: The readings that can be had.
        notes: Why one cannot.
        collected: Row numbers (n,) and probabilities (n, readings, C) of each batch.
    """

    def __init__(self, trainer: Trainer, module: FusionModule, data: RadiographDataModule) -> None:
        self.trainer = trainer
        self.module = module
        self.names = [_WITHOUT_IMAGE, _WITHOUT_CLINICAL]
        self.notes: list[str] = []
        rows = data.rows
        self._tested = torch.tensor(rows.index[rows["split"] == "test"].tolist())
        empty = torch.empty(0, 3, len(data.class_names))
        self._partner: dict[int, int] = {}
        shown = np.flatnonzero((rows["split"] == "test") & (rows["image"] != ""))
        partners = shuffled_partners(rows["group"].to_numpy()[shown].tolist(), data.seed)
        if partners is None:
            self.notes.append(
                f"{_SHUFFLED}: one split group holds most of the images, so they cannot be "
                "shuffled between subjects"
            )
            empty = empty[:, :2]
        else:
            self.names.append(_SHUFFLED)
            index = rows.index.to_numpy()[shown]
            self._partner = dict(zip(index.tolist(), shown[partners].tolist(), strict=True))
        self.collected = [(torch.empty(0, dtype=torch.int64), empty)]

    def ask(self, batch: Batch) -> None:
        """Take the readings of the batch's test rows."""
        tested = torch.isin(batch["index"].cpu(), self._tested)
        if not tested.any():
            return
        chosen = {name: value[tested.to(value.device)] for name, value in batch.items()}
        asked = [self._withhold(chosen, IMAGE), self._withhold(chosen, CLINICAL)]
        if _SHUFFLED in self.names:
            asked.append(self._shuffle(chosen))
        with self.trainer.precision_plugin.forward_context():
            told = [self.module(each).float().softmax(dim=1).cpu() for each in asked]
        self.collected.append((chosen["index"].cpu(), torch.stack(told, dim=1)))

    @staticmethod
    def _withhold(batch: Batch, modality: int) -> Batch:
        present = batch["present"].clone()
        present[:, modality] = False
        return {**batch, "present": present}

    def _shuffle(self, batch: Batch) -> Batch:
        """Each row with another subject's image; a row without an image stays without."""
        key = "image" if "image" in batch else "image_features"
        images = list(batch[key])
        for i, index in enumerate(batch["index"].tolist()):
            if index in self._partner:
                images[i] = self._image(self._partner[index], key).to(images[i])
        return {**batch, key: torch.stack(images)}

    def _image(self, position: int, key: str) -> Tensor:
        loader: Any = self.trainer.test_dataloaders
        image = loader.dataset[position][key].to(self.module.device)
        return self.module.on_after_batch_transfer({key: image}, 0)[key]
