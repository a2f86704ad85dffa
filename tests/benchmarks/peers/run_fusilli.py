"""fusilli's turn: concatenated tabular and image feature maps, the last epoch.

Its own image layers are five convolutions of its own; `layer_mods`, its way to change layers, puts
the common backbone in their place.
"""

from __future__ import annotations

import time

import numpy as np
import torch
import torchvision
from common import Task, read_task, write_result
from fusilli.data import prepare_fusion_data
from fusilli.fusionmodels.tabularimagefusion.concat_img_maps_tabular_maps import (
    ConcatImageMapsTabularMaps,
)
from fusilli.train import train_and_save_models
from lightning.pytorch import Trainer, seed_everything
from PIL import Image
from torch import Tensor, nn

MODEL = ConcatImageMapsTabularMaps


class Backbone(nn.Module):
    """A torchvision network for one channel, without its classifier."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.network = torchvision.models.get_model(name, weights=None)
        self.network.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
        self.network.fc = nn.Identity()

    def forward(self, image: Tensor) -> Tensor:
        # fusilli measures the width of the features with an image that is no batch.
        features: Tensor = self.network(image if image.dim() == 4 else image[None])
        return features


def write_source(task: Task, name: str, sides: list[str]) -> dict[str, str]:
    """The rows of some sides as the files that fusilli reads."""
    rows = np.flatnonzero(task.table["split"].isin(sides))
    chosen = task.table.iloc[rows]
    table = task.matrix().iloc[rows]
    table.insert(0, "ID", chosen["subject_id"])
    table["prediction_label"] = chosen["label"]
    paths = {"tabular1": str(task.out / f"{name}.csv"), "image": str(task.out / f"{name}.pt")}
    table.to_csv(paths["tabular1"], index=False)
    pixels = np.stack([np.asarray(Image.open(path)) for path in chosen["image"]])
    torch.save(torch.tensor(pixels)[:, None].float() / 255, paths["image"])
    return paths


def main() -> None:
    """Train, predict the test side, write."""
    task = read_task()
    start = time.perf_counter()
    seed_everything(task.seed)
    folders = {name: str(task.out / name) for name in ("checkpoints", "losses", "figures")}
    for folder in folders:
        (task.out / folder).mkdir()
    seen = task.table.loc[task.table["split"] != "test", "split"]
    data = prepare_fusion_data(
        prediction_task="binary",
        fusion_model=MODEL,
        data_paths=write_source(task, "seen", ["train", "val"]),
        output_paths=folders,
        batch_size=task.batch_size,
        # What fusilli calls its test side is watched while training.
        test_indices=np.flatnonzero(seen == "val").tolist(),
    )
    [model] = train_and_save_models(
        data_module=data,
        fusion_model=MODEL,
        layer_mods={
            MODEL.__name__: {"img_layers": nn.ModuleDict({"layer 1": Backbone(task.backbone)})}
        },
        max_epochs=task.epochs,
    )
    seconds = time.perf_counter() - start
    test = task.side("test")
    asked = prepare_fusion_data(
        prediction_task="binary",
        fusion_model=MODEL,
        data_paths=write_source(task, "asked", ["test"]),
        output_paths=folders,
        batch_size=task.batch_size,
        test_indices=list(range(len(test))),
    )
    batches = Trainer(accelerator="cpu", logger=False).predict(model, asked.val_dataloader())
    assert batches is not None
    p = torch.cat([logits.reshape(-1) for _, logits in batches]).sigmoid().tolist()
    write_result(task, test["subject_id"], p, seconds, ["fusilli", "torch"])


if __name__ == "__main__":
    main()
