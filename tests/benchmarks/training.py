"""What our data module and module cost under Lightning, beside the same parts in a bare loop."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from harness import Result, medians, result, seconds, turns
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from torch.utils.data import DataLoader

from osteofusion.data.demo import write_demo
from osteofusion.data.transforms import Augmentation
from osteofusion.training.callbacks import StepSeed
from osteofusion.training.datamodule import RadiographDataModule
from osteofusion.training.dataset import RadiographDataset
from osteofusion.training.module import FusionModule

SUBJECTS = 160
BACKBONE, HEAVY = "tf_efficientnet_lite0", "densenet121"


class EpochClock(Callback):
    """Seconds of the training steps of each epoch, without validation."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._started = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start."""
        self._started = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop."""
        self.seconds.append(time.perf_counter() - self._started)


def data_of(root: Path, **options: object) -> RadiographDataModule:
    """The demo cohort at 224 px."""
    settings = {"root": str(root), "num_workers": 0, "cache_dir": str(root / "cache")}
    return RadiographDataModule(**{**settings, **options})


def module_of(
    data: RadiographDataModule, kind: type[FusionModule] = FusionModule, **options: object
) -> FusionModule:
    """The default fused model with an EfficientNet-Lite0."""
    seed_everything(0, verbose=False)
    settings = {"backbone": BACKBONE, "pretrained": False}
    return kind(
        class_names=data.class_names,
        clinical=data.clinical,
        class_counts=data.class_counts,
        **{**settings, **options},
    )


def trainer_of(epochs: int, *callbacks: Callback, **options: object) -> Trainer:
    """A trainer that logs nothing and writes no checkpoint."""
    return Trainer(
        max_epochs=epochs,
        accelerator="auto",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=[StepSeed(), *callbacks],
        **options,
    )


def fit(
    module: FusionModule, data: RadiographDataModule, epochs: int, **options: object
) -> list[float]:
    """Seconds of the training steps of each epoch under Lightning."""
    clock = EpochClock()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer_of(epochs, clock, **options).fit(module, datamodule=data)
    return clock.seconds


def bare_epoch(
    module: FusionModule,
    loader: DataLoader[dict[str, torch.Tensor]],
    optimizer: torch.optim.Optimizer,
) -> None:
    """The same step without Lightning: load, augment, forward, loss, backward, update."""
    module.train()
    for batch in loader:
        image = batch["image"].float() / 255.0
        outputs = module.model.outputs(image, batch["clinical"], batch["present"])
        loss = module.criterion(outputs.logits, batch["label"]) + module._beside(outputs, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def step(root: Path, rounds: int = 9) -> Result:
    """A training epoch under Trainer against a bare loop."""
    data = data_of(root)
    ours, bare = module_of(data), module_of(data)
    optimizer, loader = bare.configure_optimizers(), data.train_dataloader()
    timed: list[float] = []

    def with_trainer() -> None:
        timed.append(fit(ours, data, 1, limit_val_batches=0)[0])

    def with_loop() -> None:
        bare_epoch(bare, loader, optimizer)

    taken = turns(with_trainer, with_loop, rounds)
    pairs = [(own, other) for own, (_, other) in zip(timed[1:], taken, strict=True)]
    own, other = medians(pairs)
    steps = len(loader)
    return result(
        "training step under Trainer, throughput",
        "the same modules in a bare loop",
        [slow / fast for fast, slow in pairs],
        0.95,
        at_least=True,
        detail=f"{1e3 * own / steps:.0f} and {1e3 * other / steps:.0f} ms a step of 16 radiographs "
        f"of 224 px, {BACKBONE}",
    )


class _InMemory(RadiographDataset):
    """Decoded radiographs held as arrays."""

    def hold(self) -> _InMemory:
        assert self.cache is not None
        self.held = [self.cache.get(*image) for image in self.images]
        return self

    def _image(self, i: int, seed: int | None) -> torch.Tensor:
        image = self.held[i]
        if seed is not None and self.augmenter is not None:
            image = self.augmenter(image, seed)
        return torch.from_numpy(image).unsqueeze(0)


class _HeldData(RadiographDataModule):
    """The same data module over decoded radiographs."""

    def loader(self, *arguments: object, **options: object) -> DataLoader[dict[str, torch.Tensor]]:
        made = super().loader(*arguments, **options)
        made.dataset.__class__ = _InMemory
        made.dataset.hold()
        return made


def later_epochs(root: Path, rounds: int = 4) -> Result:
    """Epochs after the first of a fit on files against decoded arrays in memory."""
    settings = {"root": str(root), "num_workers": 0, "cache_dir": str(root / "cache")}
    epochs: dict[type[RadiographDataModule], list[float]] = {
        RadiographDataModule: [],
        _HeldData: [],
    }

    def of(kind: type[RadiographDataModule]) -> Callable[[], None]:
        def work() -> None:
            data = kind(**settings)
            epochs[kind] += fit(module_of(data), data, 3, limit_val_batches=0)[1:]

        return work

    turns(of(RadiographDataModule), of(_HeldData), rounds, warm=0)
    pairs = list(zip(epochs[RadiographDataModule], epochs[_HeldData], strict=True))
    own, other = medians(pairs)
    return result(
        "epoch 2 and later of a fit on files, throughput",
        "the same with decoded radiographs in memory",
        [slow / fast for fast, slow in pairs],
        0.95,
        at_least=True,
        detail=f"{own:.1f} and {other:.1f} s an epoch",
    )


class _AtEveryStep(FusionModule):
    """Its frozen backbone runs at every step, in training and in validation."""

    def use_features(self, data: RadiographDataModule, epochs: int | None = None) -> None:
        """Keep nothing."""


def frozen_views(root: Path, epochs: int = 8, views: int = 2, rounds: int = 2) -> Result:
    """A frozen phase with reused views against running the frozen backbone at every step."""
    turn = iter(range(1000))

    def timed(kind: type[FusionModule], count: int | None) -> float:
        data = data_of(
            root,
            augmentation=Augmentation(),
            augmentation_views=count,
            cache_dir=str(root / f"cache{next(turn)}"),  # features are computed anew
        )
        module = module_of(data, kind, backbone=HEAVY, frozen_backbone=True)
        data.prepare_data()
        return seconds(lambda: fit(module, data, epochs))

    taken = [(timed(FusionModule, views), timed(_AtEveryStep, None)) for _ in range(rounds)]
    own, other = medians(taken)
    return result(
        f"frozen phase, {epochs} epochs of {views} views",
        "running the frozen backbone at every step",
        [slow / fast for fast, slow in taken],
        0.8 * epochs / views,
        at_least=True,
        detail=f"fits of {own:.1f} and {other:.1f} s, {HEAVY}",
    )


def measure() -> list[Result]:
    """All of this file."""
    with tempfile.TemporaryDirectory() as folder:
        root = write_demo(Path(folder) / "demo", subjects=SUBJECTS)
        return [step(root), later_epochs(root), frozen_views(root)]
