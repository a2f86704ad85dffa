"""What the header of a DICOM file says, as far as a cohort may know it."""

from __future__ import annotations

import io
import math
import os
import re
import warnings
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from osteofusion.data.radiograph import is_dicom, is_dicom_data, refusal, require_file, unreadable
from osteofusion.errors import RadiographError

if TYPE_CHECKING:
    from pydicom import Dataset

INSTALL = "pip install 'osteofusion[dicom]'"

# pydicom warns about every oddity of every element, several lines a file.
warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")

_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
_YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}
_OLDEST = 120  # years
_SEX = {"F": 1, "M": 0}
_SIDES: dict[str, Literal["left", "right", "both"]] = {"L": "left", "R": "right", "B": "both"}
_DATES = ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate")


@dataclass(frozen=True)
class DicomFacts:
    """What a DICOM header tells about a radiograph; None where it is silent or makes no sense.

    Nothing else of the header leaves `read_dicom_facts`: no name, date, number or institution.

    Args:
        patient_id: the key that joins the image to a table's row.
        age: years at the study.
        female: 1 for female, 0 for male, None for other.
        laterality: side of the body.
        body_part: such as "knee", in lower case.
        modality: such as "DX" or "CR".
        spacing: millimetres from row to row and from column to column, as `read_spacing` says.
    """

    patient_id: str | None
    age: float | None
    female: int | None
    laterality: Literal["left", "right", "both"] | None
    body_part: str | None
    modality: str | None
    spacing: tuple[float, float] | None


def read_dicom_facts(path: str | os.PathLike[str]) -> DicomFacts:
    """Read the clinical facts in the header of a DICOM file; its pixels are not read.

    The age is that of PatientAge ("045Y", "018M", "007D"; "000Y" is what anonymisers write and
    counts as absent), else the study date minus the birth date.

    Raises:
        RadiographError: the file is missing, damaged or not DICOM, or pydicom is not installed.
    """
    return _facts(_read_header(Path(path)))


def facts_in(data: bytes, path: Path) -> DicomFacts | None:
    """As `read_dicom_facts`, of a file's bytes; None where they are not DICOM.

    Args:
        data: the whole file.
        path: for messages, and for its suffix: see `osteofusion.data.radiograph.is_dicom`.

    Raises:
        RadiographError: the header is damaged, or pydicom is not installed.
    """
    if not is_dicom_data(data, path):
        return None
    pydicom = require_pydicom(path)
    try:
        dataset = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True, force=True)
    except Exception as error:  # damaged files raise nearly anything from inside pydicom
        raise _damaged(path) from error
    return _facts(dataset)


def _facts(dataset: Dataset) -> DicomFacts:
    body_part = _text(dataset, "BodyPartExamined")
    side = _text(dataset, "ImageLaterality") or _text(dataset, "Laterality") or ""
    return DicomFacts(
        patient_id=_text(dataset, "PatientID"),
        age=_age(dataset),
        female=_SEX.get((_text(dataset, "PatientSex") or "").upper()),
        laterality=_SIDES.get(side.upper()),
        body_part=body_part.lower() if body_part else None,
        modality=_text(dataset, "Modality"),
        spacing=pixel_spacing(dataset),
    )


def read_spacing(path: str | os.PathLike[str]) -> tuple[float, float] | None:
    """Millimetres from row to row and from column to column as stored; None where unknown.

    The calibrated PixelSpacing where there is one, else the spacing at the detector, which is
    larger than at the bone by the magnification, else that of the film scanner. A file that is
    not DICOM has none. `read_radiograph` brings oblong pixels to squares of the shorter side.

    Raises:
        RadiographError: the file is missing or damaged, or it is DICOM and pydicom is not
            installed.
    """
    path = Path(path)
    require_file(path)
    return pixel_spacing(_read_header(path)) if is_dicom(path) else None


def spacing_in(data: bytes, path: Path) -> tuple[float, float] | None:
    """As `read_spacing`, of the bytes of a DICOM file that decodes; ``path`` is for messages."""
    pydicom = require_pydicom(path)
    return pixel_spacing(pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True, force=True))


