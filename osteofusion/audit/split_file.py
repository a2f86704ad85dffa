"""Somebody's split as a CSV, read leniently: its columns are told by their names."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from osteofusion.audit.sources import SPLIT_NAMES, Collection, shown
from osteofusion.errors import SplitError

_HEADERS = {
    "image": ("image", "imagepath", "filepath", "path", "filename", "file", "imagename", "imageid"),
    "split": ("split", "set", "subset", "partition", "dataset", "side"),
    "label": ("label", "class", "diagnosis", "target"),
    "subject": ("subjectid", "subject", "patientid", "patient", "pid", "case", "caseid"),
    "repeat": ("repeat",),
    "fold": ("fold",),
}


def add_splits(collection: Collection, path: Path, roots: Sequence[Path]) -> None:
    """Put every image on the sides that a CSV names; labels and subjects too where unknown.

    A column of images (path relative to the folder, file name or stem) or of subjects, and one of
    sides (or folds) are needed. Rows of several repeats or folds make several divisions.

    Raises:
        SplitError: the file cannot be read, lacks a column, or names an image that is not there.
    """
    headers, listed = _read(path)
    columns = {what: found for what in _HEADERS if (found := _find(headers, what, path))}
    if "split" not in columns and "fold" in columns:
        columns["split"] = columns.pop("fold")
    if "split" not in columns or not {"image", "subject"} & set(columns):
        raise SplitError(
            f"{path} needs a column of images (such as 'image' or 'path') and one of sides (such "
            f"as 'split' or 'set'); it has {', '.join(map(repr, headers))}."
        )
    by_image = "image" in columns
    find = _Finder(collection, roots, path, by_image=by_image)
    told = [what for what in ("label", "subject") if what in columns]
    if len(collection.clinical.columns):
        told = []  # the cohort knows better
    unknown = {what: set(np.flatnonzero(collection.table[what].isna()).tolist()) for what in told}
    sides: dict[str, dict[int, str]] = {}
    both: set[int] = set()
    for row, cells in listed.items():
        numbers = [
            f"{what} {cells[columns[what]]}" for what in ("repeat", "fold") if what in columns
        ]
        division = sides.setdefault(", ".join(numbers) or "split", {})
        side = cells[columns["split"]]
        side = SPLIT_NAMES.get(side.casefold(), shown(side))
        for position in find(cells[columns["image" if by_image else "subject"]], row):
            if side and division.setdefault(position, side) != side:
                both.add(position)
            for what in told:
                if position in unknown[what]:
                    collection.table.at[position, what] = shown(cells[columns[what]]) or None
    positions = range(len(collection.table))
    collection.divisions = pd.DataFrame(
        {name: [found.get(i) for i in positions] for name, found in sides.items()}, dtype=object
    )
    names = collection.table["name"].tolist()
    collection.on_both_sides = [names[i] for i in sorted(both)]
    if unlisted := int(collection.divisions.isna().all(axis=1).sum()):
        collection.notes.append(f"{unlisted} images are on no side in {path}")
    if find.left_out:
        collection.notes.append(
            f"{path} lists {len(find.left_out)} images that the cohort left out, such as "
            f"{find.left_out[0]!r}"
        )


class _Finder:
    """Rows of the collection that a cell of the CSV means."""

    def __init__(
        self, collection: Collection, roots: Sequence[Path], path: Path, *, by_image: bool
    ) -> None:
        self.roots, self.path, self.by_image = roots, path, by_image
        self.left_out: list[str] = []
        self.title = collection.title
        # The most exact reading first.
        self.maps: list[dict[str, list[int]]] = [defaultdict(list) for _ in range(4)]
        for i, (file, name, subject) in enumerate(
            collection.table[["path", "name", "subject"]].itertuples(index=False)
        ):
            keys: list[str | None] = [name, None, None, None]
            if not by_image:
                keys = [subject, file.stem if file is not None and subject is None else None]
            elif file is not None:
                root = next((root for root in roots if root in file.parents), None)
                inside = file.relative_to(root).as_posix() if root is not None else None
                keys = [name, inside, file.name, file.stem]
            for mapping, key in zip(self.maps, keys, strict=False):
                if key is not None:
                    mapping[key].append(i)

    def __call__(self, cell: str, row: int) -> list[int]:
        for candidate in (cell, *self._inside(cell)):
            for mapping in self.maps:
                found = mapping.get(candidate, [])
                if len(found) > 1 and self.by_image:
                    raise SplitError(
                        f"{self.path}, row {row}: {cell!r} may mean any of {len(found)} images; "
                        "give the path relative to the folder."
                    )
                if found:
                    return found
        if self.by_image and any((root / cell).is_file() for root in self.roots):
            self.left_out.append(cell)
            return []
        what = "image" if self.by_image else "subject"
        raise SplitError(
            f"{self.path}, row {row}: {what} {cell!r} is not in {self.title}; correct the row or "
            "audit the folder that the file is about."
        )

    def _inside(self, cell: str) -> list[str]:
        """The path as other people write it: backslashes, other parents."""
        parts = [part for part in re.split(r"[\\/]+", cell) if part not in ("", ".")]
        return ["/".join(parts[i:]) for i in range(len(parts))] if self.by_image else []


def _read(path: Path) -> tuple[list[str], dict[int, dict[str, str]]]:
    """The headers, and the cells of each row by its number in the file."""
    try:
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            text = path.read_text(encoding="cp1252")
        first = text.partition("\n")[0]
        mark = max(",;\t|", key=first.count)
        lines = list(csv.reader(text.splitlines(keepends=True), delimiter=mark))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SplitError(f"{path} cannot be read as a CSV of a split: {reason}.") from error
    headers = [header.strip() for header in lines[0]] if lines else []
    named = [header for header in headers if header]
    if len(set(named)) < len(named):
        raise SplitError(f"{path} has a header twice; keep one column of each name.")
    rows = {}
    for number, cells in enumerate(lines[1:], start=2):
        if any(cell.strip() for cell in cells):
            if len(cells) != len(headers):
                raise SplitError(
                    f"{path}, row {number}: {len(cells)} cells under {len(headers)} headers; "
                    "correct the row."
                )
            rows[number] = {h: cell.strip() for h, cell in zip(headers, cells, strict=True)}
    if not rows:
        raise SplitError(f"{path} has no rows; give a CSV with a header and a row an image.")
    return headers, rows


def _find(headers: Sequence[str], what: str, path: Path) -> str | None:
    plain = [re.sub(r"[^a-z0-9]", "", header.casefold()) for header in headers]
    for wanted in _HEADERS[what]:
        if plain.count(wanted) > 1:
            raise SplitError(f"{path} has several columns {wanted!r}; keep one of them.")
        if wanted in plain:
            return headers[plain.index(wanted)]
    return None
