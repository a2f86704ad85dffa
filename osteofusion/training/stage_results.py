"""What two stages gave, beside a fresh start on the same folds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from osteofusion.data.labels import task_classes
from osteofusion.errors import SplitError
from osteofusion.evaluation import (
    combine_subjects,
    evaluate,
    render_differences,
    render_table,
)
from osteofusion.evaluation.reading import best_single_column
from osteofusion.files import atomic_path
from osteofusion.training.carrying import seen_before
from osteofusion.training.predictions import read_predictions, write_predictions
from osteofusion.training.run import write_json
from osteofusion.training.scoring import lead_table

STAGED, SCRATCH = "staged", "scratch"


def compare_stages(
    folder: Path, folds: Sequence[int] | None, settings: Sequence[Mapping[str, Any]]
) -> None:
    """Write and print the comparison: `predictions.csv`, `stages.csv` and `comparison.json`.

    Args:
        folder: With the finished parts ``binary``, ``staged`` and ``scratch``.
        folds: Folds that were run; None for a single split.
        settings: Of the first and the second stage.

    Raises:
        SplitError: a test row was trained or validated on before.
    """
    places = [""] if folds is None else [f"fold_{fold}" for fold in folds]
    tested = sum(_refuse_seen(folder, place) for place in places)
    predictions = pd.concat([_test_rows(folder, place) for place in places], ignore_index=True)
    # Baselines stand below both arms.
    order = {STAGED: 0, SCRATCH: 1}
    rank = predictions["arm"].map(order).fillna(len(order))
    predictions = predictions.loc[rank.sort_values(kind="stable").index].reset_index(drop=True)
    classes = task_classes(settings[1]["data"]["task"])
    notes = [
        f"none of the {tested} test rows, nor a copy of its film, was trained or validated on in "
        "stage one"
    ]
    table, combine = predictions, settings[1]["combine"]
    per_cell = predictions.duplicated(["arm", "repeat", "fold", "subject_id"])
    if combine is not None and per_cell.any():
        table = combine_subjects(predictions, classes, combine)
        what = "mean of the" if combine == "mean" else "worst of the"
        notes.append(f"several radiographs of a subject count as one: {what} predictions")
    evaluation = evaluate(table, classes, notes=notes)
    write_predictions(predictions, folder / "predictions.csv")
    with atomic_path(folder / "stages.csv") as temporary:
        lead_table(evaluation, list(evaluation.arms)).to_csv(temporary, index=False)
    first = folder / "staged" / places[0]
    carried = json.loads((first / "carried.json").read_text(encoding="utf-8"))
    described = json.loads((first / "metrics.json").read_text(encoding="utf-8"))["data"]
    write_json(
        folder / "comparison.json",
        {
            "data": described,
            "tasks": [each["data"]["task"] for each in settings],
            "folds": folds,
            "test_rows": tested,
            "test_rows_seen_in_stage_one": 0,
            "carried_parts": carried["carried_parts"],
            "new_parts": carried["new_parts"],
            **evaluation.to_dict(),
        },
    )
    console = Console()
    console.print(render_table(evaluation))
    shown = {SCRATCH, best_single_column(evaluation)}
    differences = [each for each in evaluation.differences if each.second in shown]
    console.print(render_differences(replace(evaluation, differences=differences)))
    if described["synthetic"]:
        what = described["synthetic_what"]
        console.print(f"These figures are from {what}.", style="bold red")
    console.print(f"Source: {described['citation']}", style="dim")
    print(f"Stages folder: {folder.resolve()}")


def _refuse_seen(folder: Path, place: str) -> int:
    """Number of test rows of stage two, all of them new to stage one."""
    splits = [
        pd.read_csv(folder / part / place / "splits.csv", dtype=str, keep_default_na=False)
        for part in ("binary", "staged")
    ]
    if len(seen := seen_before(*splits)):
        raise SplitError(
            f"{len(seen)} test rows of stage two, such as {seen['image'].iloc[0]!r}, were trained "
            f"or validated on in stage one; {folder} cannot be trusted: run the stages again in "
            "another folder."
        )
    return int((splits[1]["split"] == "test").sum())


def _test_rows(folder: Path, place: str) -> pd.DataFrame:
    """Test rows of both second stages and of the baselines."""
    tables = [
        read_predictions(folder / part / place / "predictions.csv").assign(arm=part)
        for part in (STAGED, SCRATCH)
    ]
    tables.append(read_predictions(folder / STAGED / place / "baselines.csv"))
    table = pd.concat(tables, ignore_index=True)
    return table[table["split"] == "test"]
