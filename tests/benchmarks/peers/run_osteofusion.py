"""Our own turn: fused arm, default fusion and head, the best epoch by validation loss."""

from __future__ import annotations

import time

import torch
from common import read_task, write_result
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.callbacks import ModelCheckpoint

from osteofusion.training.datamodule import RadiographDataModule
from osteofusion.training.module import FusionModule


def main() -> None:
    """Train, predict the test side, write."""
    task = read_task()
    start = time.perf_counter()
    seed_everything(task.seed)
    data = RadiographDataModule(
        manifest=str(task.folder / "manifest.yaml"),
        root=str(task.folder),
        splits=str(task.folder / "splits.csv"),
        fold=task.fold,
        image_size=task.image_size,
        augmentation=None,
        batch_size=task.batch_size,
        cache_dir=str(task.out / "cache"),
    )
    model = FusionModule(
        data.class_names,
        data.clinical,
        data.class_counts,
        backbone=task.backbone,
        pretrained=False,
    )
    best = ModelCheckpoint(task.out, monitor="val_loss")
    trainer = Trainer(
        max_epochs=task.epochs,
        callbacks=[best],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, datamodule=data)
    seconds = time.perf_counter() - start
    batches = trainer.predict(model, data.loader(data.side("test")), ckpt_path=best.best_model_path)
    assert batches is not None
    index = torch.cat([batch["index"] for batch in batches]).tolist()
    p = torch.cat([batch["probability"][:, 1] for batch in batches]).tolist()
    subjects = data.rows.loc[index, "subject_id"]
    write_result(task, subjects, p, seconds, ["osteofusion", "torch"])


if __name__ == "__main__":
    main()
