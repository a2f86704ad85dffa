"""From the bytes of a radiograph and clinical values to an answer; no torch, no HTTP."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from osteofusion.data.radiograph import RadiographPreprocessing
from osteofusion.serving.bundle import EMBEDDING, FUSION, MODEL, SALIENCY, Bundle
from osteofusion.serving.embedding import Embedding
from osteofusion.serving.errors import BundleError, InputError
from osteofusion.serving.prediction import (
    Attribution,
    Band,
    Call,
    ClinicalValue,
    Explanation,
    Prediction,
    QualityFlag,
)
from osteofusion.serving.radiographs import read_image, region_flags
from osteofusion.serving.values import read_values

_IMAGE, _CLINICAL = 0, 1  # columns of `present`
_TINY = 1e-9  # risks of 0 and 1 have no finite log-odds


@dataclass(frozen=True)
class Patient:
    """What was given of one patient, as the model reads it.

    Attributes:
        image: (1, S, S) float32 in [0, 1]; None without a radiograph.
        radiograph: (H, W) uint8 in its original geometry; None without one.
        spacing: Its millimetres a pixel where the file says them.
        clinical: (F,) float64 in canonical units, NaN for missing.
        present: (2,) bool, image and clinical.
        values: The clinical values with where they come from.
        flags: What is odd about the input, before anything is predicted.
    """

    image: NDArray[np.float32] | None
    radiograph: NDArray[np.uint8] | None
    spacing: float | None
    clinical: NDArray[np.float64]
    present: NDArray[np.bool_]
    values: list[ClinicalValue]
    flags: list[QualityFlag]


class Predictor:
    """Answers for one bundle; threads may share it, and no lock is held while a graph runs.

    Args:
        bundle: The bundle.
        threads: Threads that one call may use inside a graph; default: half the processors, so
            that a second call finds room.

    Raises:
        BundleError: A graph cannot be read.
    """

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        self.bundle = bundle
        self.description = bundle.description
        self._identity = bundle.description.identity
        self.schema = bundle.description.clinical_schema
        self.threads = threads or max(1, (os.cpu_count() or 1) // 2)
        square = bundle.description.preprocessing
        self.preprocessing = (
            RadiographPreprocessing(square.size, square.clahe, square.pixel_spacing)
            if square is not None
            else None
        )
        self._model = self._session(MODEL)
        self._fusion = self._session(FUSION) or self._model
        self._saliency = self._session(SALIENCY)
        embedding = bundle.path(EMBEDDING)
        self._embedding = Embedding.load(embedding) if embedding is not None else None

    def _session(self, name: str) -> ort.InferenceSession | None:
        path = self.bundle.path(name)
        if path is None:
            return None
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        # Threads that spin for long take the processors of other calls; those that sleep at once
        # make one call slower (tests/benchmarks/serving.py).
        options.add_session_config_entry("session.intra_op.spin_duration_us", "200")
        options.log_severity_level = 3
        try:
            return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its own exceptions share no base but this
            raise BundleError(
                f"{path} cannot be read as an ONNX graph by onnxruntime {ort.__version__}; export "
                "the model again, or install the version that bundle.json names."
            ) from error

    def read(
        self,
        image: bytes | None,
        values: Mapping[str, object],
        *,
        image_name: str = "image",
    ) -> Patient:
        """Decode, preprocess and parse what was given of a patient.

        Args:
            image: A whole file: PNG, JPEG, TIFF or DICOM, whose header gives age and sex where
                `values` does not.
            values: Clinical value by canonical name; see `read_values`.
            image_name: The file's name; nothing but a DICOM suffix is looked at.

        Raises:
            InputError: Something cannot be read, or there is nothing that the model reads.
        """
        d = self.description
        if image is not None and self.preprocessing is None:
            raise InputError(
                "image",
                "This model reads clinical values alone; leave the image out.",
                "unused_modality",
            )
        read = facts = None
        flags: list[QualityFlag] = []
        if image is not None and self.preprocessing is not None:
            read = read_image(image, image_name, self.preprocessing)
            facts = read.facts
            flags += region_flags(facts, d.regions)
        found = read_values(d.features, values, facts)
        clinical = self._encode(found.values)
        present = np.array([read is not None, not np.isnan(clinical).all()])
        self._require_something(present)
        return Patient(
            image=read.image if read is not None else None,
            radiograph=read.radiograph if read is not None else None,
            spacing=read.spacing if read is not None else None,
            clinical=clinical,
            present=present,
            values=found.values,
            flags=flags + found.flags,
        )

    def _encode(self, values: Sequence[ClinicalValue]) -> NDArray[np.float64]:
        row = np.full(len(values), np.nan)
        for i, (value, feature) in enumerate(zip(values, self.schema.features, strict=True)):
            if value.value is not None:
                row[i] = feature.code(value.value)
        return row

    def _require_something(self, present: NDArray[np.bool_]) -> None:
        if self.description.arm == "image" and not present[_IMAGE]:
            raise InputError("image", "This model needs a radiograph; give one.", "no_modality")
        if self.description.arm == "tabular" and not present[_CLINICAL]:
            raise InputError(
                "values", "This model needs at least one clinical value; give one.", "no_modality"
            )
        if not present.any():
            raise InputError("image", "Give a radiograph, clinical values or both.", "no_modality")

    def predict(self, patient: Patient) -> Prediction:
        """The answer for one patient."""
        return self.predict_many([patient])[0]

    def predict_many(self, patients: Sequence[Patient]) -> list[Prediction]:
        """The answers for several patients in one batch, in their order."""
        if not patients:
            return []
        probabilities, features = self._run(patients)
        unlike = np.zeros(len(patients), dtype=bool)
        if self._embedding is not None and features is not None:
            unlike = self._embedding.unlike(features) & [bool(p.present[_IMAGE]) for p in patients]
        return [
            self._answer(patient, row, bool(far))
            for patient, row, far in zip(patients, probabilities, unlike, strict=True)
        ]

    def explain(self, patient: Patient) -> Explanation:
        """Why the answer is what it is; see `Explanation`."""
        attributions, modalities = self._effects(patient)
        return Explanation(
            attributions=attributions,
            modalities=modalities,
            saliency=self._maps(patient),
            radiograph=patient.radiograph,
            spacing=patient.spacing,
        )

    def _effects(self, patient: Patient) -> tuple[list[Attribution], dict[str, float]]:
        """How far each clinical value and each modality moved the calibrated log-odds."""
        given = [i for i, value in enumerate(patient.clinical) if not np.isnan(value)]
        if not given:
            return [], {}
        _, features = self._run([patient])
        clinical = np.repeat(patient.clinical[None], 1 + len(given) + 2, axis=0)
        for row, column in enumerate(given, start=1):
            clinical[row, column] = self.description.clinical_baseline[column]
        present = np.repeat(patient.present[None], len(clinical), axis=0)
        both = bool(patient.present.all())
        withheld = (("image", -2, _IMAGE), ("clinical", -1, _CLINICAL))
        if both:
            for _, row, column in withheld:
                present[row, column] = False
        inputs = {"clinical": clinical, "present": present}
        if features is not None:
            inputs["image_features"] = np.repeat(features, len(clinical), axis=0)
        risks = self._fused(inputs)
        scores = np.log(risks / (1 - risks))
        names = [feature.name for feature in self.description.features]
        attributions = [
            Attribution(names[column], float(scores[0] - scores[row]), float(risks[row]))
            for row, column in enumerate(given, start=1)
        ]
        attributions.sort(key=lambda item: -abs(item.log_odds))
        modalities = {name: float(scores[0] - scores[row]) for name, row, _ in withheld}
        return attributions, modalities if both else {}

    def _run(
        self, patients: Sequence[Patient]
    ) -> tuple[NDArray[np.float64], NDArray[np.float32] | None]:
        """Probabilities (n, C) and, where the model reads radiographs, their features (n, ...)."""
        assert self._model is not None
        inputs = self._inputs(patients)
        names = [output.name for output in self._model.get_outputs()]
        found = dict(zip(names, self._model.run(names, inputs), strict=True))
        return found["probabilities"], found.get("image_features")

    def _inputs(self, patients: Sequence[Patient]) -> dict[str, NDArray[np.generic]]:
        """What the graphs take, of the arm's modalities."""
        inputs: dict[str, NDArray[np.generic]] = {
            "present": np.stack([patient.present for patient in patients])
        }
        if self.preprocessing is not None:
            side = self.preprocessing.size
            blank = np.zeros((1, side, side), dtype=np.float32)
            images = [p.image if p.image is not None else blank for p in patients]
            inputs["image"] = np.stack(images)
        if self.description.features:
            inputs["clinical"] = np.stack([patient.clinical for patient in patients])
        return self._taken(self._model, inputs)

    def _taken(
        self, session: ort.InferenceSession | None, inputs: dict[str, NDArray[np.generic]]
    ) -> dict[str, NDArray[np.generic]]:
        assert session is not None
        taken = {put.name for put in session.get_inputs()}
        return {name: value for name, value in inputs.items() if name in taken}

    def _fused(self, inputs: dict[str, NDArray[np.generic]]) -> NDArray[np.float64]:
        """Risk (n,) float64, short of 0 and 1, from what the encoder made of the radiograph."""
        assert self._fusion is not None
        (found,) = self._fusion.run(["probabilities"], self._taken(self._fusion, inputs))
        risks: NDArray[np.float64] = np.asarray(found, dtype=np.float64)[:, 1:].sum(axis=1)
        return risks.clip(_TINY, 1 - _TINY)

    def _maps(self, patient: Patient) -> dict[str, NDArray[np.float32]]:
        if self._saliency is None or patient.image is None:
            return {}
        names = [output.name for output in self._saliency.get_outputs()]
        inputs = self._taken(self._saliency, self._inputs([patient]))
        return dict(zip(names, self._saliency.run(names, inputs), strict=True))

    def _answer(self, patient: Patient, row: NDArray[np.float64], unlike: bool) -> Prediction:
        d = self.description
        risk = float(row[1:].sum())
        flags = list(patient.flags)
        if unlike:
            flags.append(
                QualityFlag(
                    "unlike_training_images",
                    "The radiograph is unlike those the model was trained on, so the answer may "
                    "mean nothing; check the body part, view and quality.",
                    "image",
                )
            )
        return Prediction(
            label=d.classes[int(row.argmax())],
            probabilities=dict(zip(d.classes, row.tolist(), strict=True)),
            risk=risk,
            band=self._band(risk),
            calls=[
                Call(point.name, point.threshold, risk >= point.threshold)
                for point in d.operating_points
            ],
            image_present=bool(patient.present[_IMAGE]),
            clinical_present=bool(patient.present[_CLINICAL]),
            values=patient.values,
            flags=flags,
            model=self._identity,
        )

    def _band(self, risk: float) -> Band | None:
        triage = self.description.triage
        if triage is None:
            return None
        if risk < triage.rule_out:
            return "rule_out"
        return "rule_in" if risk >= triage.rule_in else "dxa"


def load_predictor(folder: str | Path, threads: int | None = None) -> Predictor:
    """The predictor of a bundle's folder; see `Bundle.load` and `Predictor`."""
    return Predictor(Bundle.load(folder), threads)
