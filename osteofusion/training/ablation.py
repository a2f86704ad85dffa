"""What each modality is worth: its arm alone, and the fused model without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from pytorch_lightning import Callback, LightningModule, Trainer

from osteofusion.errors import ConfigError
from osteofusion.evaluation import Estimate, Evaluation, save_figure
from osteofusion.evaluation.curves import ForestRow, draw_forest, words
from osteofusion.evaluation.figures import STYLE
from osteofusion.files import atomic_path
from osteofusion.training.arms import SingleArm, own_callbacks, refuse_strategy, train_arm
from osteofusion.training.datamodule import Batch, RadiographDataModule
from osteofusion.training.predictions import (
    PredictionWriter,
    gather,
    parts_of,
    predictions_table,
    read_predictions,
)
from osteofusion.training.readings import Readings
from osteofusion.training.scoring import READINGS, lead_table

ARMS: tuple[SingleArm, ...] = ("image", "tabular")


class ModalityAblation(Callback):
    """Trains each modality alone after a fused fit, and asks the fused model without either.

    After the fit the arms ``image`` and ``tabular`` are trained on the same splits, with the same
    seed, budget, early stopping and device, each in a folder of its own under ``ablation/``. A
    finished arm is not trained again; an interrupted one goes on.

    In the test of the fused model its test rows are read three times more: without images, without
    clinical values, and with images shuffled between subjects (one seeded permutation under which
    nobody keeps a film of their split group). All arms go to the `predictions.csv` and
    `metrics.json` of the `PredictionWriter` that it needs beside it, and to `ablation.csv` and
    `ablation.png`. A fit of a single arm is left alone.

    Args:
        train_arms: Whether to train the arms; else the fused model is asked otherwise, no more.

    Raises:
        ConfigError: there is no `PredictionWriter`, or the strategy allows no second training.
    """

    def __init__(self, train_arms: bool = True) -> None:
        self.train_arms = train_arms
        self._callbacks: list[Callback] = []
        self._trained: list[SingleArm] = []
        self._readings: Readings | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what cannot work, and copy the other callbacks as they are before the fit."""
        self._writer(trainer)
        if stage == "fit" and self.train_arms and self._is_fused(trainer, pl_module):
            refuse_strategy(trainer)
            self._callbacks = own_callbacks(trainer, (ModalityAblation, PredictionWriter))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Train the arms."""
        fused = self._is_fused(trainer, pl_module)
        trial: int = trainer.fast_dev_run  # type: ignore[attr-defined]
        if not fused or not self.train_arms or trial:
            return
        module, data = parts_of(trainer, pl_module)
        writer = self._writer(trainer)
        for arm in self._possible(data, writer):
            train_arm(arm, self._folder(writer, arm), trainer, module, data, self._callbacks)
            self._trained.append(arm)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw who is shown whose image."""
        self._readings = None
        if self._is_fused(trainer, pl_module):
            self._readings = Readings(trainer, *parts_of(trainer, pl_module))

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Ask the model otherwise about the batch's test rows."""
        if self._readings is not None:
            self._readings.ask(batch)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hand the predictions of all arms to the writer."""
        if self._readings is None:
            return
        index, values = gather(trainer, self._readings.collected)
        if not trainer.is_global_zero:
            return
        writer, data = self._writer(trainer), parts_of(trainer, pl_module)[1]
        writer.notes += self._readings.notes
        for arm in self._trained:
            writer.further.append(read_predictions(self._folder(writer, arm) / "predictions.csv"))
        for i, name in enumerate(self._readings.names):
            writer.further.append(predictions_table(data, index, values[:, i], name))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write `ablation.csv` and `ablation.png`."""
        writer = self._writer(trainer)
        if stage != "test" or self._readings is None or writer.evaluation is None:
            return
        table = lead_table(writer.evaluation, _ablated(writer.evaluation))
        with atomic_path(writer.folder / "ablation.csv") as temporary:
            table.to_csv(temporary, index=False)
        synthetic = parts_of(trainer, pl_module)[1].cohort.manifest.synthetic_what
        figure = draw_ablation(writer.evaluation, stamp=synthetic or None)
        save_figure(figure, writer.folder / "ablation.png")

    @staticmethod
    def _is_fused(trainer: Trainer, pl_module: LightningModule) -> bool:
        return str(parts_of(trainer, pl_module)[0].hparams["arm"]) == "fused"

    @staticmethod
    def _folder(writer: PredictionWriter, arm: SingleArm) -> Path:
        return writer.folder / "ablation" / arm

    @staticmethod
    def _writer(trainer: Trainer) -> PredictionWriter:
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        found = [each for each in callbacks if isinstance(each, PredictionWriter)]
        if not found:
            raise ConfigError(
                "ModalityAblation hands its predictions to a PredictionWriter; add one to the "
                "trainer's callbacks."
            )
        return found[0]

    @staticmethod
    def _possible(data: RadiographDataModule, writer: PredictionWriter) -> list[SingleArm]:
        """Both arms, but for images where some rows have none."""
        if (data.rows["image"] != "").all():
            return list(ARMS)
        writer.notes.append("image: some rows have no radiograph, so this arm is not trained alone")
        return ["tabular"]


def draw_ablation(evaluation: Evaluation, stamp: str | None = None) -> Figure:
    """Draw the AUROC of each arm and reading, and beside it the paired difference to fused.

    Args:
        evaluation: Of a fused run with its ablation; three classes are drawn by the macro average.
        stamp: Text across the foot, such as "synthetic demo data".
    """
    metric = "auroc" if len(evaluation.classes) == 2 else "macro_auroc"
    name = "AUROC" if metric == "auroc" else "macro AUROC"
    ahead = {each.second: each.estimate for each in evaluation.differences if each.metric == metric}
    arms = _ablated(evaluation)
    reached = [_forest_row(arm, evaluation.arms[arm].metrics[metric]) for arm in arms]
    leads = [_forest_row(arm, ahead[arm]) for arm in arms[1:]]
    with rc_context(STYLE):
        figure = Figure(figsize=(9.6, 1.6 + 0.42 * len(arms)), layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2)
        draw_forest(left, reached, name)
        draw_forest(right, leads, f"fused less arm, paired {name}", reference=0.0)
        right.set_ylim(len(leads) - 0.5, -1.5)  # level with the left, where fused is first
        figure.suptitle(
            f"{evaluation.split} rows: {evaluation.n_rows} radiographs in "
            f"{evaluation.n_groups} split groups"
        )
        if stamp:
            figure.supxlabel(stamp, color="#B00020", fontweight="bold", fontsize=11)
    return figure


def _forest_row(arm: str, estimate: Estimate) -> ForestRow:
    return ForestRow(words(arm), estimate.value, estimate.low, estimate.high, arm == "fused")


def _ablated(evaluation: Evaluation) -> list[str]:
    return [arm for arm in ("fused", *ARMS, *READINGS) if arm in evaluation.arms]
