"""What the training rows held of each clinical value, for the form and for drift checks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from osteofusion.data.clinical import YES_NO, ClinicalSchema, Feature
from osteofusion.data.manifest import Column, Manifest
from osteofusion.serving.description import FeatureDescription, TrainingValues

_LABELS = {
    "bmi": "Body mass index",
    "female": "Female",
    "menopause_age": "Age at menopause",
    "pregnancies": "Number of pregnancies",
    "fracture_history": "Earlier fracture",
    "family_history": "Family history of osteoporosis",
    "estrogen": "Estrogen use",
    "walking_distance": "Longest walk",
}
_HEADER_FACTS = {"age": ("numeric", "years"), "female": ("binary", None)}


def describe_features(
    schema: ClinicalSchema, train: pd.DataFrame, manifest: Manifest | None
) -> list[FeatureDescription]:
    """The features of a model as a form and a drift check need them.

    Args:
        schema: The model's.
        train: Training rows, one column a feature in canonical values.
        manifest: Of the data; None where it can no longer be read, and spellings are not known.
    """
    columns = manifest.columns if manifest is not None else {}
    return [
        _describe(feature, train, columns.get(feature.name), schema.names)
        for feature in schema.features
    ]


def _describe(
    feature: Feature, train: pd.DataFrame, column: Column | None, names: Sequence[str]
) -> FeatureDescription:
    at_most = column.at_most if column is not None and column.at_most in names else None
    only_if = {} if column is None else {k: v for k, v in column.only_if.items() if k in names}
    return FeatureDescription(
        name=feature.name,
        label=_LABELS.get(feature.name, feature.name.replace("_", " ").capitalize()),
        kind=feature.kind,  # type: ignore[arg-type]
        unit=feature.unit,
        range=feature.range,
        vocabulary=list(feature.vocabulary),
        spellings=_spellings(column),
        absent=list(column.absent) if column is not None and feature.kind == "presence" else [],
        at_most=at_most,
        only_if=only_if,
        dicom=_header_fact(feature, column),  # type: ignore[arg-type]
        train=_held(feature, train.get(feature.name), len(train)),
    )


def _spellings(column: Column | None) -> dict[str, str | float]:
    """The manifest's words; codes such as 1 and 2 are of that file, and mean a number elsewhere."""
    if column is None:
        return {}
    return {
        word: value
        for word, value in column.values.items()
        if word not in YES_NO and not word.replace(".", "", 1).isdigit()
    }


def _header_fact(feature: Feature, column: Column | None) -> str | None:
    if column is not None and column.dicom is not None:
        return column.dicom
    known = _HEADER_FACTS.get(feature.name)
    return feature.name if known == (feature.kind, feature.unit) else None


def _held(feature: Feature, cells: pd.Series | None, rows: int) -> TrainingValues:
    cells = pd.Series([], dtype=object) if cells is None else cells.dropna()
    missing = rows - len(cells)
    if feature.kind == "numeric":
        if cells.empty:
            return TrainingValues(n=0, missing=missing)
        low, median, high = np.percentile(cells.to_numpy(dtype=np.float64), [1, 50, 99]).tolist()
        return TrainingValues(n=len(cells), missing=missing, low=low, median=median, high=high)
    if feature.kind != "categorical":
        cells = cells.map({0.0: "no", 1.0: "yes"})
    counts = {str(word): int(n) for word, n in cells.value_counts().sort_index().items()}
    return TrainingValues(n=len(cells), missing=missing, counts=counts)
