"""From batches to `predictions.csv`, and from there to figures a reader can trust."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from rich.console import Console
from torch import Tensor

from osteofusion.errors import OsteofusionError
from osteofusion.evaluation import (
    BaselineRows,
    Combine,
    Evaluation,
    add_arms,
    combine_subjects,
    draw_sheet,
    evaluate,
    fit_baselines,
    render_table,
    save_figure,
)
from osteofusion.files import atomic_path
from osteofusion.models import ClinicalPreprocessing
from osteofusion.training.datamodule import Batch, RadiographDataModule
from osteofusion.training.module import FusionModule
from osteofusion.training.run import write_json

SYNTHETIC = "synthetic demo data"
COLUMNS = ("subject_id", "image", "group", "site", "region", "split", "fold", "repeat")


class PredictionWriter(Callback):
    """Writes one prediction a radiograph to `folder`, and scores the test side.

    Under several processes the rows are gathered, the copies that a sampler adds to even out the
    processes are dropped, and the first process writes.

    Args:
        folder: The run folder.
        combine: How the figures take several radiographs of a subject together; None counts each
            radiograph.
    """

    def __init__(self, folder: Path, combine: Combine | None = "mean") -> None:
        self.folder = folder
        self.combine = combine
        self.evaluation: Evaluation | None = None
        self._collected: list[tuple[Tensor, Tensor]] = []

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the batch's row numbers and probabilities."""
        self._collected.append((outputs["index"].cpu(), outputs["probability"].cpu()))

    on_predict_batch_end = on_test_batch_end

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write `predictions.csv`, `metrics.json` and the figure sheet."""
        predictions = self._write(trainer, pl_module)
        if predictions is None:
            return
        module, data = _parts(trainer, pl_module)
        self.evaluation, table = evaluate_test_side(module, data, predictions, self.combine)
        synthetic = data.cohort.manifest.synthetic
        write_json(
            self.folder / "metrics.json",
            {
                "data": {
                    "manifest": data.cohort.manifest.name,
                    "citation": data.cohort.manifest.citation,
                    "synthetic": synthetic,
                },
                "task": data.hparams["task"],
                "calibration": "none: p_<class> equals raw_<class>",
                **self.evaluation.to_dict(),
            },
        )
        sheet = draw_sheet(
            table,
            data.class_names,
            arm=module.hparams["arm"],
            stamp=SYNTHETIC if synthetic else None,
        )
        save_figure(sheet, self.folder / "test.png")

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write `predictions.csv`."""
        self._write(trainer, pl_module)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Print the table, or where the predictions are; a bar would be drawn into it earlier."""
        if stage == "predict" and trainer.is_global_zero:
            print(f"Predictions: {self.folder / 'predictions.csv'}")
        if stage != "test" or self.evaluation is None:
            return
        manifest = _parts(trainer, pl_module)[1].cohort.manifest
        console = Console()
        console.print(render_table(self.evaluation))
        if manifest.synthetic:
            console.print(
                "These figures are from SYNTHETIC DEMO DATA. On real data:", style="bold red"
            )
            print("  --data.manifest mendeley --data.root DIR")
        console.print(f"Source: {manifest.citation}", style="dim")
        print(f"Run folder: {self.folder.resolve()}")  # whole, so that it can be copied

    def _write(self, trainer: Trainer, pl_module: LightningModule) -> pd.DataFrame | None:
        index = torch.cat([index for index, _ in self._collected])
        probability = torch.cat([probability for _, probability in self._collected])
        self._collected.clear()
        if trainer.world_size > 1:
            gathered: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(gathered, (index, probability))
            index = torch.cat([part[0] for part in gathered])
            probability = torch.cat([part[1] for part in gathered])
        if not trainer.is_global_zero:
            return None
        module, data = _parts(trainer, pl_module)
        kept = np.unique(index.numpy(), return_index=True)[1]
        values = probability.numpy().astype(np.float64)[kept]
        if not np.isfinite(values).all():
            raise OsteofusionError(
                "The model's probabilities are not finite, so its training has diverged; lower "
                "model.learning_rate and model.backbone_learning_rate."
            )
        values /= values.sum(axis=1, keepdims=True)  # float32 sums miss 1 by its rounding
        rows = data.rows.loc[index.numpy()[kept]]
        predictions = rows[list(COLUMNS)].assign(
            arm=module.hparams["arm"], seed=data.seed, label=rows["label"]
        )
        for kind in ("p", "raw"):
            for code, name in enumerate(data.class_names):
                predictions[f"{kind}_{name}"] = values[:, code]
        with atomic_path(self.folder / "predictions.csv") as temporary:
            predictions.to_csv(temporary, index=False)
        return predictions


def evaluate_test_side(
    module: FusionModule,
    data: RadiographDataModule,
    predictions: pd.DataFrame,
    combine: Combine | None = "mean",
) -> tuple[Evaluation, pd.DataFrame]:
    """Score the test rows of a predictions table beside the baselines on the same rows.

    The baselines are fitted on the training rows alone; a cohort without training rows (an
    external test set) has none.

    Args:
        module: The trained module.
        data: Its data.
        predictions: As written to `predictions.csv`, one row a radiograph.
        combine: How several radiographs of a subject are taken together.

    Returns:
        The evaluation, and the table of all arms on the test rows or subjects.
    """
    test = predictions[predictions["split"] == "test"]
    train_rows, test_rows = data.side("train"), data.rows.loc[test.index]
    notes: list[str] = []
    if not train_rows.empty:
        fitted = fit_baselines(
            _facts(module, data, train_rows), _facts(module, data, test_rows), data.class_names
        )
        test = add_arms(test, fitted.probabilities, data.class_names)
        notes += [f"{name}: {reason}" for name, reason in fitted.skipped.items()]
    else:
        notes.append("baselines: the cohort has no training rows to fit them on")
    radiographs = len(test_rows)
    if combine is not None and test_rows["subject_id"].duplicated().any():
        test = combine_subjects(test, data.class_names, combine)
        subjects = len(test) // test["arm"].nunique()
        what = "mean of the" if combine == "mean" else "worst of the"
        notes.append(f"{radiographs} radiographs count as {subjects} subjects: {what} predictions")
    return evaluate(test, data.class_names, notes=notes), test


def _facts(module: FusionModule, data: RadiographDataModule, rows: pd.DataFrame) -> BaselineRows:
    design = data.schema.encode(rows)
    if design.shape[1]:
        encoder = ClinicalPreprocessing(module.hparams["clinical"]["preprocessing"])
        design = encoder(torch.from_numpy(design)).numpy()
    age = rows["age"].to_numpy(dtype=np.float64) if "age" in rows else None
    return BaselineRows(design=design, y=data.codes(rows), age=age)


def _parts(
    trainer: Trainer, pl_module: LightningModule
) -> tuple[FusionModule, RadiographDataModule]:
    data = getattr(trainer, "datamodule", None)
    if not isinstance(pl_module, FusionModule) or not isinstance(data, RadiographDataModule):
        raise TypeError("PredictionWriter needs a FusionModule and a RadiographDataModule")
    return pl_module, data
