"""A trained classifier as ONNX graphs that answer, and explain, without torch."""

from __future__ import annotations

import copy
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn
from torch._dynamo.exc import UserError
from torch.export import ExportedProgram

from osteofusion.errors import OsteofusionError
from osteofusion.evaluation.calibration import SMALLEST, Calibration
from osteofusion.files import atomic_path
from osteofusion.models.classifier import FusionClassifier
from osteofusion.models.fusion import CLINICAL, IMAGE
from osteofusion.models.image import encode_present
from osteofusion.serving.saliency_graph import Saliency

OPSET = 20
TOLERANCE = 1e-4  # by which ONNX Runtime and torch may differ
_NOISY = ("torch.onnx", "torch.export", "torch.fx", "onnxscript", "onnx_ir")


@dataclass(frozen=True)
class Graphs:
    """What was exported.

    Attributes:
        files: Names of the files.
        saliency_note: Why there is no ``saliency.onnx``; None where there is one, and for the
            tabular arm.
    """

    files: list[str]
    saliency_note: str | None = None


def export_graphs(
    model: FusionClassifier, calibration: Calibration, image_size: int, folder: Path
) -> Graphs:
    """Write ``model.onnx``, ``fusion.onnx`` (fused arm) and ``saliency.onnx`` (where possible).

    Each is one file with its weights inside, and the same bytes whenever the model is the same:

    - ``model.onnx``: ``image`` (n, 1, S, S) float32 in [0, 1], ``clinical`` (n, F) float64, NaN
      where missing, ``present`` (n, 2) bool -> ``probabilities`` (n, C) float64, calibrated, and
      ``image_features`` float32, (n, D), or the map (n, K, h, w) where the fusion reads one.
    - ``fusion.onnx``: ``image_features``, ``clinical``, ``present`` -> ``probabilities``.
    - ``saliency.onnx``: ``image``, ``clinical``, ``present`` of one patient -> ``gradcam`` and
      ``hirescam``, (h, w) float32 in [0, 1], as `osteofusion.explain.saliency.saliency_maps`.

    An input that the arm does not read is left out; ``present`` is always there. Before a file is
    kept, ONNX Runtime is held to torch on random patients, some with a modality absent.

    Args:
        model: The classifier; it is exported in evaluation mode and not changed.
        calibration: Becomes the last layer.
        image_size: Side S of the square, px; the tabular arm has no use for it.
        folder: Where to write; made when absent.

    Raises:
        EvaluationError: `calibration` is of another number of classes.
        OsteofusionError: The model cannot be exported, or its graph differs from torch by more
            than 1e-4.
    """
    calibration.apply(np.full((1, model.num_classes), 1 / model.num_classes))
    # Trained with its channels last, it would bring operations that ONNX does not have.
    model = copy.deepcopy(model).eval().to(memory_format=torch.contiguous_format)
    try:
        with _quiet():
            return _export_all(model, calibration, image_size, folder)
    except (OsteofusionError, OSError):
        raise
    except Exception as error:  # the errors of torch's exporter share no base
        raise OsteofusionError(
            f"torch cannot export this model to ONNX ({_first_line(error)}); use another backbone "
            "or another version of torch."
        ) from error


