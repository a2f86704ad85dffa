"""From batches to `predictions.csv`, and from there to figures a reader can trust."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from rich.console import Console
from torch import Tensor

from osteofusion.errors import OsteofusionError
from osteofusion.evaluation import Combine, Evaluation, draw_sheet, save_figure
from osteofusion.evaluation.classification import gaps_in_json
from osteofusion.files import atomic_path
from osteofusion.training.datamodule import Batch, RadiographDataModule
from osteofusion.training.module import FusionModule
from osteofusion.training.run import write_json
from osteofusion.training.scoring import READINGS, Scored, print_scored, score_test_side

COLUMNS = ("subject_id", "image", "group", "site", "region", "split", "fold", "repeat")
_NUMBERS = ("group", "fold", "repeat", "seed")
_DRAWN_BASELINES = ("majority", "age", "logistic_regression")


class PredictionWriter(Callback):
    """Writes one prediction a radiograph to `folder`, and scores the test side.

    Under several processes the rows are gathered, the copies that a sampler adds to even out the
    processes are dropped, and the first process writes. Other callbacks may add arms, in their
    ``on_test_epoch_end``: everything is written once all have.

    Args:
        folder: The run folder.
        combine: How the figures take several radiographs of a subject together; None counts each
            radiograph.
        score: Whether to score the test side; else predictions are all that is written.

    Attributes:
        further: Predictions of further arms, with the columns of `predictions.csv`.
        notes: What a reader should know of them.
    """

    def __init__(
        self, folder: Path, combine: Combine | None = "mean", *, score: bool = True
    ) -> None:
        self.folder = folder
        self.combine = combine
        self.score = score
        self.further: list[pd.DataFrame] = []
        self.notes: list[str] = []
        self.scored: Scored | None = None
        self._predictions: pd.DataFrame | None = None
        self._collected: list[tuple[Tensor, Tensor]] = []

    @property
    def evaluation(self) -> Evaluation | None:
        """All arms of the test side, in the first process, once it is scored."""
        return None if self.scored is None else self.scored.evaluation

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
        """Bring the rows of all processes together."""
        module, data = parts_of(trainer, pl_module)
        index, probability = gather(trainer, self._collected)
        self._collected.clear()
        if trainer.is_global_zero:
            arm = module.hparams["arm"]
            self._predictions = predictions_table(data, index, probability, arm)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write `predictions.csv`, `baselines.csv`, `metrics.json` and the figure sheet."""
        if self._predictions is None:
            return
        table = pd.concat([self._predictions, *self.further])
        self.further.clear()
        write_predictions(table, self.folder / "predictions.csv")
        if not self.score:
            return
        module, data = parts_of(trainer, pl_module)
        self.scored = score_test_side(module, data, table, self.combine, self.notes)
        self._write_scores(module, data, self.scored)

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write `predictions.csv`."""
        self.on_test_epoch_end(trainer, pl_module)
        if self._predictions is not None:
            write_predictions(self._predictions, self.folder / "predictions.csv")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Print the tables, or where the predictions are; a bar would be drawn into it earlier."""
        if stage == "predict" and trainer.is_global_zero:
            print(f"Predictions: {self.folder / 'predictions.csv'}")
        if stage != "test" or self.scored is None:
            return
        manifest = parts_of(trainer, pl_module)[1].cohort.manifest
        console = Console()
        print_scored(console, self.scored)
        if manifest.synthetic_what:
            console.print(f"These figures are from {manifest.synthetic_what}.", style="bold red")
        if manifest.synthetic:
            print("On real data:  --data.manifest mendeley --data.root DIR")
        console.print(f"Source: {manifest.citation}", style="dim")
        print(f"Run folder: {self.folder.resolve()}")  # whole, so that it can be copied

    def _write_scores(
        self, module: FusionModule, data: RadiographDataModule, scored: Scored
    ) -> None:
        write_predictions(scored.baselines, self.folder / "baselines.csv")
        manifest = data.cohort.manifest
        write_json(
            self.folder / "metrics.json",
            {
                "data": {
                    "manifest": manifest.name,
                    "citation": manifest.citation,
                    "synthetic": bool(manifest.synthetic_what),
                    "synthetic_what": manifest.synthetic_what,
                },
                "task": data.hparams["task"],
                "calibration": "none: p_<class> equals raw_<class>",
                **scored.evaluation.to_dict(),
                "accuracy_gap": gaps_in_json(scored.gaps),
                "regions": {name: each.to_dict() for name, each in scored.regions.items()},
            },
        )
        left_out = {*READINGS, *scored.baseline_arms} - {*_DRAWN_BASELINES}
        sheet = draw_sheet(
            scored.table[~scored.table["arm"].isin(left_out)],
            data.class_names,
            arm=module.hparams["arm"],
            stamp=manifest.synthetic_what or None,
        )
        save_figure(sheet, self.folder / "test.png")


def gather(trainer: Trainer, parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Row numbers (n,) and values (n, ...) of all processes, each row once, in their order."""
    index = torch.cat([index for index, _ in parts])
    values = torch.cat([values for _, values in parts])
    if trainer.world_size > 1:
        gathered: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(gathered, (index, values))
        index = torch.cat([part[0] for part in gathered])
        values = torch.cat([part[1] for part in gathered])
    kept = torch.from_numpy(np.unique(index.numpy(), return_index=True)[1])
    return index[kept], values[kept]


def predictions_table(
    data: RadiographDataModule, index: Tensor, probability: Tensor, arm: str
) -> pd.DataFrame:
    """The rows of `predictions.csv` of one arm, with the index of ``data.rows``.

    Args:
        data: The data.
        index: (n,) rows.
        probability: (n, C).
        arm: Name of the arm.

    Raises:
        OsteofusionError: a probability is not finite.
    """
    values = probability.numpy().astype(np.float64)
    if not np.isfinite(values).all():
        raise OsteofusionError(
            "The model's probabilities are not finite, so its training has diverged; lower "
            "model.learning_rate and model.backbone_learning_rate."
        )
    values /= values.sum(axis=1, keepdims=True)  # float32 sums miss 1 by its rounding
    rows = data.rows.loc[index.numpy()]
    table = rows[list(COLUMNS)].assign(arm=arm, seed=data.seed, label=rows["label"])
    for kind in ("p", "raw"):
        for code, name in enumerate(data.class_names):
            table[f"{kind}_{name}"] = values[:, code]
    return table


def write_predictions(table: pd.DataFrame, path: Path) -> None:
    """Write predictions as CSV."""
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False)


def read_predictions(path: Path) -> pd.DataFrame:
    """Read predictions back; text stays as it is: a subject may be called 007 or NA."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False, float_precision="round_trip")
    probabilities = [name for name in table.columns.astype(str) if name.startswith(("p_", "raw_"))]
    return table.astype(dict.fromkeys(_NUMBERS, int) | dict.fromkeys(probabilities, float))


def parts_of(
    trainer: Trainer, pl_module: LightningModule
) -> tuple[FusionModule, RadiographDataModule]:
    """Our module and data module.

    Raises:
        TypeError: they are others.
    """
    data = getattr(trainer, "datamodule", None)
    if not isinstance(pl_module, FusionModule) or not isinstance(data, RadiographDataModule):
        raise TypeError("PredictionWriter needs a FusionModule and a RadiographDataModule")
    return pl_module, data
