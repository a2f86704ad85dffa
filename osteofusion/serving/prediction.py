"""What a bundle answers about one patient: plain values that page, report and service share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Band = Literal["rule_out", "dxa", "rule_in"]
Source = Literal["form", "dicom", "missing"]
Mark = Literal["outside_range", "outside_training", "unseen_word", "suspected_unit"]
Value = float | str | None


@dataclass(frozen=True)
class ClinicalValue:
    """A clinical value as the model read it.

    Attributes:
        name: Canonical name of the feature.
        label: What to call it in front of a reader, such as "Body mass index".
        value: In the canonical unit; a word where the feature is categorical, 0 or 1 where it is
            binary; None where it is missing.
        unit: Canonical unit; None where it has none.
        source: The form, the DICOM header, or neither.
        mark: What is odd about it; None if nothing.
        usual: 1st and 99th percentile of the training rows; None for words and yes/no.
    """

    name: str
    label: str
    value: Value
    unit: str | None
    source: Source
    mark: Mark | None = None
    usual: tuple[float, float] | None = None


@dataclass(frozen=True)
class QualityFlag:
    """Something about the input that makes the answer less sure.

    Attributes:
        code: ``outside_training``, ``unlike_training_images`` and the like.
        message: One sentence for a clinician.
        field: The clinical value or ``image`` that it is about.
    """

    code: str
    message: str
    field: str


@dataclass(frozen=True)
class Call:
    """What an operating point says.

    Attributes:
        name: ``fixed_sensitivity``, ``fixed_specificity`` or ``youden``.
        threshold: Low-BMD risk at or above which low BMD is called.
        low_bmd: Whether it is.
    """

    name: str
    threshold: float
    low_bmd: bool


@dataclass(frozen=True)
class Prediction:
    """The answer for one patient.

    Attributes:
        label: The most probable class.
        probabilities: Calibrated, by class in order of falling bone density; they sum to 1.
        risk: Probability of every class but the first: of low BMD.
        band: Of the three-way triage; None where the bundle has none.
        calls: One an operating point of the bundle.
        image_present: Whether a radiograph was given.
        clinical_present: Whether any clinical value was.
        values: One a feature of the model, in its order.
        flags: What to be careful about; empty if nothing.
        model: ``name``, ``version`` and ``sha256`` of the bundle.
    """

    label: str
    probabilities: dict[str, float]
    risk: float
    band: Band | None
    calls: list[Call]
    image_present: bool
    clinical_present: bool
    values: list[ClinicalValue]
    flags: list[QualityFlag]
    model: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Attribution:
    """How one clinical value moved the answer.

    A bundle states calibrated log-odds and risk; `osteofusion explain`, which has no calibration,
    the model's own. Where there are two classes, the former's log-odds are the latter's times the
    slope of the calibration.

    Attributes:
        name: Canonical name of the feature.
        log_odds: Log-odds of low BMD as they are, less those with the value replaced by the
            training rows' median (numbers) or most frequent value (the others).
        risk_without: The risk with it replaced.
    """

    name: str
    log_odds: float
    risk_without: float


@dataclass(frozen=True)
class Explanation:
    """Why the answer is what it is.

    Attributes:
        attributions: One a clinical value that was given, largest effect first.
        modalities: By ``image`` and ``clinical``, where given beside the other: log-odds of low BMD
            as they are, less those with that modality withheld; calibrated or not as
            `Attribution` says.
        saliency: By method (``gradcam``, ``hirescam``): (h, w) float32 in [0, 1] over the square
            that the model saw; empty without a radiograph, or where the bundle has no map.
        radiograph: The radiograph, (H, W) uint8, in its original geometry; None without one.
        spacing: Its millimetres a pixel where the file says them.
    """

    attributions: list[Attribution]
    modalities: dict[str, float]
    saliency: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    radiograph: NDArray[np.uint8] | None = None
    spacing: float | None = None


def at_prevalence(risk: float, cohort: float, prevalence: float) -> float:
    """The risk where low BMD is as frequent as `prevalence`, not as in the cohort (Bayes' rule).

    Args:
        risk: Calibrated on a cohort.
        cohort: Share of low BMD there, between 0 and 1.
        prevalence: Share of low BMD among those who would be examined, between 0 and 1.
    """
    low = risk * prevalence / cohort
    normal = (1 - risk) * (1 - prevalence) / (1 - cohort)
    return low / (low + normal)
