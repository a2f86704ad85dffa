"""The audits of a study's result; in a worker, since image features need torch."""

from __future__ import annotations

from typing import Any

import pandas as pd

from osteofusion.audit.results.assess import assess_results
from osteofusion.data.clinical import ClinicalSchema, fit_preprocessing, select_features
from osteofusion.data.cohort import Cohort
from osteofusion.data.radiograph import RadiographPreprocessing
from osteofusion.errors import OsteofusionError
from osteofusion.evaluation.metrics import Floats
from osteofusion.training.datamodule import RadiographDataModule
from osteofusion.training.features import frozen_features


def audit(settings: dict[str, Any], predictions: pd.DataFrame) -> tuple[dict[str, Any], str]:
    """Audit one variant's predictions.

    Args:
        settings: Of one of its cells.
        predictions: Its test rows.

    Returns:
        What goes to `audits.json`, and the sentence that says why nothing does; empty where it
        does.
    """
    plain = {"augmentation": None, "augmentation_views": None}
    own = {**settings["data"], **plain, "arm": settings["model"]["arm"]}
    try:
        cohort = RadiographDataModule(**own).cohort
        found = assess_results(
            cohort,
            own["task"],
            _image_features(cohort, settings),
            _design(cohort, own["features"]),
            predictions,
        )
    except OsteofusionError as error:
        return {}, str(error)
    return found, ""


def _image_features(cohort: Cohort, settings: dict[str, Any]) -> Floats | None:
    """Of the study's backbone with its published weights; one without them has seen nothing."""
    data, model = settings["data"], settings["model"]
    if not model["pretrained"] or (cohort.table["image"] == "").any():
        return None
    files = list(zip(cohort.files(cohort.table), cohort.table["image_sha256"], strict=True))
    preprocessing = RadiographPreprocessing(
        data["image_size"], data["clahe"], data["pixel_spacing"]
    )
    features = frozen_features(files, model["backbone"], model["pretrained"], preprocessing)
    return features.astype("float64")


def _design(cohort: Cohort, features: list[str] | None) -> Floats | None:
    """Clinical columns, imputed and scaled over all rows, without the label."""
    names = [
        name
        for name in select_features(cohort.manifest, features)
        if name in cohort.table and cohort.table[name].notna().any()
    ]
    if not names:
        return None
    schema = ClinicalSchema.fit(cohort.table, cohort.manifest, names)
    matrix = schema.encode(cohort.table)
    design: Floats = fit_preprocessing(matrix, schema).transform(matrix)
    return design
