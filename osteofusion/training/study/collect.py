"""From finished cells to one predictions table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from osteofusion.errors import OsteofusionError
from osteofusion.training.study.plan import Cell
from osteofusion.training.study.records import Records

_NUMBERS = {"group": int, "fold": int, "repeat": int, "seed": int}


@dataclass(frozen=True)
class Collected:
    """The test rows of a study.

    Attributes:
        predictions: One row a radiograph, variant, arm, repeat, fold and seed, baselines too.
        training: What the arms say of their own training rows; the same columns.
        notes: What is missing, and what that means for comparisons.
    """

    predictions: pd.DataFrame
    training: pd.DataFrame
    notes: list[str] = field(default_factory=list)


def collect(records: Records) -> Collected:
    """Test rows of all finished cells, and the baselines on the same rows.

    Raises:
        OsteofusionError: no cell is finished, or cells have seen different data.
    """
    if not records.finished:
        raise OsteofusionError(
            f"No cell is done, so there is nothing to evaluate; see {records.out / 'cells'}."
        )
    _refuse_different_data(records)
    tables, training = [], []
    with_baselines: set[tuple[str, str, int, int]] = set()
    for cell in records.finished:
        folder = records.folder(cell)
        own = _rows(folder / "predictions.csv", cell)
        tables.append(_side(own, "test"))
        training.append(_side(own, "train"))
        key = (cell.variant, cell.part, cell.repeat, cell.fold)
        if key not in with_baselines:
            with_baselines.add(key)
            tables.append(_side(_rows(folder / "baselines.csv", cell), "test"))
    predictions = pd.concat(tables, ignore_index=True)
    return Collected(predictions, pd.concat(training, ignore_index=True), _notes(records))


def comparable(records: Records, predictions: pd.DataFrame) -> pd.DataFrame:
    """The rows of the folds that every arm and variant has, so that differences are paired."""
    folds = _common(records.cells, records.finished)
    keys = pd.MultiIndex.from_frame(predictions[["repeat", "fold"]])
    return predictions[keys.isin(folds)]


def _common(cells: Sequence[Cell], finished: Sequence[Cell]) -> list[tuple[int, int]]:
    done = {cell.name for cell in finished}
    open_folds = {(cell.repeat, cell.fold) for cell in cells if cell.name not in done}
    return sorted({(cell.repeat, cell.fold) for cell in cells} - open_folds)


def _notes(records: Records) -> list[str]:
    folds = {(cell.repeat, cell.fold) for cell in records.cells}
    common = _common(records.cells, records.finished)
    if len(common) == len(folds):
        return []
    return [
        f"{len(records.open)} of {len(records.cells)} cells are missing, so all figures are over "
        f"the {len(common)} of {len(folds)} test folds that every arm has"
    ]


def _side(table: pd.DataFrame, side: str) -> pd.DataFrame:
    return table[table["split"] == side]


def _rows(path: Path, cell: Cell) -> pd.DataFrame:
    # Text stays as it is written: a subject may be called 007 or NA.
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    numbers = {name: float for name in table.columns if name.startswith(("p_", "raw_"))} | _NUMBERS
    table = table.astype(numbers)
    table.insert(0, "variant", cell.variant)
    return table


def _refuse_different_data(records: Records) -> None:
    seen: dict[str, Cell] = {}
    for cell in records.finished:
        surroundings: dict[str, Any] = json.loads(
            (records.folder(cell) / "environment.json").read_text(encoding="utf-8")
        )
        seen.setdefault(surroundings["data"]["sha256"], cell)
    if len(seen) > 1:
        first, second = list(seen.values())[:2]
        raise OsteofusionError(
            f"The cells {first.name} and {second.name} of {records.out} have seen different data: "
            "the cohort has changed in between; choose another --out."
        )
