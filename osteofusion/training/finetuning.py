"""Two-phase fine-tuning: the backbone frozen first, then everything at a low rate."""

from __future__ import annotations

import math

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities import rank_zero_warn

from osteofusion.errors import ConfigError
from osteofusion.training.datamodule import RadiographDataModule
from osteofusion.training.module import FusionModule


class TwoPhaseFinetuning(Callback):
    """Trains all but the backbone first, then everything at a lower rate.

    In the first phase the backbone's batch norm keeps its statistics. In the second, rates ramp up
    linearly, then follow a cosine to zero; deeper stages may learn faster than early ones. Rates
    are a function of the epoch and the step alone, so a resumed run equals an uninterrupted one.

    In the first phase the backbone sees each radiograph once and its features are kept, but for
    training radiographs that are augmented anew every time (see ``data.augmentation_views``).

    The optimiser holds every parameter from the start: its state for the head survives the switch,
    and that of the backbone begins with its first gradient.

    Args:
        frozen_epochs: Length of the first phase, at the module's own rates.
        learning_rate: Of the second phase; the last stage's and the head's.
        stage_decay: Factor from each backbone stage to the one before it (Howard and Ruder,
            arXiv 1801.06146); 1 for equal rates.
        warmup_epochs: Length of the linear ramp.
        cosine: Whether rates fall to zero at the trainer's last epoch (arXiv 1608.03983).

    Raises:
        ConfigError: A value is out of range, the arm has no image encoder, the module keeps its
            backbone frozen, or the strategy would wait for gradients of the frozen backbone.
    """

    def __init__(
        self,
        frozen_epochs: int = 5,
        learning_rate: float = 1e-5,
        stage_decay: float = 1.0,
        warmup_epochs: int = 0,
        cosine: bool = False,
    ) -> None:
        for name, value, fits in (
            ("frozen_epochs", frozen_epochs, frozen_epochs >= 1),
            ("learning_rate", learning_rate, 0 < learning_rate < math.inf),
            ("stage_decay", stage_decay, 0 < stage_decay <= 1),
            ("warmup_epochs", warmup_epochs, warmup_epochs >= 0),
        ):
            if not fits:
                raise ConfigError(f"TwoPhaseFinetuning: {name} is {value}, which is out of range.")
        self.frozen_epochs = frozen_epochs
        self.learning_rate = learning_rate
        self.stage_decay = stage_decay
        self.warmup_epochs = warmup_epochs
        self.cosine = cosine

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what cannot work."""
        if not isinstance(pl_module, FusionModule) or pl_module.model.image_encoder is None:
            raise ConfigError(
                "TwoPhaseFinetuning needs an image encoder; use the image or fused arm."
            )
        if pl_module.hparams["frozen_backbone"]:
            raise ConfigError(
                "TwoPhaseFinetuning trains the backbone and model.frozen_backbone forbids it; "
                "leave one of them out."
            )
        strategy = trainer.strategy
        if isinstance(strategy, DDPStrategy) and not strategy._ddp_kwargs.get(
            "find_unused_parameters"
        ):
            raise ConfigError(
                "TwoPhaseFinetuning under DDP needs --trainer.strategy "
                "ddp_find_unused_parameters_true, since frozen weights have no gradient."
            )
        if self.cosine and trainer.max_epochs in (None, -1):
            raise ConfigError("TwoPhaseFinetuning: cosine needs --trainer.max_epochs.")
        last = trainer.max_epochs
        if last not in (None, -1) and last <= self.frozen_epochs:
            rank_zero_warn(
                f"TwoPhaseFinetuning: frozen_epochs is {self.frozen_epochs} and training ends "
                f"after {last}, so the backbone is never trained; lower the one or raise "
                "--trainer.max_epochs."
            )
        data = getattr(trainer, "datamodule", None)
        if isinstance(data, RadiographDataModule):
            pl_module.use_features(data, epochs=self.frozen_epochs)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freeze or thaw the backbone, whichever this epoch needs."""
        assert isinstance(pl_module, FusionModule)
        encoder = pl_module.model.image_encoder
        assert encoder is not None
        epoch = trainer.current_epoch
        if epoch < self.frozen_epochs:
            encoder.freeze()
        else:
            encoder.unfreeze()
        # The loaders of the first phase serve features: Lightning makes new ones for training at
        # the start of the first epoch that needs them, for validation when that is next due.
        every: int | None = trainer.check_val_every_n_epoch
        past = epoch - self.frozen_epochs
        switches = past >= -1 and (every is None or past < every)
        trainer.reload_dataloaders_every_n_epochs = int(switches)  # type: ignore[attr-defined]

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int
    ) -> None:
        """Set the rates of the second phase."""
        past = trainer.current_epoch - self.frozen_epochs + batch_idx / trainer.num_training_batches
        if past < 0:
            return
        rate = self.learning_rate
        if past < self.warmup_epochs:
            # The first step is not wasted on a rate of zero.
            rate *= (past + 1 / trainer.num_training_batches) / self.warmup_epochs
        elif self.cosine:
            length = (trainer.max_epochs or 0) - self.frozen_epochs - self.warmup_epochs
            share = min((past - self.warmup_epochs) / max(length, 1), 1.0)
            rate *= (1 + math.cos(math.pi * share)) / 2
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = rate * self.stage_decay ** group["depth"]
