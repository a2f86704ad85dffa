"""Films as the page shows them: contact sheets, and copies filed under several names."""

from __future__ import annotations

import base64
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import pandas as pd

from osteofusion.data.manifest import Manifest
from osteofusion.data.page.classes import words
from osteofusion.data.radiograph import Gray, read_radiograph
from osteofusion.errors import RadiographError
from osteofusion.progress import in_threads

MOST_FILMS = 24  # on one contact sheet
MOST_GROUPS = 40  # groups of copies that are shown as pictures
SIDE = 144  # pixels of the longer side of a thumbnail
_QUALITY = 70
_WHO = ("age", "female", "male", "sex", "gender")


@dataclass(frozen=True)
class Sheet:
    """Some films of one class or family.

    Attributes:
        title: The class or family.
        films: How many films it has.
        chosen: Positions in the table of those shown.
    """

    title: str
    films: int
    chosen: list[int]


@dataclass(frozen=True)
class Copies:
    """Byte-identical files.

    Attributes:
        rows: Positions in the table.
        facts: What each row says of the patient, in the order of `patient_columns`.
        conflicting: Whether their labels differ.
        differs: Names of the facts in which the rows differ.
    """

    rows: list[int]
    facts: list[list[str]]
    conflicting: bool
    differs: list[str]


@dataclass(frozen=True)
class Thumbnail:
    """A small picture as a data URI, or why there is none."""

    uri: str = ""
    refusal: str = ""


def contact_sheets(kinds: pd.Series) -> list[Sheet]:
    """A sheet of at most 24 films for each kind, in the kinds' order.

    Every n-th film is taken, in the order of the table, from a seeded start.

    Args:
        kinds: Category of each row of the table; every category occurs.
    """
    rng = np.random.default_rng(0)
    sheets = []
    for kind in kinds.cat.categories:
        rows = np.flatnonzero(kinds == kind)
        chosen = rows
        if len(rows) > MOST_FILMS:
            step = len(rows) / MOST_FILMS
            chosen = rows[(rng.uniform(0, step) + step * np.arange(MOST_FILMS)).astype(int)]
        sheets.append(Sheet(str(kind), len(rows), chosen.tolist()))
    return sheets


def copy_groups(table: pd.DataFrame, manifest: Manifest) -> list[Copies]:
    """Groups of byte-identical files, those first whose labels or patients differ."""
    who = patient_columns(table, manifest)
    digests = table["image_sha256"].reset_index(drop=True)
    groups = []
    for _, members in digests.groupby(digests, sort=False):
        if len(members) < 2:
            continue
        rows = table.iloc[members.index]
        groups.append(
            Copies(
                rows=members.index.tolist(),
                facts=[
                    [
                        _fact(value, manifest.columns[name].kind)
                        for name, value in zip(who, row, strict=True)
                    ]
                    for row in rows[who].itertuples(index=False, name=None)
                ],
                conflicting=rows["label"].nunique() > 1,
                differs=[words(name) for name in who if rows[name].nunique() > 1],
            )
        )
    return sorted(groups, key=lambda group: (not group.conflicting, -len(group.differs)))


def patient_columns(table: pd.DataFrame, manifest: Manifest) -> list[str]:
    """Columns with the age and the sex, by what the manifest or their names say."""
    return [
        name
        for name, column in manifest.columns.items()
        if name in table and (column.dicom in ("age", "female") or name in _WHO)
    ]


def _fact(value: object, kind: str) -> str:
    if value is None or value != value:  # NaN
        return "missing"
    if kind in ("binary", "presence"):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def thumbnails(
    files: Mapping[int, Path], *, side: int = SIDE, progress: bool = False
) -> dict[int, Thumbnail]:
    """A small JPEG of each file, its longer side at most `side` pixels, under the file's key."""
    draw = functools.partial(_thumbnail, side=side)
    drawn = in_threads(draw, list(files.values()), "Drawing thumbnails", progress)
    return dict(zip(files, drawn, strict=True))


def _thumbnail(path: Path, side: int) -> Thumbnail:
    try:
        return Thumbnail(_data_uri(read_radiograph(path), side))
    except RadiographError as error:
        return Thumbnail(refusal=str(error))


def _data_uri(gray: Gray, side: int) -> str:
    scale = side / max(gray.shape)
    if scale < 1:
        size = (max(1, round(gray.shape[1] * scale)), max(1, round(gray.shape[0] * scale)))
        gray = cast("Gray", cv2.resize(gray, size, interpolation=cv2.INTER_AREA))
    _, encoded = cv2.imencode(".jpg", gray, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")
