"""Find the radiographs of a data set and whose they are."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from osteofusion.data.manifest import Manifest, normalise_id
from osteofusion.data.radiograph import RADIOGRAPH_SUFFIXES
from osteofusion.data.table import need_column
from osteofusion.errors import CohortError


def find_images(
    root: Path, manifest: Manifest, raw: pd.DataFrame, table: Path, *, need_labels: bool
) -> pd.DataFrame:
    """Columns subject_id, image, folder_label; one row a file, sorted by path."""
    spec = manifest.images
    found: list[tuple[str, str, str | None]] = []
    pattern = re.compile(spec.id_pattern)

    def subject(name: str) -> str:
        stem = Path(name).stem
        match = pattern.search(stem)
        return normalise_id(match.group(1) if match else stem)

    if spec.layout == "column":
        header = need_column(raw, [str(spec.column)], table, "image column")
        ids = need_column(raw, [manifest.table.id], table, "ID column")
        for row, (identifier, name) in raw[[ids, header]].iterrows():
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
        present = {entry.name.casefold(): entry for entry in root.iterdir() if entry.is_dir()}
        folders = {
            present[name.casefold()]: label
            for name, label in spec.folders.items()
            if name.casefold() in present
        }
        if folders:
            found = [
                (subject(name), name, label)
                for folder, label in folders.items()
                for name in _image_files(folder, root)
            ]
        elif need_labels:
            raise CohortError(
                f"{root} has none of the folders {', '.join(spec.folders)}; expected:\n"
                f"{manifest.layout()}"
            )
        else:
            found = [(subject(name), name, None) for name in _image_files(root, root)]
    if not found:
        raise CohortError(
            f"No image ({', '.join(sorted(RADIOGRAPH_SUFFIXES))}) under {root}; expected:\n"
            f"{manifest.layout()}"
        )
    columns = ["subject_id", "image", "folder_label"]
    return pd.DataFrame(found, columns=columns, dtype=object).sort_values("image")


def _image_files(folder: Path, root: Path) -> Iterator[str]:
    for directory, _, names in os.walk(folder):
        for name in names:
            if Path(name).suffix.lower() in RADIOGRAPH_SUFFIXES and not name.startswith("."):
                yield (Path(directory) / name).relative_to(root).as_posix()
