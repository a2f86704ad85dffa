"""The Lightning module around :class:`osteofusion.models.FusionClassifier`."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassF1Score,
    MulticlassMatthewsCorrCoef,
)

from osteofusion.errors import ConfigError
from osteofusion.models import (
    FusionClassifier,
    Outputs,
    auxiliary_loss,
    balanced_class_weights,
    build_loss,
)
from osteofusion.training.carrying import Carried, carry_over
from osteofusion.training.datamodule import Arm, Batch, RadiographDataModule
from osteofusion.training.features import FrozenPhase

_LARGEST = 512  # px, of a side that every backbone of no fixed size reads


class FusionModule(LightningModule):
    """Trains and applies a fusion classifier; a checkpoint of it is complete.

    `class_names`, `clinical` and `class_counts` come from the data module.

    Args:
        class_names: Classes in order of falling bone density.
        clinical: Schema and frozen preprocessing of the clinical features, plain values.
        class_counts: Training rows of each class as they are sampled.
        row_counts: Training rows of each class as they are; default: `class_counts`.
        arm: ``fused``, ``image`` or ``tabular``.
        backbone: A timm model name.
        pretrained: ``true`` for published weights, ``false``, or a local weights file.
        image_encoder: ``timm``, or ``cnn``, a small one trained from nothing.
        image_options: Further arguments of the image encoder.
        clinical_encoder: ``mlp``, ``embedded_mlp`` or ``ft_transformer``.
        clinical_options: Further arguments of the clinical encoder.
        fusion: ``concat``, ``gated``, ``film``, ``daft``, ``cross_attention``, ``late`` or
            ``residual_late``.
        fusion_options: Further arguments of the fusion.
        head: ``proportional_odds``, since the classes are ordered (for two it is logistic), or
            ``softmax``, ``sigmoid`` (two classes) or ``corn``.
        regression_start: Start the clinical side as penalised regression on the training rows. It
            then stays, and everything else learns what it leaves over.
        correction_sd: Prior deviation, in logits, of what is added to the regression: by the
            clinical encoder (tabular arm, ``late`` and ``residual_late``) and by the image
            (``residual_late``). The penalty is divided by the number of rows, so that it fades as
            they become more; other fusions mix both modalities and have none.
        loss: ``cross_entropy`` or ``focal``.
        focal_gamma: Focusing exponent of the focal loss.
        focal_alpha: Balance factor of the focal loss: of the positive class, or one a class.
        label_smoothing: Share of the target spread over all classes.
        auxiliary_weight: Weight of the losses of the single modalities' own heads; 0 for none.
        t_score_weight: Weight of the T-score's likelihood, trained beside the classes; 0 for none.
        modality_dropout: Share of training rows from which each modality is withheld, so that the
            fused model also works with one of them.
        class_weights: ``auto`` (inverse of the sampled frequency, so 1 beside a balanced sampler),
            ``balanced`` (inverse of the rows' frequency, whatever the sampler does), null, or one
            weight a class.
        optimizer: ``adamw`` or ``adam``.
        learning_rate: Of everything but the backbone.
        backbone_learning_rate: Of the backbone.
        start_from: Checkpoint of a run on another task; its encoders and fusion are carried over.
        frozen_backbone: Never train the image encoder. Its features of each radiograph are then
            computed once and kept, but for training radiographs that
            ``data.augmentation`` changes anew every time.
        weight_decay: Of all weight matrices.
        dropout: Before the fused head.
    """

    def __init__(
        self,
        class_names: list[str],
        clinical: dict[str, Any],
        class_counts: list[float],
        row_counts: list[float] | None = None,
        arm: Arm = "fused",
        backbone: str = "tf_efficientnet_lite0",
        pretrained: bool | str = True,
        image_encoder: str = "timm",
        image_options: dict[str, Any] | None = None,
        clinical_encoder: str = "mlp",
        clinical_options: dict[str, Any] | None = None,
        fusion: str = "concat",
        fusion_options: dict[str, Any] | None = None,
        head: str = "proportional_odds",
        regression_start: bool = True,
        correction_sd: float = 0.1,
        loss: Literal["cross_entropy", "focal"] = "cross_entropy",
        focal_gamma: float = 2.0,
        focal_alpha: float | list[float] | None = None,
        label_smoothing: float = 0.0,
        auxiliary_weight: float = 0.0,
        t_score_weight: float = 0.0,
        modality_dropout: float = 0.0,
        class_weights: Literal["auto", "balanced"] | list[float] | None = "auto",
        optimizer: Literal["adamw", "adam"] = "adamw",
        learning_rate: float = 1e-3,
        backbone_learning_rate: float = 3e-4,
        start_from: str | None = None,
        frozen_backbone: bool = False,
        weight_decay: float = 1e-2,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        for name, rate in (
            ("correction_sd", correction_sd),
            ("learning_rate", learning_rate),
            ("backbone_learning_rate", backbone_learning_rate),
        ):
            if not 0 < rate < math.inf:
                raise ConfigError(f"model.{name} is {rate}; it must be positive.")
        for name, weight in (
            ("weight_decay", weight_decay),
            ("auxiliary_weight", auxiliary_weight),
            ("t_score_weight", t_score_weight),
        ):
            if not 0 <= weight < math.inf:
                raise ConfigError(f"model.{name} is {weight}; it must be 0 or more.")
        fused = {"auxiliary_weight": auxiliary_weight, "modality_dropout": modality_dropout}
        for name, value in fused.items():
            if value and arm != "fused":
                raise ConfigError(f"model.{name} is {value}; the {arm} arm has one modality.")
        if focal_alpha is not None and loss != "focal":
            raise ConfigError(f"model.focal_alpha is {focal_alpha}; {loss} has no such factor.")
        weights: list[float] | None = None
        if class_weights == "auto":
            weights = balanced_class_weights(class_counts)
        elif class_weights == "balanced":
            weights = balanced_class_weights(row_counts or class_counts)
        elif class_weights is not None:
            weights = class_weights
            if len(weights) != len(class_names):
                raise ConfigError(
                    f"model.class_weights has {len(weights)} entries; the task has "
                    f"{len(class_names)} classes: {', '.join(class_names)}."
                )
        focal = {"gamma": focal_gamma, "alpha": focal_alpha} if loss == "focal" else {}
        timm = {"backbone": backbone, "pretrained": pretrained} if image_encoder == "timm" else {}
        self.class_weights = weights
        try:
            self.model = FusionClassifier(
                num_classes=len(class_names),
                arm=arm,
                preprocessing=clinical["preprocessing"],
                image_encoder={"name": image_encoder, **timm, **(image_options or {})},
                clinical_encoder={"name": clinical_encoder, **(clinical_options or {})},
                fusion={"name": fusion, **(fusion_options or {})},
                head=head,
                dropout=dropout,
                auxiliary=auxiliary_weight > 0,
                t_score=t_score_weight > 0,
                modality_dropout=modality_dropout,
            )
            self.criterion = build_loss(loss, weights, label_smoothing=label_smoothing, **focal)
        except (TypeError, ValueError) as error:  # of an option of a part
            end = "" if str(error).endswith("?") else "."
            raise ConfigError(f"model: {error}{end}") from error
        if frozen_backbone and self.model.image_encoder is not None:
            self.model.image_encoder.freeze()
        self._frozen: FrozenPhase | None = None
        self.carried: Carried | None = None
        # A one-channel input does not say which layout it has, so the weights must.
        self.model.to(memory_format=torch.channels_last)
        classes = len(class_names)
        metrics = MetricCollection(
            {
                "auroc": MulticlassAUROC(classes),
                "accuracy": MulticlassAccuracy(classes, average="micro"),
                "macro_f1": MulticlassF1Score(classes, average="macro"),
                "mcc": MulticlassMatthewsCorrCoef(classes),
            }
        )
        self.train_metrics = metrics.clone(prefix="train_")
        self.val_metrics = metrics.clone(prefix="val_")

    def check_image_size(self, side: int) -> None:
        """Refuse a size that the backbone cannot read, before anything is trained.

        Args:
            side: Of the square images, px.

        Raises:
            ConfigError: it cannot.
        """
        encoder = self.model.image_encoder
        if encoder is None:
            return
        training = encoder.training
        encoder.eval()
        try:
            if (problem := _unreadable(encoder, side)) is None:
                return
            enough = _enough(encoder, side)
        finally:
            encoder.train(training)
        mend = (
            f"give data.image_size at least {enough}"
            if enough
            else "choose another data.image_size"
        )
        raise ConfigError(
            f"The backbone {self.hparams['backbone']} cannot read images of {side} px "
            f"({problem}); {mend}."
        )

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B, C) of a batch."""
        return self._outputs(batch).logits

    def setup(self, stage: str) -> None:
        """Keep away what another module's backbone made of the radiographs."""
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, RadiographDataModule) and data.frozen is not self._frozen:
            data.frozen = None
        if stage == "fit" and self._regresses(data):
            self.model.keep_regression()

    def on_fit_start(self) -> None:
        """Start where regression on the clinical values ends; warn of a double correction."""
        h, data = self.hparams, getattr(self.trainer, "datamodule", None)
        if not isinstance(data, RadiographDataModule):
            return
        self._tell_corrections(data)
        if h["t_score_weight"] and np.isnan(data.t_scores(data.side("train"))).all():
            raise ConfigError(
                f"model.t_score_weight is {h['t_score_weight']} and no training row has a T-score; "
                "name its column under label.t_score in the manifest."
            )
        # A resumed run has its weights already.
        if self.trainer.ckpt_path is None and h["start_from"] is not None:
            self.carried = carry_over(self, data)
        self._look_once(data)
        if self.trainer.ckpt_path is None and self._regresses(data):
            rows = data.side("train")
            clinical = torch.tensor(data.schema.encode(rows), device=self.device)
            target = torch.tensor(data.codes(rows), device=self.device)
            self.model.start_from_regression(clinical, target, self.class_weights)

    def _tell_corrections(self, data: RadiographDataModule) -> None:
        """Say when the imbalance of the classes is corrected twice, or only seems to be."""
        h, sampler = self.hparams, data.hparams["balanced_sampler"]
        if sampler and h["class_weights"] == "auto":
            rank_zero_warn(
                "data.balanced_sampler already evens out the classes, so model.class_weights=auto "
                "are all 1; set one of them, not both."
            )
        alpha, two = h["focal_alpha"], len(h["class_names"]) == 2
        # One factor for all of three classes scales the loss and evens out nothing.
        factors = alpha if isinstance(alpha, list) else [1 - alpha, alpha] if alpha and two else []
        acting = {
            "data.balanced_sampler": sampler,
            "model.class_weights": self.class_weights is not None
            and len(set(self.class_weights)) > 1,
            "model.focal_alpha": len(set(factors)) > 1,
        }
        twice = [name for name, acts in acting.items() if acts]
        if len(twice) > 1:
            rank_zero_warn(
                f"The imbalance of the classes is corrected {len(twice)} times, by "
                f"{' and '.join(twice)}: as asked, but probabilities will be far from the "
                "frequencies; read ranks (AUROC), or calibrated probabilities."
            )

    def _regresses(self, data: Any) -> bool:
        h = self.hparams
        ours = isinstance(data, RadiographDataModule)
        return bool(ours and h["regression_start"] and h["arm"] != "image")

    def _look_once(self, data: RadiographDataModule) -> None:
        """Let a frozen backbone see each radiograph once, where that is what was asked for."""
        if self.model.image_encoder is None:
            return
        views = data.hparams["augmentation_views"]
        if not self.hparams["frozen_backbone"]:
            if views is not None and data.frozen is None:
                raise ConfigError(
                    f"data.augmentation_views is {views}, and no phase of this training keeps the "
                    "backbone frozen; leave it out, or add --model.frozen_backbone true."
                )
            return
        if data.augmentation is not None and views is None:
            rank_zero_warn(
                "data.augmentation changes the radiographs at every step, so the frozen backbone "
                "runs at every step; with --data.augmentation null it runs once a radiograph, with "
                "--data.augmentation_views 4 once for each of four fixed augmentations."
            )
        if self.trainer.is_global_zero:
            train = "training radiographs at every step, all others once"
            if data.augmentation is None:
                train = "each radiograph once"
            elif views is not None:
                train = f"{views} augmentations of each training radiograph and all others once"
            print(f"The backbone is frozen: it sees {train}.")
        self.use_features(data)

    def use_features(self, data: RadiographDataModule, epochs: int | None = None) -> None:
        """Read what the backbone makes of radiographs in their place while it does not change.

        Args:
            data: Where the radiographs come from.
            epochs: How long it does not; None for ever.
        """
        assert self.model.image_encoder is not None
        pooled = self.model.fusion.image_input != "map"
        data.use_frozen(self.model.image_encoder, pooled=pooled, epochs=epochs)
        self._frozen = data.frozen

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Pixels to [0, 1] on the device: bytes travel, floats do not."""
        if "image" in batch and batch["image"].dtype == torch.uint8:
            batch = {**batch, "image": batch["image"].to(self.dtype) / 255.0}
        return batch

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one batch."""
        return self._step(batch, "train", self.train_metrics)

    def on_train_epoch_end(self) -> None:
        """Metrics of the epoch; to log them at every step costs as much as a small step."""
        self.log_dict(self.train_metrics)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Loss and metrics of one batch."""
        self._step(batch, "val", self.val_metrics)
        self.log_dict(self.val_metrics, on_step=False, on_epoch=True)  # callbacks read them first

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Row numbers and class probabilities; they are scored from the written predictions."""
        return self._predict(batch)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Row numbers and class probabilities."""
        return self._predict(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW or Adam; the backbone has its own rate, biases and norms no decay."""
        h = self.hparams
        encoder = self.model.image_encoder
        stages = encoder.stages() if encoder is not None else []
        # Stages before the last one, so that rates can fall towards the input.
        depth = {id(p): len(stages) - 1 - i for i, stage in enumerate(stages) for p in stage}
        groups: dict[tuple[bool, int, bool], list[torch.nn.Parameter]] = {}
        for parameter in self.model.parameters():
            if not parameter.requires_grad:
                continue
            in_backbone = id(parameter) in depth
            key = (in_backbone, depth.get(id(parameter), 0), parameter.ndim > 1)
            groups.setdefault(key, []).append(parameter)
        settings = [
            {
                "params": parameters,
                "lr": h["backbone_learning_rate" if in_backbone else "learning_rate"],
                "weight_decay": h["weight_decay"] if decay else 0.0,
                "depth": distance,
            }
            for (in_backbone, distance, decay), parameters in groups.items()
        ]
        if h["optimizer"] == "adam":
            return torch.optim.Adam(settings)
        return torch.optim.AdamW(settings)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A reloaded model takes its weights from the checkpoint, not from a hub or a file."""
        source = self.hparams["pretrained"]
        checkpoint["hyper_parameters"] = {**checkpoint["hyper_parameters"], "pretrained": False}
        checkpoint["pretrained"] = source

    def _outputs(self, batch: Batch) -> Outputs:
        return self.model.outputs(
            batch.get("image"), batch["clinical"], batch["present"], batch.get("image_features")
        )

    def _step(self, batch: Batch, stage: str, metrics: MetricCollection) -> Tensor:
        outputs = self._outputs(batch)
        logits, label = outputs.logits, batch["label"]
        loss: Tensor = self.criterion(logits, label)
        if self.training:
            loss = loss + self._beside(outputs, batch)
        metrics.update(logits.detach().float().softmax(dim=1), label)
        self.log(
            f"{stage}_loss",
            loss,
            prog_bar=True,
            on_step=False,
            on_epoch=True,
            batch_size=len(label),
            sync_dist=True,
        )
        return loss

    def _beside(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Losses that help training and do not count when models are compared."""
        h, total = self.hparams, outputs.logits.new_zeros(())
        if h["regression_start"]:
            rows = sum(h["class_counts"])
            total = total + self.model.correction_penalty() / (h["correction_sd"] ** 2 * rows)
        if h["auxiliary_weight"]:
            own = auxiliary_loss(outputs, batch["label"], self.criterion)
            total = total + h["auxiliary_weight"] * own
        if self.model.t_score_head is not None and outputs.t_score is not None:
            likelihood = self.model.t_score_head.loss(outputs.t_score, batch["t_score"])
            total = total + h["t_score_weight"] * likelihood
        return total

    def _predict(self, batch: Batch) -> dict[str, Tensor]:
        return {
            "index": batch["index"],
            "probability": self(batch).float().softmax(dim=1),
        }


def _unreadable(encoder: torch.nn.Module, side: int) -> str | None:
    """Why an encoder cannot read square images of that many px; None where it can."""
    try:
        with torch.no_grad():
            encoder(torch.zeros(1, 1, side, side))
    except (AssertionError, RuntimeError, ValueError) as error:  # backbones differ
        return str(error).rstrip(".")
    return None


def _enough(encoder: torch.nn.Module, side: int) -> int | None:
    """The smallest larger side that an encoder reads; None where it asks for one size alone."""
    low, high = side, _LARGEST
    if side >= high or _unreadable(encoder, high) is not None:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _unreadable(encoder, middle) is None else (middle, high)
    return high
