"""Training one modality alone, as the fused model was trained."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import Checkpoint, EarlyStopping, ModelCheckpoint, ProgressBar
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy, Strategy

from osteofusion.data.transforms import Augmentation
from osteofusion.errors import ConfigError
from osteofusion.training.callbacks import (
    EpochLines,
    RunCheckpoint,
    last_checkpoint,
    progress,
    run_loggers,
)
from osteofusion.training.checkpoints import AtomicCheckpointIO
from osteofusion.training.datamodule import RadiographDataModule
from osteofusion.training.finetuning import TwoPhaseFinetuning
from osteofusion.training.module import FusionModule
from osteofusion.training.predictions import PredictionWriter
from osteofusion.training.run import write_json
from osteofusion.training.trained import FROZEN

SingleArm = Literal["image", "tabular"]
_MARKER = "arm.json"
# Settings of the trainer that belong to an equal budget, by the names that Trainer gives them.
_BUDGET = (
    "max_epochs", "min_epochs", "max_steps", "min_steps", "limit_train_batches",
    "limit_val_batches", "limit_test_batches", "check_val_every_n_epoch", "val_check_interval",
    "accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm",
    "num_sanity_val_steps", "log_every_n_steps", "num_nodes", "precision",
)  # fmt: skip


def train_arm(
    arm: SingleArm,
    folder: Path,
    trainer: Trainer,
    module: FusionModule,
    data: RadiographDataModule,
    callbacks: Sequence[Callback],
) -> None:
    """Train an arm on the rows, with the seed, budget and device of a fused fit that has ended.

    An arm that is finished in `folder` is left as it is; one that was interrupted goes on.

    Args:
        arm: Which.
        folder: Its run folder: checkpoints, logs, `predictions.csv`.
        trainer: The fused model's.
        module: The fused model.
        data: The fused model's.
        callbacks: Of the fused fit, as they were before it; see :func:`own_callbacks`.
    """
    settings = _settings(arm, trainer, module, data, callbacks)
    state: str = trainer.strategy.broadcast(_state(folder, settings))
    if state == "finished":
        if trainer.is_global_zero:
            print(f"Ablation: the {arm} arm is trained already, in {folder}.")
        return
    if trainer.is_global_zero:
        what = "Going on with" if state == "begun" else "Training"
        print(f"Ablation: {what.lower()} the {arm} arm alone.")
        if state == "new" and folder.exists():
            shutil.rmtree(folder)  # of other settings
        write_json(folder / _MARKER, {**settings, "finished": False})
    trainer.strategy.barrier()

    torch.manual_seed(data.seed)  # weights start as in a fit of this arm alone
    own_module = _own_module(module, arm)
    own_data = _own_data(data, arm)
    writer = PredictionWriter(folder, score=False)
    own_trainer = _own_trainer(trainer, folder, [*_for_arm(callbacks, arm), writer])
    last = folder / "checkpoints" / "last.ckpt"
    resume = str(last) if state == "begun" else None
    own_trainer.fit(own_module, datamodule=own_data, ckpt_path=resume, weights_only=True)
    best = next(
        each.best_model_path
        for each in own_trainer.checkpoint_callbacks
        if isinstance(each, RunCheckpoint) and each.monitor is not None
    )
    own_trainer.test(
        own_module, datamodule=own_data, ckpt_path=best, verbose=False, weights_only=True
    )
    if trainer.is_global_zero:
        write_json(folder / _MARKER, {**settings, "finished": True})
    trainer.strategy.barrier()


def own_callbacks(trainer: Trainer, left_out: tuple[type[Callback], ...]) -> list[Callback]:
    """Copies of a trainer's callbacks for a training of its own, where that makes sense.

    Checkpoints, progress and what is in `left_out` are made anew for each training.
    """
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    made_anew: tuple[type, ...] = (Checkpoint, ProgressBar, EpochLines, *left_out)
    # Lightning hangs the module's `log` on callbacks: a plain copy would hold a second model.
    module = trainer.lightning_module
    return [
        copy.deepcopy(each, {id(module): module})
        for each in callbacks
        if not isinstance(each, made_anew)
    ]


def refuse_strategy(trainer: Trainer) -> None:
    """Refuse a strategy under which no second training can begin.

    Raises:
        ConfigError: it is neither one device nor DDP that starts scripts.
    """
    strategy = trainer.strategy
    one = isinstance(strategy, SingleDeviceStrategy)
    ddp = type(strategy) is DDPStrategy and strategy._start_method == "popen"
    if not one and not ddp:
        raise ConfigError(
            f"The ablation trains on one device or with --trainer.strategy ddp, not with "
            f"{type(strategy).__name__}; choose one of them, or --ablation false."
        )


def _own_module(module: FusionModule, arm: SingleArm) -> FusionModule:
    alone = {"arm": arm, "auxiliary_weight": 0.0, "modality_dropout": 0.0, "start_from": None}
    return FusionModule(**{**module.hparams, **alone})


def _own_data(data: RadiographDataModule, arm: SingleArm) -> RadiographDataModule:
    settings = {**data.hparams, "arm": arm}
    if isinstance(settings["augmentation"], Mapping):
        settings["augmentation"] = Augmentation(**settings["augmentation"])
    own = RadiographDataModule(**settings)
    own.cohort, own.splits, own.seed = data.cohort, data.splits, data.seed
    return own


def _own_trainer(trainer: Trainer, folder: Path, callbacks: Sequence[Callback]) -> Trainer:
    best = _best_checkpoint(trainer, folder / "checkpoints")
    strategy = trainer.strategy
    device = strategy.root_device
    own: str | Strategy = "auto"
    if isinstance(strategy, DDPStrategy):
        own = DDPStrategy(
            process_group_backend=strategy.process_group_backend, **strategy._ddp_kwargs
        )
    return Trainer(
        accelerator=device.type,
        devices=trainer.num_devices if device.type == "cpu" else trainer.device_ids,
        strategy=own,
        callbacks=[best, *callbacks, *progress(), last_checkpoint(folder / "checkpoints")],
        logger=run_loggers(folder) if trainer.loggers else False,
        plugins=[AtomicCheckpointIO()],
        enable_progress_bar=trainer.progress_bar_callback is not None,
        enable_model_summary=False,
        default_root_dir=folder,
        **{name: getattr(trainer, name) for name in _BUDGET},
    )


def _best_checkpoint(trainer: Trainer, folder: Path) -> RunCheckpoint:
    """Chosen by what the fused model's is chosen by; by the validation loss if that is unknown."""
    monitored = [
        each
        for each in trainer.checkpoint_callbacks
        if isinstance(each, ModelCheckpoint) and each.monitor is not None
    ]
    monitor, mode = (monitored[0].monitor, monitored[0].mode) if monitored else ("val_loss", "min")
    return RunCheckpoint(
        folder, filename="best", monitor=monitor, mode=mode, enable_version_counter=False
    )


