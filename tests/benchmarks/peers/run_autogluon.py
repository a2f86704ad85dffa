"""AutoGluon's turn: `fusion_mlp` over a timm image model and the FT-Transformer of the columns."""

from __future__ import annotations

import json
import time

import timm
import torch
from autogluon.multimodal import MultiModalPredictor
from common import Task, read_task, write_result


def random_backbone(task: Task) -> str:
    """A folder with random weights, in the layout that AutoGluon takes without network.

    `pretrained=False` is not heeded by `fit` of AutoGluon 1.6, which then asks the network.
    """
    folder = task.out / "backbone"
    folder.mkdir()
    torch.manual_seed(task.seed)
    model = timm.create_model(task.backbone, pretrained=False, num_classes=0)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    config = {
        "architecture": task.backbone,
        "num_features": model.num_features,
        "pretrained_cfg": model.default_cfg,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def main() -> None:
    """Train, predict the test side, write."""
    task = read_task()
    start = time.perf_counter()
    kinds = {"image": "image_path"}
    kinds |= dict.fromkeys(task.numeric, "numerical")
    kinds |= dict.fromkeys(task.categorical, "categorical")
    columns = [*kinds, "label"]
    predictor = MultiModalPredictor(
        label="label",
        problem_type="binary",
        path=str(task.out / "predictor"),
        enable_progress_bar=False,
    )
    predictor.fit(
        task.side("train")[columns],
        tuning_data=task.side("val")[columns],
        column_types=kinds,
        seed=task.seed,
        hyperparameters={
            "model.names": ["timm_image", "ft_transformer", "fusion_mlp"],
            "model.timm_image.checkpoint_name": random_backbone(task),
            # The others augment nothing either.
            "model.timm_image.train_transforms": ["resize_shorter_side", "center_crop"],
            "optim.max_epochs": task.epochs,
            "env.batch_size": task.batch_size,
            "env.per_gpu_batch_size": task.batch_size,
        },
    )
    seconds = time.perf_counter() - start
    test = task.side("test")
    p = predictor.predict_proba(test[columns[:-1]])[1]
    write_result(task, test["subject_id"], p, seconds, ["autogluon.multimodal", "torch"])


if __name__ == "__main__":
    main()
