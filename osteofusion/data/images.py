"""Find the radiographs of a data set and whose they are."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from osteofusion.data.manifest import Manifest, normalise_id
from osteofusion.data.radiograph import RADIOGRAPH_SUFFIXES
from osteofusion.data.report import JoinReport
from osteofusion.data.table import need_column
from osteofusion.errors import CohortError


def find_images(
    root: Path,
    manifest: Manifest,
    raw: pd.DataFrame,
    table: Path,
    report: JoinReport,
    *,
    need_labels: bool,
) -> pd.DataFrame:
    """Columns subject_id, image, folder_label; one row a file, sorted by path.

    Images beside the class folders are left out where labels are needed (they may be figures or
    thumbnails), and taken where not (they may be new patients).

    Raises:
        CohortError: a folder or a file that the table names is missing, a file name is no text,
            or there is no image.
    """
    spec = manifest.images
    found: list[tuple[str, str, str | None]] = []
    pattern = re.compile(spec.id_pattern, re.DOTALL)  # a name may hold a line break

    def subject(name: str) -> str:
        stem = Path(name).stem
        match = pattern.search(stem)
        return normalise_id((match and match.group(1)) or stem)

    if spec.layout == "column":
        header = need_column(raw, [str(spec.column)], table, "image column")
        ids = need_column(raw, [manifest.table.id], table, "ID column")
        for row, identifier, name in raw[[ids, header]].itertuples(name=None):
            if identifier is None or name is None:
                continue
            if not (root / str(name)).is_file():
                raise CohortError(
                    f"Table {table}, row {row}, column {header!r}: {root / str(name)} does not "
                    "exist; correct the path or empty the cell."
                )
            found.append((normalise_id(identifier), Path(str(name)).as_posix(), None))
    elif spec.layout == "folder":
        folder = root / spec.folder
        if not folder.is_dir():
            raise CohortError(
                f"{root} has no folder {spec.folder!r}; expected:\n{manifest.layout()}"
            )
        found = [(subject(name), name, None) for name in _image_files(folder, root)]
    else:
        wanted = {name.casefold(): label for name, label in spec.folders.items()}
        folders = {
            entry: wanted[entry.name.casefold()]
            for entry in root.iterdir()
            if entry.name.casefold() in wanted and entry.is_dir()
        }
        missing = set(wanted) - {folder.name.casefold() for folder in folders}
        if need_labels and missing:
            raise CohortError(
                f"{root} has no folder {', '.join(map(repr, sorted(missing)))}; expected:\n"
                f"{manifest.layout()}"
            )
        found = [
            (subject(name), name, label)
            for folder, label in folders.items()
            for name in _image_files(folder, root)
        ]
        inside = {name for _, name, _ in found}
        outside = [name for name in _image_files(root, root) if name not in inside]
        if need_labels:
            report.images_outside_folders = sorted(outside)
        else:
            found += [(subject(name), name, None) for name in outside]
    if not found:
        raise CohortError(
            f"No image ({', '.join(sorted(RADIOGRAPH_SUFFIXES))}) under {root}; expected:\n"
            f"{manifest.layout()}"
        )
    columns = ["subject_id", "image", "folder_label"]
    return pd.DataFrame(found, columns=columns, dtype=object).sort_values("image")


def _image_files(folder: Path, root: Path) -> Iterator[str]:
    def refuse(error: OSError) -> None:
        raise CohortError(f"Folder {error.filename} cannot be read: {error.strerror}.")

    # Links to folders are not followed: one to a parent would file all films under one class.
    for directory, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if Path(name).suffix.lower() in RADIOGRAPH_SUFFIXES and not name.startswith("."):
                if any("\ud800" <= letter <= "\udfff" for letter in name):  # undecodable bytes
                    raise CohortError(f"{directory} has a file name that is no text: {name!r}.")
                yield (Path(directory) / name).relative_to(root).as_posix()
