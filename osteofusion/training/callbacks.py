"""Callbacks and loggers of a run: checkpoints, chance, progress where there is no terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint, RichProgressBar
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger
from pytorch_lightning.trainer.states import TrainerFn
from rich.console import Console

from osteofusion.training.datamodule import RadiographDataModule


class RunCheckpoint(ModelCheckpoint):
    """Lightning's checkpoints, which follow their run folder when it is moved.

    Lightning's own forget the best score then, and a worse epoch overwrites the best.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the score; the files are looked for where the checkpoint is now."""

        def moved(path: str) -> str:
            return str(Path(str(self.dirpath)) / Path(path).name) if path else path

        super().load_state_dict(
            {
                **state_dict,
                "dirpath": self.dirpath,
                "best_model_path": moved(state_dict["best_model_path"]),
                "kth_best_model_path": moved(state_dict["kth_best_model_path"]),
                "last_model_path": moved(state_dict["last_model_path"]),
                "best_k_models": {
                    moved(path): score for path, score in state_dict["best_k_models"].items()
                },
            }
        )


class RunStopping(EarlyStopping):
    """Lightning's early stopping, which does not go on when a stopped run is resumed.

    Lightning's own trains one more epoch, and on from there if it is better.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop where the checkpoint had."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True


def last_checkpoint(folder: Path) -> RunCheckpoint:
    """Writes ``last.ckpt`` after every epoch.

    Lightning's ``save_last`` skips epochs that were not the best, so a resumed run would repeat
    all that followed it.
    """
    return RunCheckpoint(folder, filename="last", enable_version_counter=False)


class StepSeed(Callback):
    """Makes a step's dropout a function of seed, epoch, step and process alone.

    So a run that was interrupted and resumed equals one that was not. Seeding once an epoch would
    not do: Lightning starts the loader of a resumed epoch differently, which draws a number.
    """

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed PyTorch's generators."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, RadiographDataModule)
        where = [data.seed, trainer.current_epoch, batch_idx, trainer.global_rank]
        torch.manual_seed(int(np.random.SeedSequence(where).generate_state(1)[0]))


class EpochLines(Callback):
    """One line an epoch where there is no terminal for a progress bar."""

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the epoch's validation metrics."""
        fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if not fitting or not trainer.is_global_zero:
            return
        metrics = trainer.callback_metrics
        shown = "  ".join(
            f"{name} {float(metrics[name]):.3f}"
            for name in ("val_loss", "val_auroc", "val_macro_f1", "val_mcc")
            if name in metrics
        )
        print(f"epoch {trainer.current_epoch}  {shown}", flush=True)


class EpochBar(RichProgressBar):
    """Lightning's bar without the end of the log folder's name."""

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Metrics shown beside the bar."""
        shown: dict[str, Any] = dict(super().get_metrics(trainer, pl_module))
        shown.pop("v_num", None)
        return shown


def progress() -> list[Callback]:
    """A bar on a terminal, lines elsewhere."""
    return [EpochBar()] if Console().is_terminal else [EpochLines()]


def run_loggers(folder: Path) -> list[Logger]:
    """CSV and TensorBoard logs below `folder`.

    A resumed run logs beside its first part: Lightning's CSV logger deletes what it finds.
    """
    part = f"part_{len(list((folder / 'logs').glob('part_*')))}"
    return [
        CSVLogger(folder, name="logs", version=part),
        TensorBoardLogger(folder, name="logs", version=part),
    ]
