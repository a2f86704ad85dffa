"""A run's test side, scored beside the baselines on the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from rich import box
from rich.console import Console
from rich.table import Table

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
from osteofusion.evaluation.classification import accuracy_gap, summary_table
from osteofusion.evaluation.reading import best_single_column
from osteofusion.evaluation.regions import evaluate_regions
from osteofusion.evaluation.variants import REFERENCES
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
        gaps: Accuracy on the training side less that on the test side; without rows where the
            cohort has no training side.
        regions: Region to the evaluation of its rows; empty where there is one.
    """

    evaluation: Evaluation
    table: pd.DataFrame
    baselines: pd.DataFrame
    gaps: pd.DataFrame
    regions: dict[str, Evaluation]

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
    every = table = pd.concat([test, baselines], ignore_index=True)
    if combine is not None and test_rows["subject_id"].duplicated().any():
        table = combine_subjects(table, data.class_names, combine)
        subjects = len(table) // table["arm"].nunique()
        what = "mean of the" if combine == "mean" else "worst of the"
        said.append(f"{len(own)} radiographs count as {subjects} subjects: {what} predictions")
    arms = [*test["arm"].unique(), *REFERENCES]
    return Scored(
        evaluate(table, data.class_names, notes=said),
        table,
        baselines,
        _gaps(predictions, table, data.class_names, combine),
        evaluate_regions(every, data.class_names, arms=arms, combine=combine),
    )


def _gaps(
    predictions: pd.DataFrame, test: pd.DataFrame, classes: Sequence[str], combine: Combine | None
) -> pd.DataFrame:
    """Of the arms that were asked about training rows, subjects combined as on the test side."""
    train = predictions[predictions["split"] == "train"]
    if combine is not None and train.duplicated(["arm", "subject_id"]).any():
        train = combine_subjects(train, classes, combine)
    if train.empty:
        return pd.DataFrame()
    return accuracy_gap(pd.concat([train, test], ignore_index=True), classes)


def print_scored(console: Console, scored: Scored) -> None:
    """Print trained arms and baselines, then what the first arm is ahead of the others by.

    Differences to baselines are left to ``metrics.json``, but for the best single column.
    """
    evaluation = scored.evaluation
    arms = {name: arm for name, arm in evaluation.arms.items() if name not in READINGS}
    console.print(render_table(replace(evaluation, arms=arms)))
    shown = {*evaluation.arms} - {*scored.baseline_arms} | {best_single_column(evaluation)}
    _print_summary(console, scored)
    for region, apart in scored.regions.items():
        console.print(f"{region} alone", style="bold")
        console.print(render_table(apart))
    differences = [each for each in evaluation.differences if each.second in shown]
    if differences:
        console.print(render_differences(replace(evaluation, differences=differences)))
    if "fused" in evaluation.arms and "tabular" in evaluation.arms:
        console.print(reading(evaluation), style="bold")


def _print_summary(console: Console, scored: Scored) -> None:
    """The table of published classifiers, one row an arm, with what is lost from training on."""
    evaluation = scored.evaluation
    wanted = [*scored.gaps.index, *REFERENCES]
    arms = [arm for arm in evaluation.arms if arm in wanted]
    gaps = None if scored.gaps.empty else scored.gaps
    whose = evaluation.classes[1] if len(evaluation.classes) == 2 else "macro averages"
    table = Table(box=box.SIMPLE_HEAD, padding=0, caption_justify="left")
    table.title = f"As published tables have it; precision, recall, F1: {whose.replace('_', ' ')}"
    if gaps is not None:
        table.caption = "train - test: accuracy on the training rows less that on the test rows."
    shown = summary_table(evaluation, scored.table, gaps, arms=arms)
    for name in ("arm", *shown.columns):
        table.add_column(name, justify="left" if name == "arm" else "center")
    for arm, cells in shown.iterrows():
        table.add_row(str(arm).replace("_", " "), *(cell.replace(" (", "\n(") for cell in cells))
    console.print(table)


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