class Answer(nn.Module):
    """Calibrated probabilities (n, C) float64 and, where there is an encoder, image features.

    Args:
        model: The classifier.
        calibration: Of its probabilities.
        inputs: Names of the inputs, in the order of the call. ``image_features`` in the place of
            ``image`` are taken as given, and only probabilities are returned.
    """

    def __init__(
        self, model: FusionClassifier, calibration: Calibration, inputs: Sequence[str]
    ) -> None:
        super().__init__()
        self.model = model
        self.inputs = tuple(inputs)
        identity = set(calibration.slope) == {1.0} and not any(calibration.intercept)
        self.scaling = None if identity else (calibration.slope, calibration.intercept)
        self.outputs = ("probabilities", "image_features")[: 1 + ("image" in inputs)]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return one tensor for each of `outputs`."""
        given = dict(zip(self.inputs, inputs, strict=True))
        if "image" not in given:
            return (self._calibrated(self.model.outputs(**given).logits),)
        assert self.model.image_encoder is not None
        features = encode_present(
            self.model.image_encoder,
            given.pop("image"),
            given["present"][:, IMAGE],
            as_map=self.model.fusion.image_input == "map",
        )
        logits = self.model.outputs(image_features=features, **given).logits
        return self._calibrated(logits), features

    def _calibrated(self, logits: Tensor) -> Tensor:
        raw = self.model.probabilities(logits).double()
        if self.scaling is None:
            return raw
        logs = raw.clamp(SMALLEST, 1 - SMALLEST).log()
        features = logs[:, 1:] - logs[:, :1] if logs.shape[1] == 2 else logs
        slope, intercept = (features.new_tensor(each) for each in self.scaling)
        scores = features * slope + intercept
        if scores.shape[1] == 1:  # log-odds against a class whose score is 0
            scores = torch.cat([torch.zeros_like(scores), scores], dim=1)
        return scores.softmax(dim=1)


def _export_all(
    model: FusionClassifier, calibration: Calibration, image_size: int, folder: Path
) -> Graphs:
    patients = _patients(model, image_size)
    answer = Answer(model, calibration, list(patients))
    _export(answer, answer, patients, folder / "model.onnx")
    if model.arm == "tabular":
        return Graphs(["model.onnx"])
    files = ["model.onnx"]
    if model.arm == "fused":
        with torch.no_grad():
            features = answer(*patients.values())[1]
        known = {"image_features": features, **{k: patients[k] for k in ("clinical", "present")}}
        fusion = Answer(model, calibration, list(known))
        _export(fusion, fusion, known, folder / "fusion.onnx")
        files.append("fusion.onnx")
    try:
        saliency = Saliency(model, list(patients))
        traced = saliency.trace(*(values[:1] for values in patients.values()))
        _export(traced, saliency, patients, folder / "saliency.onnx", one_by_one=True)
    except OSError:
        raise
    except Exception as error:  # the errors of torch's tracer and exporter share no base
        return Graphs(files, f"the gradient of this model cannot be exported: {_first_line(error)}")
    return Graphs([*files, "saliency.onnx"])


def _patients(model: FusionClassifier, image_size: int) -> dict[str, Tensor]:
    """Three random patients: the first complete, then one without image, one without values."""
    random = torch.Generator().manual_seed(0)
    inputs: dict[str, Tensor] = {}
    if model.image_encoder is not None:
        inputs["image"] = torch.rand(3, 1, image_size, image_size, generator=random)
    if model.preprocessing is not None:
        values = model.preprocessing.fill.repeat(3, 1)
        columns, scale = model.preprocessing.numeric_columns, model.preprocessing.scale
        noise = torch.randn(3, len(columns), generator=random, dtype=torch.float64)
        values[:, columns] += noise * scale
        values[1, ::2] = torch.nan
        inputs["clinical"] = values
    inputs["present"] = torch.ones(3, 2, dtype=torch.bool)
    inputs["present"][1, IMAGE] = inputs["present"][2, CLINICAL] = False
    return inputs


def _export(
    module: nn.Module,
    reference: Answer | Saliency,
    inputs: Mapping[str, Tensor],
    path: Path,
    *,
    one_by_one: bool = False,
) -> None:
    """Write `module` to `path` once its graph has answered as `reference` does."""
    rows = 1 if one_by_one else None
    program = torch.onnx.export(
        _traced(module, tuple(values[:rows] for values in inputs.values()), fixed=one_by_one),
        dynamo=True,
        input_names=list(inputs),
        output_names=list(reference.outputs),
        opset_version=OPSET,
        verbose=False,
    )
    assert program is not None
    proto = program.model_proto
    _strip(proto)
    graph = proto.SerializeToString(deterministic=True)
    session = _session(graph)
    for batch in [slice(0, 1), slice(1, 2), slice(2, 3), *([] if one_by_one else [slice(0, 3)])]:
        given = {name: values[batch] for name, values in inputs.items()}
        found = session.run(None, {name: values.numpy() for name, values in given.items()})
        with torch.set_grad_enabled(one_by_one):
            expected = reference(*given.values())
        for name, ours, theirs in zip(reference.outputs, found, expected, strict=True):
            _compare(path.name, name, ours, theirs.detach().numpy())
    with atomic_path(path) as temporary:
        temporary.write_bytes(graph)


def _traced(module: nn.Module, example: tuple[Tensor, ...], *, fixed: bool) -> ExportedProgram:
    rows = torch.export.Dim("n", min=1)
    axes = None if fixed else (tuple({0: rows} for _ in example),)
    module.eval()
    try:
        return torch.export.export(module, example, dynamic_shapes=axes, strict=False)
    except (UserError, ValueError):
        # FT-Transformer asks for the len() of a tensor, which is a plain number but to Dynamo.
        return torch.export.export(module, example, dynamic_shapes=axes, strict=True)


def _strip(message: Any) -> None:
    """Remove notes of the exporter: stack traces with paths, a listing of all weights."""
    for field, value in message.ListFields():
        if field.name in ("metadata_props", "doc_string"):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for each in [value] if hasattr(value, "ListFields") else value:
                _strip(each)


def _session(graph: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors alone
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _compare(file: str, name: str, found: np.ndarray, expected: np.ndarray) -> None:
    same = found.shape == expected.shape and found.dtype == expected.dtype
    # Features have no fixed scale, so they may differ by 1e-4 of what they are.
    if not same or not np.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE):
        away = f"by {np.abs(found - expected).max():.2g}" if same else "in shape or type"
        raise OsteofusionError(
            f"ONNX Runtime and torch differ {away} in {name} of {file}, so it is not kept; "
            "use other versions of torch and onnxscript."
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep from the user what torch's exporter tells its developers."""
    loggers = [logging.getLogger(name) for name in _NOISY]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _first_line(error: Exception) -> str:
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()  # torch colours its messages
    return re.split(r"\.\s|\n", plain or type(error).__name__)[0]