def dicomdir_images(path: str | os.PathLike[str]) -> list[Path]:
    """The image files that a DICOMDIR lists, in its order, found whatever case their names have.

    Raises:
        RadiographError: the file is missing, damaged or not a DICOMDIR, an image that it lists
            does not exist or lies outside its folder, or pydicom is not installed.
    """
    path = Path(path)
    dataset = _read_header(path)
    if not is_dicomdir(dataset):
        raise refusal(path, "it is not a DICOMDIR", "name the file called DICOMDIR")
    try:
        references = [
            record["ReferencedFileID"].value
            for record in dataset.get("DirectoryRecordSequence") or ()
            if _text(record, "DirectoryRecordType") == "IMAGE" and "ReferencedFileID" in record
        ]
    except Exception as error:
        raise _damaged(path) from error
    listings: dict[Path, dict[str, Path]] = {}
    images = []
    for reference in references:
        found = path.parent
        for name in [reference] if isinstance(reference, str) else map(str, reference):
            if found not in listings:
                listings[found] = _listing(found)
            entry = listings[found].get(name) or listings[found].get(name.casefold())
            if entry is None:
                raise refusal(
                    path, f"{found} lacks the {name!r} that it lists", "copy the whole medium"
                )
            found = entry
        images.append(found)
    return list(dict.fromkeys(images))  # one file may stand in two records


def require_pydicom(path: Path) -> ModuleType:
    """The pydicom package, imported when the first DICOM file is met.

    Raises:
        RadiographError: it is not installed.
    """
    try:
        import pydicom
        import pydicom.pixels.decoders  # from version 3 on
    except ImportError as error:
        raise refusal(path, "a DICOM file needs pydicom 3", f"run {INSTALL}") from error
    return pydicom


def is_dicomdir(dataset: Dataset) -> bool:
    """Whether a data set is an index of files and not an image."""
    return "DirectoryRecordSequence" in dataset


def pixel_spacing(dataset: Dataset) -> tuple[float, float] | None:
    """Spacing of the rows and of the columns in mm, as `read_spacing` says."""
    for keyword in _SPACINGS:
        sides = positive_numbers(dataset, keyword)
        if len(sides) == 2:
            return sides[0], sides[1]
    return None


def positive_numbers(dataset: Dataset, keyword: str) -> list[float]:
    """The values of an element that describes the display; empty when one is 0 or less."""
    numbers = stored_numbers(dataset, keyword)
    return numbers if all(number > 0 for number in numbers) else []


def stored_numbers(dataset: Dataset, keyword: str) -> list[float]:
    """The values of an element that describes the display; empty when absent or nonsense."""
    try:
        value = dataset.get(keyword)
        numbers = [float(part) for part in (value if _is_several(value) else [value])]
    except Exception:  # None where absent, and whatever text stands there
        return []
    return numbers if all(map(math.isfinite, numbers)) else []


def _read_header(path: Path) -> Dataset:
    try:
        require_file(path)
        if not is_dicom(path):
            raise refusal(path, "it is not a DICOM file", "name a DICOM file")
        pydicom = require_pydicom(path)
        dataset: Dataset = pydicom.dcmread(path, stop_before_pixels=True, force=True)
    except OSError as error:
        raise unreadable(path, error) from error
    except (RadiographError, MemoryError):
        raise
    except Exception as error:  # damaged files raise nearly anything from inside pydicom
        raise _damaged(path) from error
    return dataset


def _damaged(path: Path) -> RadiographError:
    return refusal(path, "its DICOM header is damaged", "export it again")


def _is_several(value: Any) -> bool:
    return hasattr(value, "__iter__") and not isinstance(value, (str, bytes))


def _text(dataset: Dataset, keyword: str) -> str | None:
    """First value of an element as text; None when absent, empty or nonsense."""
    try:
        value = dataset.get(keyword)
        if value is not None and _is_several(value):
            value = next(iter(value), None)
        return (str(value).strip() or None) if value is not None else None
    except Exception:
        return None


def _age(dataset: Dataset) -> float | None:
    match = re.fullmatch(r"(\d{1,3})([DWMY])", (_text(dataset, "PatientAge") or "").upper())
    if match and int(match[1]):
        age = int(match[1]) * _YEARS[match[2]]
    else:
        born = _date(dataset, "PatientBirthDate")
        seen = next((day for key in _DATES if (day := _date(dataset, key))), None)
        if born is None or seen is None:
            return None
        age = (seen - born).days / 365.25
    return age if 0 < age <= _OLDEST else None


def _date(dataset: Dataset, keyword: str) -> date | None:
    text = (_text(dataset, keyword) or "").replace(".", "")  # 1997.04.24 in older files
    try:
        return datetime.strptime(text, "%Y%m%d").date()
    except ValueError:
        return None


def _listing(folder: Path) -> dict[str, Path]:
    """Entries by name and, since some systems mount media in lower case, by folded name."""
    entries = list(folder.iterdir()) if folder.is_dir() else []
    return {entry.name.casefold(): entry for entry in entries} | {
        entry.name: entry for entry in entries
    }
