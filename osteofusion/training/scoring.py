"""A run's test side, scored beside the baselines on the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from rich.console import Console

from osteofusion.data.manifest import LABELS
from osteofusion.evaluation import (
    BaselineRows,
    Combine,
    Estimate,
    Evaluation,
    add_arms,
    combine_subjects,
    evaluate,
    fit_baselines,
    reading,
    render_differences,
    render_table,
)
from osteofusion.evaluation.reading import best_single_column
from osteofusion.models import ClinicalPreprocessing
from osteofusion.training.datamodule import RadiographDataModule
from osteofusion.training.module import FusionModule

READINGS = ("fused_without_image", "fused_without_clinical", "fused_shuffled_images")
_SCORED = ("age", "weight", "female", "estrogen", "frax")


@dataclass(frozen=True)
class Scored:
    """The test side of a run.

    Attributes:
        evaluation: All arms with intervals.
        table: The predictions that were evaluated: one row a radiograph, or subject, and arm.
        baselines: The baselines' predictions, one row a radiograph and arm.
    """

    evaluation: Evaluation
    table: pd.DataFrame
    baselines: pd.DataFrame

    @property
    def baseline_arms(self) -> list[str]:
        """Names of the baselines."""
        return list(self.baselines["arm"].unique())


def score_test_side(
    module: FusionModule,
    data: RadiographDataModule,
    predictions: pd.DataFrame,
    combine: Combine | None = "mean",
    notes: Sequence[str] = (),
) -> Scored:
    """Score the test rows of a predictions table beside the baselines on the same rows.

    The baselines are fitted on the training rows alone; a cohort without training rows (an
    external test set) has none.

    Args:
        module: The trained module.
        data: Its data.
        predictions: One row a radiograph and arm; the rows of the first arm have the index that
            they have in ``data.rows``.
        combine: How several radiographs of a subject are taken together.
        notes: What a reader should know beforehand.
    """
    test = predictions[predictions["split"] == "test"]
    own = test[test["arm"] == test["arm"].iloc[0]]
    train_rows, test_rows = data.side("train"), data.rows.loc[own.index]
    said = list(notes)
    baselines = own.iloc[:0]
    if not train_rows.empty:
        fitted = fit_baselines(
            _facts(module, data, train_rows), _facts(module, data, test_rows), data.class_names
        )
        baselines = add_arms(own, fitted.probabilities, data.class_names).iloc[len(own) :]
        for reasons in (fitted.skipped, fitted.notes):
            said += [f"{name}: {reason}" for name, reason in reasons.items()]
    else:
        said.append("baselines: the cohort has no training rows to fit them on")
    table = pd.concat([test, baselines], ignore_index=True)
    if combine is not None and test_rows["subject_id"].duplicated().any():
        table = combine_subjects(table, data.class_names, combine)
        subjects = len(table) // table["arm"].nunique()
        what = "mean of the" if combine == "mean" else "worst of the"
        said.append(f"{len(own)} radiographs count as {subjects} subjects: {what} predictions")
    return Scored(evaluate(table, data.class_names, notes=said), table, baselines)


def print_scored(console: Console, scored: Scored) -> None:
    """Print trained arms and baselines, then what the first arm is ahead of the others by.

    Differences to baselines are left to ``metrics.json``, but for the best single column.
    """
    evaluation = scored.evaluation
    arms = {name: arm for name, arm in evaluation.arms.items() if name not in READINGS}
    console.print(render_table(replace(evaluation, arms=arms)))
    shown = {*evaluation.arms} - {*scored.baseline_arms} | {best_single_column(evaluation)}
    differences = [each for each in evaluation.differences if each.second in shown]
    if differences:
        console.print(render_differences(replace(evaluation, differences=differences)))
    if "fused" in evaluation.arms and "tabular" in evaluation.arms:
        console.print(reading(evaluation), style="bold")


def lead_table(evaluation: Evaluation, arms: Sequence[str]) -> pd.DataFrame:
    """Every metric of some arms, and what the first is ahead of each other one by.

    Returns:
        Columns ``arm, metric, value, low, high`` and ``<first>_minus_arm``, ``..._low`` and
        ``..._high``, the paired difference, empty where there is none.
    """
    lead = f"{arms[0]}_minus_arm"
    ahead = {
        (each.second, each.metric): each.estimate
        for each in evaluation.differences
        if each.first == arms[0]
    }
    none = Estimate(None, 0)
    rows = []
    for arm in arms:
        for metric, own in evaluation.arms[arm].metrics.items():
            found = ahead.get((arm, metric), none)
            rows.append(
                {"arm": arm, "metric": metric, "value": own.value, "low": own.low, "high": own.high}
                | {lead: found.value, f"{lead}_low": found.low, f"{lead}_high": found.high}
            )
    return pd.DataFrame(rows)


def _facts(module: FusionModule, data: RadiographDataModule, rows: pd.DataFrame) -> BaselineRows:
    values = data.schema.encode(rows)
    design = values
    if values.shape[1]:
        encoder = ClinicalPreprocessing(module.hparams["clinical"]["preprocessing"])
        design = encoder(torch.from_numpy(values)).numpy()
    columns = {
        name: rows[name].to_numpy(dtype=np.float64) for name in _SCORED if name in rows.columns
    }
    return BaselineRows(
        design=design,
        y=data.codes(rows),
        age=columns.get("age"),
        columns=columns,
        values=values,
        ordinal=_ordinal(data, rows),
    )


def _ordinal(data: RadiographDataModule, rows: pd.DataFrame) -> np.ndarray | None:
    """Codes of the three classes behind the task's labels; None where some are unknown."""
    keys = ["subject_id", "image"]
    labels = data.cohort.table.set_index(keys)["label"].loc[pd.MultiIndex.from_frame(rows[keys])]
    codes = labels.map({name: code for code, name in enumerate(LABELS)})
    return None if codes.isna().any() else codes.to_numpy(dtype=np.int64)
