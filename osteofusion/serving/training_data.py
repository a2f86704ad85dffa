"""The data that a model was trained with, met once more while it is exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pandas as pd
from numpy.typing import NDArray

from osteofusion.errors import OsteofusionError
from osteofusion.evaluation.calibration import Calibration
from osteofusion.progress import shown
from osteofusion.serving.bundle import EMBEDDING, MODEL
from osteofusion.serving.choosing import reached
from osteofusion.serving.description import EmbeddingDescription
from osteofusion.serving.embedding import Embedding, fit_embedding
from osteofusion.serving.errors import BundleError
from osteofusion.serving.radiographs import as_input
from osteofusion.serving.source import Run
from osteofusion.training.datamodule import RadiographDataModule

_CHECKED = 16  # rows whose predictions are made again, to hold predictions.csv to the checkpoint
_AGREEMENT = 0.01  # other devices and frozen features round otherwise; other weights differ more


def training_data(found: Run) -> tuple[RadiographDataModule | None, str]:
    """The data that the model was trained with, decoded; or why they cannot be read."""
    try:
        data = RadiographDataModule.from_checkpoint(found.content)
        if data.cache is not None:
            data.prepare_data()
        data.rows  # noqa: B018 (read now, so that it can be refused)
    except OsteofusionError as error:
        return None, str(error)
    return data, ""


def hold_to_predictions(
    found: Run, data: RadiographDataModule, calibration: Calibration, graph: Path
) -> None:
    """Refuse predictions that the exported model does not make.

    Raises:
        BundleError: They are of other rows or of another checkpoint.
    """
    raw = found.predictions[[f"raw_{name}" for name in found.classes]].to_numpy()
    checked = np.flatnonzero(found.side("val", "test"))[:_CHECKED]
    keys = found.predictions.loc[checked, ["subject_id", "image"]]
    rows = keys.merge(data.rows, on=["subject_id", "image"], how="inner")
    if len(rows) != len(checked):
        raise BundleError(
            f"{found.folder} has predictions of rows that the data of {found.path} lack; name the "
            "folder of the run that scored this checkpoint with --run."
        )
    made = _answers(data, rows, graph)[0]
    wanted = calibration.apply(raw[checked] / raw[checked].sum(axis=1, keepdims=True))
    worst = float(np.abs(made - wanted).max())
    if worst > _AGREEMENT:
        raise BundleError(
            f"The predictions in {found.folder} are not of {found.path} (they differ by "
            f"{worst:.2f}); score the checkpoint with `osteofusion test` and name the folder it "
            "makes with --run."
        )


def _answers(
    data: RadiographDataModule, rows: pd.DataFrame, graph: Path
) -> tuple[NDArray[np.float64], NDArray[np.float32] | None]:
    """Probabilities and image features of cohort rows, one at a time."""
    session = ort.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    taken = {put.name for put in session.get_inputs()}
    names = [put.name for put in session.get_outputs()]
    clinical = data.schema.encode(rows)
    files = list(zip(data.cohort.files(rows), rows["image_sha256"], strict=True))
    answers: dict[str, list[NDArray[Any]]] = {name: [] for name in names}
    work = zip(files, clinical, strict=True)
    for (path, digest), values in shown(work, len(files), "Encoding radiographs", True):
        has_image = data.cache is not None and bool(digest)
        inputs: dict[str, NDArray[Any]] = {
            "clinical": values[None],
            "present": np.array([[has_image, not np.isnan(values).all()]]),
        }
        if data.cache is not None:
            side = data.cache.preprocessing.size
            square = data.cache.get(path, digest) if has_image else np.zeros((side,) * 2, np.uint8)
            inputs["image"] = as_input(square)[None]
        feed = {name: value for name, value in inputs.items() if name in taken}
        for name, answer in zip(names, session.run(names, feed), strict=True):
            answers[name].append(answer)
    found = {name: np.concatenate(column) for name, column in answers.items()}
    return found["probabilities"], found.get("image_features")


def embed(
    found: Run, data: RadiographDataModule | None, folder: Path
) -> tuple[EmbeddingDescription | None, str | None]:
    """Write embedding.npz from the training radiographs, or say why there is none."""
    if found.arm == "tabular":
        return None, "the model reads no radiograph"
    off = "radiographs unlike those of training are not flagged"
    if data is None:
        return None, f"{off}: the training radiographs could not be read"
    rows = data.rows[data.rows["image_sha256"] != ""]
    _, features = _answers(data, rows, folder / MODEL)
    assert features is not None
    train = (rows["split"] == "train").to_numpy()
    try:
        fit_embedding(features[train]).save(folder / EMBEDDING)
    except ValueError as error:
        return None, f"{off}: {error}"
    embedding = Embedding.load(folder / EMBEDDING)  # as a bundle's reader will have it
    groups = pd.factorize(rows["group"])[0].astype(np.int64)
    held = reached(~train, embedding.unlike(features), groups)
    n = int(train.sum())
    return EmbeddingDescription(threshold=embedding.threshold, n=n, held_back=held), None
