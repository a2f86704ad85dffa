"""What a folder of radiographs shows: layout, class folders, region, what DICOM headers know."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from osteofusion.data.dicom import DicomFacts, read_dicom_facts
from osteofusion.data.drafting.answers import bone_status
from osteofusion.data.drafting.words import tokens
from osteofusion.data.manifest import Label
from osteofusion.data.radiograph import is_dicom
from osteofusion.data.scan import scan_folder, stem
from osteofusion.errors import CohortError, RadiographError

_DEPTH = 3  # folders below the root at which a manifest finds class folders
_SAMPLE = 200  # files that stand for all
_HEADERS = 40  # DICOM headers that stand for all
_REGIONS = {
    "knee": ("knee", "knie", "genou", "rodilla", "kolan", "diz", "ginocchio", "колен"),
    "hand": ("hand", "mano", "dlon", "bone age", "boneage", "кисть"),
    "hip": ("hip", "hufte", "huefte", "hanche", "cadera", "biodr", "kalca", "pelvis", "femur"),
    "spine": ("spine", "lumbar", "lws", "wirbel", "rachis", "columna", "kregosl", "vertebra"),
    "wrist": ("wrist", "handgelenk", "poignet", "muneca", "nadgarst", "radius"),
    "chest": ("chest", "thorax", "torax"),
}


@dataclass
class ImageFolder:
    """What lies under the image folder.

    Attributes:
        names: Radiographs, relative to the root.
        stems: Their names without suffix.
        folders: Label of each class folder, empty where there are none.
        coded: Folders such as `0`, `1`, `2` that may be classes.
        in_folders: How many radiographs lie in the class folders.
        facts: Of a sample of the DICOM files.
        dicom_share: Share of the radiographs that are DICOM, by that sample.
    """

    names: list[str]
    stems: list[str]
    folders: dict[str, Label] = field(default_factory=dict)
    coded: list[str] = field(default_factory=list)
    in_folders: int = 0
    facts: list[DicomFacts] = field(default_factory=list)
    dicom_share: float = 0.0


def look_at_images(images: Path, root: Path) -> ImageFolder:
    """Scan a folder under the root.

    Raises:
        CohortError: it does not exist, holds no radiograph, or a name is no text.
    """
    if not images.is_dir():
        raise CohortError(f"--images {images} is no folder; give the folder of the radiographs.")
    names = sorted(scan_folder(images, root).images)
    if not names:
        raise CohortError(
            f"--images {images} holds no radiograph (PNG, JPEG, TIFF or DICOM); give their folder."
        )
    found = ImageFolder(names, [stem(name) for name in names])
    _classes(found)
    files = [root / name for name in names]
    sample = files[:: max(len(files) // _SAMPLE, 1)]
    dicom = [path for path in sample if is_dicom(path)]
    found.dicom_share = len(dicom) / len(sample)
    found.facts = _facts(dicom[:_HEADERS])
    return found


def guess_region(found: ImageFolder | None, *places: str) -> tuple[str, str]:
    """The body region, and where it was read; ("unknown", "") where nothing says it."""
    parts = Counter(facts.body_part for facts in (found.facts if found else []) if facts.body_part)
    if parts:
        part = parts.most_common(1)[0][0]
        return region_of(part) or part, "the DICOM headers"
    for place in places:
        if region := region_of(place):
            return region, repr(place)
    named = Counter(filter(None, map(region_of, found.names[:500] if found else [])))
    if named:
        return named.most_common(1)[0][0], "the file names"
    return "unknown", ""


def _classes(found: ImageFolder) -> None:
    inside: dict[str, int] = defaultdict(int)
    for name in found.names:
        for part in PurePosixPath(name).parts[:-1][:_DEPTH]:
            inside[part] += 1
    labels = {folder: bone_status(folder) for folder in inside}
    folders = {folder: label for folder, label in labels.items() if label is not None}
    if len(set(folders.values())) > 1:
        found.folders = dict(sorted(folders.items()))
        found.in_folders = sum(inside[folder] for folder in folders)
    else:
        found.coded = sorted(folder for folder in inside if set(tokens(folder)) & set("0123"))


def _facts(files: list[Path]) -> list[DicomFacts]:
    found: list[DicomFacts] = []
    for path in files:
        try:
            found.append(read_dicom_facts(path))
        except RadiographError:  # without pydicom, or a damaged header: nothing to learn here
            continue
    return found


def region_of(text: str) -> str | None:
    """The body region that a name or word names."""
    words = tokens(text)
    joined = " ".join(words)
    for region, stems in _REGIONS.items():
        if any(word.startswith(stems) for word in words) or any(
            " " in each and each in joined for each in stems
        ):
            return region
    return None
