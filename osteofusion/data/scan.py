"""Walk a folder and tell radiographs from whatever else lies there."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from osteofusion.data.radiograph import (
    DICOM_SUFFIXES,
    RADIOGRAPH_SUFFIXES,
    is_dicom,
    is_dicom_picture,
    refusal,
    unreadable,
)
from osteofusion.errors import CohortError, RadiographError

_NOT_READ = {".avif", ".bmp", ".gif", ".heic", ".jp2", ".webp"}  # pictures, so perhaps films
_PICTURES = RADIOGRAPH_SUFFIXES - DICOM_SUFFIXES
_SUFFIXES = RADIOGRAPH_SUFFIXES | {".dc3", ".dic", ".ima"}  # DICOM files have the last ones too


@dataclass
class FolderScan:
    """What lies under a folder; names are relative to the root, with forward slashes.

    Attributes:
        images: Radiographs: PNG, JPEG and TIFF by suffix, DICOM by content whatever its name.
        other: Files that are none, among them DICOMDIRs and DICOM reports, and hidden folders,
            whose files are not looked at.
        linked_folders: Links to folders. They are not followed: one to a parent folder would
            never end, and would file all radiographs under one class.
        unreadable: What may be a radiograph and cannot be read: `image` and `reason`.
    """

    images: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    linked_folders: list[str] = field(default_factory=list)
    unreadable: list[dict[str, str]] = field(default_factory=list)


def scan_folder(folder: Path, root: Path, skip: Collection[Path] = ()) -> FolderScan:
    """Everything below `folder` and outside the folders to `skip`, sorted by name.

    Raises:
        CohortError: the name of a radiograph is no text.
    """
    scan = FolderScan()

    def refuse(error: OSError) -> None:
        place = Path(error.filename)
        name = place.relative_to(root).as_posix()
        scan.unreadable.append(_refused(name, unreadable(place, error)))

    for directory, folders, files in os.walk(folder, onerror=refuse):
        here = Path(directory)
        within = "" if here == root else f"{here.relative_to(root).as_posix()}/"
        inside = []
        for name in sorted(folders):
            if here / name in skip:
                continue
            if (here / name).is_symlink():
                scan.linked_folders.append(_text(within + name))
            elif name.startswith("."):
                scan.other.append(_text(within + name) + "/")
            else:
                inside.append(name)
        folders[:] = inside
        for name in sorted(files):
            _sort(here, within + name, name, scan)
    return scan


# The sides of a body at the end of a name, in the languages of the drafts.
SIDED = (
    r"(?i)^(.+?)[\s_.-]+"
    r"(?:l|r|li|re|lt|rt|left|right|links|rechts|gauche|droite?|izq|der|sx|dx|sol|sag)$"
)


def sided_pairs(stems: Iterable[str]) -> dict[str, list[str]]:
    """Names that differ in the side of the body alone, by what they share."""
    shared: dict[str, set[str]] = defaultdict(set)
    for name in stems:
        if match := re.match(SIDED, name):
            shared[match.group(1)].add(name)
    return {base: sorted(names) for base, names in shared.items() if len(names) > 1}


def stem(name: str) -> str:
    """A radiograph's file name without its suffix; of a UID such as ``1.2.840.7``, all of it."""
    name = name.rpartition("/")[2]
    base, _, suffix = name.rpartition(".")
    return base if base and f".{suffix}".lower() in _SUFFIXES else name


def _sort(here: Path, relative: str, name: str, scan: FolderScan) -> None:
    """Put a file of the folder `here`, called `relative` from the root, where it belongs.

    A picture needs no `Path`, which would be most of the time that a large folder takes.
    """
    _, dot, ending = name.rpartition(".")
    suffix = dot + ending.lower()
    if name.startswith("."):  # such as what macOS leaves beside each file
        scan.other.append(_text(relative))
    elif suffix in _NOT_READ:
        reason = refusal(here / name, f"it is a {suffix} file", "export it as PNG")
        scan.unreadable.append(_refused(relative, reason))
    elif suffix in _PICTURES or _is_dicom_radiograph(here / name, suffix):
        if not relative.isascii() and relative != _text(relative):
            raise CohortError(f"{here} has a file name that is no text: {name!r}; rename it.")
        scan.images.append(relative)
    elif (error := _open_error(here / name)) is not None:
        scan.unreadable.append(_refused(relative, unreadable(here / name, error)))
    else:
        scan.other.append(_text(relative))


def _is_dicom_radiograph(path: Path, suffix: str) -> bool:
    if suffix in DICOM_SUFFIXES:  # a damaged one is a radiograph that cannot be read
        return not is_dicom(path) or is_dicom_picture(path)
    return is_dicom_picture(path)


def _open_error(path: Path) -> OSError | None:
    try:
        if path.is_file():  # a pipe would wait
            path.open("rb").close()
    except OSError as error:
        return error
    return None


def _refused(relative: str, reason: RadiographError) -> dict[str, str]:
    return {"image": _text(relative), "reason": str(reason).encode(errors="replace").decode()}


def _text(name: str) -> str:
    """A name in which bytes that are no text are escaped."""
    return name.encode("utf-8", "backslashreplace").decode()