def _for_arm(callbacks: Sequence[Callback], arm: SingleArm) -> list[Callback]:
    """Fresh copies; there is no backbone to freeze in a tabular arm."""
    own = [copy.deepcopy(each) for each in callbacks]
    return [each for each in own if arm == "image" or not isinstance(each, TwoPhaseFinetuning)]


def _settings(
    arm: SingleArm,
    trainer: Trainer,
    module: FusionModule,
    data: RadiographDataModule,
    callbacks: Sequence[Callback],
) -> dict[str, Any]:
    """What an arm's folder was trained with: its budget of epochs, and a digest of all else."""
    budget = {name: str(getattr(trainer, name)) for name in _BUDGET if name != "max_epochs"}
    stopping = [
        [each.monitor, each.mode, each.patience, each.min_delta]
        for each in callbacks
        if isinstance(each, EarlyStopping)
    ]
    content = {
        "module": dict(module.hparams),
        "data": {name: data.hparams[name] for name in (*FROZEN, "batch_size")},
        "rows": data.fingerprint,
        "splits": data.splits.to_dict(orient="list"),
        "seed": data.seed,
        "budget": budget,
        "callbacks": sorted(type(each).__name__ for each in callbacks),
        "stopping": stopping,
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
    return {"arm": arm, "settings": digest, "max_epochs": trainer.max_epochs}


def _state(folder: Path, settings: Mapping[str, Any]) -> Literal["new", "begun", "finished"]:
    """How far an arm of these settings is; more epochs than before are gone on to."""
    try:
        marker = json.loads((folder / _MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "new"
    if marker.get("settings") != settings["settings"]:
        return "new"
    before, now = marker["max_epochs"], settings["max_epochs"]
    if before == now and marker["finished"] and (folder / "predictions.csv").is_file():
        return "finished"
    raised = None not in (before, now) and -1 not in (before, now) and now > before
    begun = (folder / "checkpoints" / "last.ckpt").is_file()
    return "begun" if begun and (before == now or raised) else "new"
