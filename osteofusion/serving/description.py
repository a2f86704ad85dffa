"""`bundle.json`: everything that a bundle says of itself, checked when it is read."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from osteofusion.data.clinical import ClinicalSchema, Feature

FORMAT: Literal[1] = 1
DESCRIPTION_FILE = "bundle.json"
Share = Annotated[float, Field(ge=0, le=1)]
Arm = Literal["fused", "image", "tabular"]


class _Plain(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Reached(_Plain):
    """A share on rows that nothing was chosen on, with Wilson's 95 % interval over split groups.

    Attributes:
        value: The share; None without a row.
        low: Lower end.
        high: Upper end.
        n: Rows.
    """

    value: Share | None
    low: Share | None
    high: Share | None
    n: int


class TrainingValues(_Plain):
    """What the training rows held of a feature; what differs much from it may have drifted.

    Attributes:
        n: Training rows with a value.
        missing: Training rows without one.
        low: 1st percentile, in the canonical unit; None of words and yes/no.
        median: 50th percentile.
        high: 99th percentile.
        counts: Rows of each word, or of ``yes`` and ``no``; empty of numbers.
    """

    n: int
    missing: int
    low: float | None = None
    median: float | None = None
    high: float | None = None
    counts: dict[str, int] = {}


class FeatureDescription(_Plain):
    """A clinical value that the model reads.

    Attributes:
        name: Canonical name: the key of the value in a request.
        label: What to call it in front of a reader.
        kind: ``numeric``, ``binary``, ``categorical`` or ``presence``.
        unit: Canonical unit.
        range: Plausible lowest and highest value in that unit; others are refused.
        vocabulary: Words of a categorical feature that training rows had.
        spellings: Canonical value of further spellings, as the manifest has them.
        absent: Words that mean "none" of a presence.
        at_most: Feature that this one cannot exceed.
        only_if: Values of other features without which this one makes no sense.
        dicom: Fact of a DICOM header that stands in where no value is given.
        train: What the training rows held.
    """

    name: str
    label: str
    kind: Literal["numeric", "binary", "categorical", "presence"]
    unit: str | None = None
    range: tuple[float, float] | None = None
    vocabulary: list[str] = []
    spellings: dict[str, str | float] = {}
    absent: list[str] = []
    at_most: str | None = None
    only_if: dict[str, float] = {}
    dicom: Literal["age", "female", "laterality", "body_part"] | None = None
    train: TrainingValues

    @property
    def unit_words(self) -> str:
        """The unit as a reader sees it, such as kg/m²; empty of counts and what has none."""
        return "" if self.unit in (None, "count") else self.unit.replace("m2", "m²")


class PreprocessingDescription(_Plain):
    """How a radiograph becomes the square that the model sees.

    Attributes:
        size: Side of the square, px.
        clahe: Whether local contrast is equalised.
        pixel_spacing: Millimetres a pixel; None where the radiograph is scaled to the square.
    """

    size: int
    clahe: bool
    pixel_spacing: float | None


class CalibrationDescription(_Plain):
    """The map from the model's probabilities to calibrated ones; it is inside the graphs.

    Attributes:
        slope: As `osteofusion.evaluation.Calibration` has it.
        intercept: Likewise.
        fitted_on: Rows it was fitted on, in words.
        n: Their number.
        note: What a reader should know, such as a slope that was refused.
    """

    slope: list[float]
    intercept: list[float]
    fitted_on: str
    n: int
    note: str | None


class OperatingPointDescription(_Plain):
    """A rule to call low BMD: a calibrated risk at or above the threshold.

    Attributes:
        name: ``fixed_sensitivity``, ``fixed_specificity`` or ``youden``.
        target: What the rule asked for; None if nothing.
        threshold: The risk; above 1 where the rule calls nobody.
        sensitivity: On the test rows.
        specificity: On the test rows.
        chosen_on: Rows it was chosen on, in words, with the share of positives among them.
    """

    name: Literal["fixed_sensitivity", "fixed_specificity", "youden"]
    target: Share | None
    threshold: Annotated[float, Field(ge=0)]
    sensitivity: Reached
    specificity: Reached
    chosen_on: str


class BandReached(_Plain):
    """What a triage band holds of the test rows.

    Attributes:
        of_low: Share of those with low BMD that fall in it.
        of_normal: Share of the others.
    """

    of_low: Reached
    of_normal: Reached


class TriageDescription(_Plain):
    """Bands of the risk: below `rule_out`, at or above `rule_in`, and DXA between them.

    Attributes:
        rule_out: Threshold of the fixed sensitivity.
        rule_in: Threshold of the fixed specificity; where the two cross, one midway serves both.
        chosen_on: Rows they were chosen on, in words, with the share of positives among them.
        reached: ``rule_out``, ``dxa`` and ``rule_in`` on the test rows.
    """

    rule_out: float
    rule_in: float
    chosen_on: str
    reached: dict[str, BandReached]


class EmbeddingDescription(_Plain):
    """When a radiograph counts as unlike those of training.

    Attributes:
        threshold: Distance of its image features above which it does.
        n: Training radiographs.
        held_back: Share of the validation and test radiographs that it flags.
    """

    threshold: float
    n: int
    held_back: Reached


class TrainingDescription(_Plain):
    """Where the model comes from.

    Attributes:
        manifest: Name of each data set.
        citation: Their source.
        synthetic_what: What of the data is synthetic, in words; empty where nothing is.
        class_counts: Radiographs of each class, all sides together.
        rows: Radiographs of each side: ``train``, ``val``, ``test``.
        checkpoint_sha256: Of the checkpoint file.
        initial_weights: Where the first weights came from; None if from nothing or not recorded.
    """

    manifest: list[str]
    citation: str
    synthetic_what: str
    class_counts: dict[str, int]
    rows: dict[str, int]
    checkpoint_sha256: str
    initial_weights: str | None


class BundleDescription(_Plain):
    """Content of ``bundle.json``.

    Attributes:
        format: Version of this layout.
        name: What the model is called, such as ``binary fused knee``.
        version: Of the model: the package's version and the beginning of the checkpoint's hash.
        created: When it was exported, ISO 8601 in UTC; the only part that two exports differ in.
        task: ``binary``, ``osteoporosis`` or ``three_class``.
        classes: In order of falling bone density.
        positive: What the risk is of, in words: low BMD or osteoporosis.
        arm: ``fused``, ``image`` or ``tabular``.
        regions: Body regions it was trained on.
        features: Clinical values it reads, in the matrix' order; none of the image arm.
        preprocessing: Of the radiograph; None of the tabular arm.
        clinical_baseline: Training median (numbers) or most frequent value (others; a word's
            position in the vocabulary) of each feature.
        calibration: Of the probabilities.
        operating_points: Thresholds and what they reach; empty where none could be chosen.
        triage: Bands; None where none could be chosen.
        decision_note: Why there are no operating points or no bands; None if there are.
        cohort_prevalence: Share of positive radiographs among those that the calibration was fitted
            on; where it was not fitted, of validation and test together.
        embedding: When a radiograph is unlike those of training; None where it cannot be told.
        embedding_note: Why it cannot; None if it can.
        saliency_note: Why there is no saliency map; None if there is, or without radiographs.
        intended_use: One paragraph.
        training: Where the model comes from.
        versions: Of the packages that wrote it.
        files: SHA-256 of each other file.
    """

    format: Literal[1] = FORMAT
    name: str
    version: str
    created: str
    task: str
    classes: Annotated[list[str], Field(min_length=2)]
    positive: str
    arm: Arm
    regions: list[str]
    features: list[FeatureDescription]
    preprocessing: PreprocessingDescription | None
    clinical_baseline: list[float]
    calibration: CalibrationDescription
    operating_points: list[OperatingPointDescription]
    triage: TriageDescription | None
    decision_note: str | None
    cohort_prevalence: Annotated[float, Field(gt=0, lt=1)]
    embedding: EmbeddingDescription | None
    embedding_note: str | None
    saliency_note: str | None
    intended_use: str
    training: TrainingDescription
    versions: dict[str, str]
    files: dict[str, str]

    @property
    def clinical_schema(self) -> ClinicalSchema:
        """The features as a model's schema."""
        return ClinicalSchema(
            tuple(
                Feature(f.name, f.kind, f.unit, f.range, tuple(f.vocabulary)) for f in self.features
            )
        )

    @property
    def sha256(self) -> str:
        """Of everything but `created`: it names the bundle, since the files' hashes are in it."""
        content = self.model_dump(mode="json", exclude={"created"})
        text = json.dumps(content, sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def identity(self) -> dict[str, str]:
        """Name, version and hash, as every answer carries them."""
        return {"name": self.name, "version": self.version, "sha256": self.sha256}
