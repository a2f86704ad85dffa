"""The bytes of an upload become a radiograph, or an error that names no file and no patient."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from osteofusion.data.dicom import DicomFacts, facts_in
from osteofusion.data.radiograph import (
    DICOM_SUFFIXES,
    Gray,
    RadiographPreprocessing,
    decode_radiograph,
    is_dicom_data,
)
from osteofusion.errors import RadiographError
from osteofusion.serving.errors import InputError
from osteofusion.serving.prediction import QualityFlag

# It quotes what stands in a header, and that is the patient's.
logging.getLogger("pydicom").propagate = False

_IMAGE = "image"
_DEFLATED = b"1.2.840.10008.1.2.1.99"  # zlib over the whole data set: a bomb before any check
_WHOLE_LIMBS = frozenset(
    {"extremity", "leg", "arm", "limb", "lowerextremity", "lower limb", "joint"}
)
# How a refusal begins -> its code, and another remedy where the reader's own makes no sense here.
_CODES: tuple[tuple[str, str, str | None], ...] = (
    ("it is empty", "empty", None),
    ("its content is not", "not_an_image", None),
    ("million pixels", "too_large", None),
    ("pictures;", "several_frames", None),
    ("frames;", "several_frames", None),
    ("cut short", "damaged", None),
    ("damaged", "damaged", None),
    ("no pixel spacing", "no_spacing", "it has no pixel spacing; use a DICOM file that has one."),
    ("mm wide", "no_spacing", "its pixel spacing is implausible; correct it in the DICOM header."),
)


@dataclass(frozen=True)
class ReadRadiograph:
    """A radiograph of one patient.

    Attributes:
        image: (1, S, S) float32 in [0, 1], as the model sees it.
        radiograph: (H, W) uint8 as decoded.
        spacing: Millimetres a pixel of it; None where the file does not say.
        facts: Of the DICOM header; None of another format.
    """

    image: NDArray[np.float32]
    radiograph: Gray
    spacing: float | None
    facts: DicomFacts | None


def read_image(data: bytes, name: str, preprocessing: RadiographPreprocessing) -> ReadRadiograph:
    """Decode and preprocess a radiograph exactly as training does.

    Args:
        data: The whole file: PNG, JPEG, TIFF or DICOM.
        name: Its name; only the suffix is looked at, and only of DICOM files without a preamble.
        preprocessing: Of the model.

    Raises:
        InputError: It cannot be read as a radiograph.
    """
    # Messages name the path they are given: one without anything of the patient.
    suffix = Path(name).suffix.lower()
    path = Path(_IMAGE + (suffix if suffix in DICOM_SUFFIXES else ""))
    try:
        _refuse_deflated(data, path)
        radiograph = decode_radiograph(data, path)
        facts = facts_in(data, path)
        spacing = min(facts.spacing) if facts is not None and facts.spacing is not None else None
        square = preprocessing.prepare(radiograph, spacing, path)
    except RadiographError as error:
        raise _refusal(str(error), path) from None
    except MemoryError:
        raise InputError(
            _IMAGE, "The image needs too much memory; export it at a lower size.", "too_large"
        ) from None
    return ReadRadiograph(as_input(square), radiograph, spacing, facts)


def as_input(square: Gray) -> NDArray[np.float32]:
    """What the model reads of a preprocessed radiograph: (1, S, S) float32 in [0, 1]."""
    # float32 through and through: a float64 quotient would round differently from PyTorch's.
    return (square[None].astype(np.float32) / np.float32(255)).astype(np.float32)


def region_flags(facts: DicomFacts | None, regions: Sequence[str]) -> list[QualityFlag]:
    """A flag where the DICOM header names another body part than the model was trained on."""
    part = facts.body_part if facts is not None else None
    if part is None or part in _WHOLE_LIMBS:
        return []
    if any(region in part or part in region for region in regions):
        return []
    known = " or ".join(regions)
    message = (
        f"The DICOM header names another body part than {known}, which this model was trained on."
    )
    return [QualityFlag("other_region", message, _IMAGE)]


def _refuse_deflated(data: bytes, path: Path) -> None:
    # Anywhere, not only near the start: the header may hold as much as it likes before it.
    if is_dicom_data(data, path) and _DEFLATED in data:
        raise InputError(
            _IMAGE,
            "The image cannot be read: deflated DICOM files are not accepted; export it without "
            "that compression.",
            "unsupported_image",
        )


def _refusal(sentence: str, path: Path) -> InputError:
    reason = sentence.removeprefix(f"Cannot read the radiograph {path}: ")
    for part, code, own in _CODES:
        if part in reason:
            return InputError(_IMAGE, f"The image cannot be read: {own or reason}", code)
    return InputError(_IMAGE, f"The image cannot be read: {reason}", "unsupported_image")
