"""What requests and answers look like, as OpenAPI describes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from osteofusion.serving.description import (
    Arm,
    BundleDescription,
    FeatureDescription,
    OperatingPointDescription,
    TrainingDescription,
    TriageDescription,
)
from osteofusion.serving.prediction import Attribution, Prediction
from osteofusion.serving.problems import ProblemDetails, described

EVERYWHERE = described(
    s401="The API key is missing or wrong.",
    s403="A page of another site asked.",
    s421="The service is addressed by a name that it does not answer to.",
)
BUSY = described(
    s429="The queue is full; Retry-After says when to try again.",
    s503="The answer took too long.",
)
UPLOAD = described(
    s400="The multipart form or its JSON is malformed.",
    s408="The upload took too long.",
    s413="The upload is too large.",
    s415="The content type is not multipart/form-data.",
    s422="The image or a clinical value cannot be used; `field` names it.",
)
# Lets clients, and tests that read the description, go on from an answer.
FOLLOWED: dict[int | str, dict[str, Any]] = {
    200: {
        "links": {
            name: {"operationId": name, "parameters": {"result_id": "$response.body#/id"}}
            for name in ("get_overlay", "get_explanation", "get_report")
        }
    }
}
RESULT = described(s404="There is no such result, or it has no such part.", s422="See `field`.")


@dataclass(frozen=True)
class Links:
    """Where more about an answer is found, for a few minutes.

    Attributes:
        overlay: Saliency over the radiograph, PNG; None without a radiograph or a map.
        explanation: What moved the answer.
        report: For the patient's record, PDF.
    """

    overlay: str | None
    explanation: str
    report: str


@dataclass(frozen=True)
class Reasons:
    """What moved the answer, in calibrated log-odds of low BMD.

    Attributes:
        attributions: One a clinical value that was given, largest effect first.
        modalities: By ``image`` and ``clinical``, where both were given: what it adds.
    """

    attributions: list[Attribution]
    modalities: dict[str, float]


@dataclass(frozen=True)
class Answer(Prediction):
    """The answer for one patient.

    Attributes:
        id: Name under which it is kept for a few minutes.
        links: What is found under it.
        explanation: With ``explain=true``.
    """

    id: str
    links: Links
    explanation: Reasons | None


@dataclass(frozen=True)
class ServiceSchema:
    """What the model reads and how it decides.

    Attributes:
        model: ``name``, ``version`` and ``sha256`` of the bundle.
        task: ``binary``, ``osteoporosis`` or ``three_class``.
        classes: In order of falling bone density.
        positive: What the risk is of.
        arm: ``fused``, ``image`` or ``tabular``.
        regions: Body regions of its radiographs.
        features: Clinical values with unit, plausible range, words and what training rows held.
        operating_points: Thresholds and what they reached.
        triage: Bands; None where none could be chosen.
        decision_note: Why there are no thresholds or bands.
        cohort_prevalence: Share of positives that the risk is calibrated to.
        intended_use: One paragraph.
        training: Where the model comes from.
        synthetic: Whether anything of its data is synthetic.
        overlay: Whether it can show where it looked.
        max_upload_bytes: Of an image.
        result_seconds: For which an answer is kept at most.
    """

    model: dict[str, str]
    task: str
    classes: list[str]
    positive: str
    arm: Arm
    regions: list[str]
    features: list[FeatureDescription]
    operating_points: list[OperatingPointDescription]
    triage: TriageDescription | None
    decision_note: str | None
    cohort_prevalence: float
    intended_use: str
    training: TrainingDescription
    synthetic: bool
    overlay: bool
    max_upload_bytes: int
    result_seconds: int


@dataclass(frozen=True)
class Alive:
    """That the service answers.

    Attributes:
        status: ``ok`` or ``ready``.
    """

    status: Literal["ok", "ready"]


def file_answer(media_type: str, description: str) -> dict[str, Any]:
    """OpenAPI of an answer that is a file."""
    content = {media_type: {"schema": {"type": "string", "format": "binary"}}}
    return {"description": description, "content": content}


def request_body(description: BundleDescription) -> dict[str, Any]:
    """The multipart form of this bundle, for OpenAPI."""
    image = {
        "type": "string",
        "format": "binary",
        "description": "A radiograph: DICOM, PNG, JPEG or TIFF; one view, one file.",
    }
    values = {
        "type": "object",
        "description": "Clinical values in canonical units, any subset; null where not known.",
        "properties": {feature.name: _property(feature) for feature in description.features},
        "additionalProperties": False,
        "example": _example(description.features),
    }
    parts = {"fused": ("image", "values"), "image": ("image",), "tabular": ("values",)}
    known = {"image": image, "values": values}
    schema = {
        "type": "object",
        "properties": {part: known[part] for part in parts[description.arm]},
        "additionalProperties": False,
    }
    encoding = {"values": {"contentType": "application/json"}}
    if "values" not in parts[description.arm]:
        encoding = {}
    return {
        "required": True,
        "content": {"multipart/form-data": {"schema": schema, "encoding": encoding}},
    }


def _property(feature: FeatureDescription) -> dict[str, Any]:
    """Schema of a clinical value, as leniently as it is read: numbers and yes/no may be text."""
    text = {"type": "string", "maxLength": 100}
    kinds: list[dict[str, Any]]
    if feature.kind == "numeric":
        bounds = zip(("minimum", "maximum"), feature.range or (), strict=False)
        kinds = [{"type": "number", **dict(bounds)}, text]
    elif feature.kind == "categorical":
        kinds = [{**text, "examples": feature.vocabulary}, {"type": ["number", "boolean"]}]
    else:
        kinds = [{"enum": [0, 1, True, False]}, {**text, "examples": ["yes", "no"]}]
    unit = f", {feature.unit}" if feature.unit else ""
    return {"description": f"{feature.label}{unit}", "anyOf": [*kinds, {"type": "null"}]}


def _example(features: list[FeatureDescription]) -> dict[str, object]:
    """The median patient."""
    found: dict[str, object] = {}
    for feature in features:
        counts = feature.train.counts
        typical = feature.train.median if not counts else max(counts, key=lambda w: counts[w])
        if typical is not None:
            found[feature.name] = typical
    return found


def openapi(app: FastAPI, with_key: bool) -> dict[str, Any]:
    """The description of the interface, with problem JSON and the key."""
    if app.openapi_schema is None:
        found = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        parts = found.setdefault("components", {})
        details = ProblemDetails.model_json_schema()
        parts.setdefault("schemas", {})["ProblemDetails"] = details
        if with_key:
            key = {"type": "apiKey", "in": "header", "name": "X-API-Key"}
            parts["securitySchemes"] = {"key": key}
            found["security"] = [{"key": []}]
            for probe in ("/health", "/ready"):
                found["paths"][probe]["get"]["security"] = []
        app.openapi_schema = found
    return app.openapi_schema
