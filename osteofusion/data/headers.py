"""What DICOM headers add to the clinical rows of a cohort."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from osteofusion.data.clinical import CellProblem, parse_column
from osteofusion.data.dicom import DicomFacts, read_dicom_facts, require_pydicom
from osteofusion.data.manifest import Column, Manifest
from osteofusion.data.radiograph import is_dicom
from osteofusion.data.report import JoinReport
from osteofusion.errors import RadiographError
from osteofusion.progress import in_threads

_SAME_AGE = 1.0  # years; a table may hold the age at another visit of the same year


def read_headers(files: Sequence[Path], *, progress: bool = False) -> list[DicomFacts | None]:
    """Facts in the headers of files, in their order; no pixels are read.

    None stands for a file that is not DICOM, and for one whose header is damaged: what is wrong
    with it is told by whoever reads its pixels.

    Args:
        files: Image files of any kind.
        progress: Show a progress bar on standard error.

    Raises:
        RadiographError: a file is DICOM and pydicom is not installed.
    """

    def read(path: Path) -> DicomFacts | None:
        if not is_dicom(path):
            return None
        require_pydicom(path)
        try:
            return read_dicom_facts(path)
        except RadiographError:
            return None

    return list(in_threads(read, files, "Reading DICOM headers", progress))


def fill_from_headers(
    joined: pd.DataFrame,
    manifest: Manifest,
    facts: Sequence[DicomFacts | None],
    report: JoinReport,
) -> pd.DataFrame:
    """The rows with empty cells of the manifest's `dicom` columns filled from the headers.

    The table goes before the header. A column that the table lacks appears when a header has it.
    Values outside a column's range count as missing. Sexes that differ, ages that differ by more
    than a year and words that differ go to the report's `header_conflicts`, without the values.

    Args:
        joined: One row a radiograph, with `subject_id`, `image` and clinical columns.
        manifest: Its columns say which fact fills them.
        facts: One a row, from :func:`read_headers`.
        report: Takes counts, conflicts and implausible values.
    """
    joined = joined.copy()
    for name, column in manifest.columns.items():
        if column.dicom is None:
            continue
        read = _column(joined, name, column, facts, report)
        if name in joined:
            _compare(joined, name, column, read, report)
            empty = joined[name].isna() & read.notna()
            joined[name] = joined[name].where(~empty, read)
        elif read.notna().any():
            empty = read.notna()
            joined[name] = read
            report.absent_columns = [other for other in report.absent_columns if other != name]
        else:
            continue
        if empty.any():
            report.filled_from_headers[name] = int(empty.sum())
    clinical = [name for name in manifest.columns if name in joined]
    return joined[[*(name for name in joined if name not in clinical), *clinical]]


def _column(
    joined: pd.DataFrame,
    name: str,
    column: Column,
    facts: Sequence[DicomFacts | None],
    report: JoinReport,
) -> pd.Series:
    """The headers' values of one column, as the table's own are parsed, with joined's index."""
    cells: list[Any] = [
        None if fact is None else getattr(fact, str(column.dicom)) for fact in facts
    ]
    # The header has years and 1 for female, whatever unit and words the table has.
    spelt = {} if column.kind == "binary" else column.values
    plain = column.model_copy(update={"scale": 1.0, "values": spelt})
    values, unparsable, implausible = parse_column(
        pd.Series(cells, dtype=object), joined["subject_id"], name, plain
    )
    report.unparsable_cells += map(_without_row, unparsable)
    report.implausible_cells += map(_without_row, implausible)
    return values.set_axis(joined.index)


def _without_row(problem: CellProblem) -> CellProblem:
    return dataclasses.replace(problem, row=0)


def _compare(
    joined: pd.DataFrame, name: str, column: Column, read: pd.Series, report: JoinReport
) -> None:
    both = joined[name].notna() & read.notna()
    if column.kind == "numeric":
        differs = both & ((joined[name] - read).abs() > _SAME_AGE)
        why = f"{name} differs by more than a year"
    else:
        differs = both & (joined[name] != read)
        why = f"{name} differs"
    for image in joined.loc[differs, "image"]:
        report.header_conflicts.append({"image": image, "column": name, "why": why})
