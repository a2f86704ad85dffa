"""Rows of a cohort with why the model answers what it answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from osteofusion.explain.attribution import encode_rows, explain_rows
from osteofusion.explain.saliency import saliency_maps
from osteofusion.models.classifier import FusionClassifier
from osteofusion.progress import shown
from osteofusion.serving.prediction import Explanation
from osteofusion.training.checkpoints import find_checkpoint, load_checkpoint
from osteofusion.training.datamodule import Batch, RadiographDataModule
from osteofusion.training.module import FusionModule


@dataclass(frozen=True)
class ExplainedRow:
    """A row with why the model answers what it answers.

    Attributes:
        cells: Its row of the cohort.
        risk: Of low BMD, as the model says it, before any calibration.
        explanation: Attributions, modalities and maps.
    """

    cells: Mapping[str, Any]
    risk: float
    explanation: Explanation


def load_run(text: str) -> tuple[FusionClassifier, RadiographDataModule]:
    """The trained model of a run folder or a checkpoint, and its data.

    Raises:
        ConfigError: It is neither.
    """
    path = find_checkpoint(text, Path(), "")
    data = RadiographDataModule.from_checkpoint(load_checkpoint(path), num_workers=0)
    module = FusionModule.load_from_checkpoint(path, map_location="cpu", weights_only=True)
    return module.model.eval(), data


def explain_cohort(
    model: FusionClassifier,
    data: RadiographDataModule,
    chosen: pd.DataFrame,
    methods: Sequence[str],
) -> tuple[list[ExplainedRow], list[str]]:
    """Explain rows of a cohort, and say how coarse their maps are, and how many are empty.

    Args:
        model: The model.
        data: Its data.
        chosen: The rows.
        methods: Kinds of saliency map.
    """
    batches = list(data.loader(chosen))
    encoded = encode_rows(model, batches)
    maps: dict[str, NDArray[np.float32]] = {}
    if model.image_encoder is not None:
        for method in methods:
            what = f"Mapping saliency ({method})"
            maps[method] = maps_of(model, shown(batches, len(batches), what, progress=True), method)
    rows, empty = [], dict.fromkeys(maps, 0)
    every = zip(
        chosen.to_dict("records"),
        expit(encoded.log_odds(model)).tolist(),
        explain_rows(model, encoded),
        strict=True,
    )
    for i, (cells, risk, explanation) in enumerate(every):
        own = {method: found[i] for method, found in maps.items() if cells["image"]}
        for method, found in own.items():
            empty[method] += int(found.max() == 0)
        named = {str(column): cell for column, cell in cells.items()}
        rows.append(ExplainedRow(named, risk, replace(explanation, saliency=own)))
    films = sum(bool(row.cells["image"]) for row in rows)
    notes = [
        f"Maps of {method} have {found.shape[1]} x {found.shape[2]} cells; training at a larger "
        "data.image_size makes them finer."
        for method, found in maps.items()
    ]
    notes += [
        f"{count} of {films} {method} maps are empty: nothing there speaks for low BMD."
        for method, count in empty.items()
        if count
    ]
    if films < len(rows):
        notes.append(f"{len(rows) - films} of {len(rows)} rows have no radiograph, so no map.")
    return rows, notes


def maps_of(model: FusionClassifier, batches: Iterable[Batch], method: str) -> NDArray[np.float32]:
    """Maps (n, h, w) of all rows of some batches."""
    return np.concatenate(
        [
            saliency_maps(model, b["image"] / 255.0, b["clinical"], b["present"], method)
            for b in batches
        ]
    )
