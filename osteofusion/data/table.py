"""Read a clinical spreadsheet as it stands: every cell, its row number, nothing interpreted."""

from __future__ import annotations

import csv
import re
import zipfile
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from osteofusion.data.manifest import Table, normalise_header
from osteofusion.errors import CohortError

_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_NO_VALUE = re.compile(  # an error such as #DIV/0!, or a formula whose value was never stored
    rb"""\st=["']e["']|<f[^>]*?(?:/>|>[^<]*</f>)\s*(?:<v\s*/>|<v></v>|</c>)"""
)
ROW = "row"


def read_table(path: Path, spec: Table) -> pd.DataFrame:
    """All rows with any content, headers as in the file, cells as objects (None where empty).

    The index, named ``row``, is the row number a spreadsheet program shows, for messages. A column
    with content and no header is called "(column 3)" by its place.

    Raises:
        CohortError: the file is missing, damaged, password-protected, empty, or lacks the sheet.
    """
    if not path.is_file():
        raise CohortError(
            f"Table {path} does not exist; put it there or change table.file in the manifest."
        )
    suffix = path.suffix.lower()
    if suffix in (".xlsx", ".xlsm", ".xls"):
        cells = _read_workbook(path, spec.sheet, legacy=suffix == ".xls")
    elif suffix == ".parquet":
        cells = _read_parquet(path)
    elif suffix in (".csv", ".tsv", ".txt"):
        cells = _read_text(path, spec, default="\t" if suffix == ".tsv" else ",")
    else:
        raise CohortError(
            f"Table {path} is neither xlsx, xls, csv, tsv nor parquet; save it as one of these."
        )
    cells = cells.astype(object)
    cells = cells.where(cells.map(_has_content), None)
    cells.index = pd.RangeIndex(1, len(cells) + 1, name=ROW)
    cells = cells[cells.notna().any(axis=1)]
    if len(cells) < 2:
        raise CohortError(
            f"Table {path} has no rows below a header; export it again or choose the right sheet."
        )
    header = [
        str(name) if name is not None else f"(column {place})"
        for place, name in enumerate(cells.iloc[0], start=1)
    ]
    named = cells.iloc[0].notna()
    cells = cells.iloc[1:].set_axis(header, axis=1)
    return cells.loc[:, (named | cells.notna().any(axis=0).to_numpy()).to_numpy()]


def find_column(table: pd.DataFrame, headers: list[str], path: Path, what: str) -> str | None:
    """The table's own header that matches one of `headers`; None when there is none.

    Case, repeated spaces and trailing punctuation are forgiven.

    Raises:
        CohortError: two columns of the table match.
    """
    wanted = {normalise_header(header) for header in headers}
    found = [name for name in table.columns if normalise_header(name) in wanted]
    if len(found) > 1 or (found and list(table.columns).count(found[0]) > 1):
        raise CohortError(
            f"Table {path} has several columns that could be {what}: "
            f"{', '.join(map(repr, found))}; name one of them in the manifest."
        )
    return found[0] if found else None


def need_column(table: pd.DataFrame, headers: list[str], path: Path, what: str) -> str:
    """As :func:`find_column`, and an error that lists the table's headers when there is none."""
    found = find_column(table, headers, path, what)
    if found is None:
        raise CohortError(
            f"Table {path} has no {what} {headers[0]!r}; it has "
            f"{', '.join(repr(str(name)) for name in table.columns)}: correct the manifest."
        )
    return found


def _has_content(cell: object) -> bool:
    if cell is None or cell is pd.NaT or cell is pd.NA:
        return False
    if isinstance(cell, float):
        return not np.isnan(cell)
    return not isinstance(cell, str) or bool(cell.strip())


def _read_workbook(path: Path, sheet: str | None, *, legacy: bool) -> pd.DataFrame:
    with path.open("rb") as stream:
        magic = stream.read(8)
    if magic == _OLE and not legacy:
        raise CohortError(
            f"Workbook {path} is password-protected or an old .xls under a new name; "
            "save it as an unprotected .xlsx."
        )
    try:
        with pd.ExcelFile(path) as book:
            if sheet is not None and sheet not in book.sheet_names:
                raise CohortError(
                    f"Workbook {path} has no sheet {sheet!r}; it has "
                    f"{', '.join(repr(str(name)) for name in book.sheet_names)}: "
                    "correct table.sheet in the manifest."
                )
            chosen = sheet if sheet is not None else str(book.sheet_names[0])
            cells = book.parse(chosen, header=None, keep_default_na=False, na_values=[""])
            cells = cells.astype(object)
            if not zipfile.is_zipfile(path):
                _show_errors(cells, book.book.sheet_by_name(chosen))
            elif _has_no_value(path):
                _show_formulas(cells, path, chosen)
    except ImportError:
        raise CohortError(
            f"Reading {path} needs the package xlrd: pip install 'osteofusion[tables]'."
        ) from None
    except CohortError:
        raise
    except Exception as error:  # parsers of damaged zip and XML raise almost anything
        raise CohortError(
            f"Workbook {path} cannot be read, it is damaged or no workbook "
            f"({type(error).__name__}); open it in a spreadsheet program and save it again."
        ) from None
    return cells


def _has_no_value(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any(
            _NO_VALUE.search(archive.read(name))
            for name in archive.namelist()
            if name.startswith("xl/worksheets/") and name.endswith(".xml")
        )


def _show_formulas(cells: pd.DataFrame, path: Path, sheet: str) -> None:
    """Put the formula or error where pandas found no value, so that it counts as unparsable."""
    import openpyxl

    with closing(openpyxl.load_workbook(path, read_only=True)) as book:
        for i, row in enumerate(book[sheet].iter_rows(max_row=len(cells), max_col=cells.shape[1])):
            for j, cell in enumerate(row):
                if cell.data_type in ("f", "e") and not _has_content(cells.iat[i, j]):
                    cells.iat[i, j] = str(cell.value)


def _show_errors(cells: pd.DataFrame, sheet: Any) -> None:
    """The same for xlrd, whose type code 5 is an error and whose formulas hold their value."""
    for i, j in product(range(len(cells)), range(cells.shape[1])):
        if sheet.cell_type(i, j) == 5:
            cells.iat[i, j] = "#ERROR"


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        frame = pd.read_parquet(path)
    except ImportError:
        raise CohortError(
            f"Reading {path} needs the package pyarrow: pip install 'osteofusion[tables]'."
        ) from None
    except (OSError, ValueError) as error:
        raise CohortError(f"Table {path} is no readable parquet file ({error}).") from None
    header = pd.DataFrame([list(frame.columns)], columns=range(frame.shape[1]))
    return pd.concat([header, frame.astype(object).set_axis(range(frame.shape[1]), axis=1)])


def _read_text(path: Path, spec: Table, *, default: str) -> pd.DataFrame:
    delimiter = spec.delimiter or default
    try:
        with path.open(encoding=spec.encoding, newline="") as stream:
            lines = list(csv.reader(stream, delimiter=delimiter, strict=True))
    except (UnicodeError, LookupError):
        raise CohortError(
            f"Table {path} is not in encoding {spec.encoding!r}; set table.encoding in the "
            "manifest (for example cp1252)."
        ) from None
    except csv.Error as error:
        raise CohortError(
            f"Table {path} is no table with {delimiter!r} between cells ({error}); export it again."
        ) from None
    width = next((len(line) for line in lines if any(line)), 0)
    for row, line in enumerate(lines, start=1):
        if any(line[width:]):
            raise CohortError(
                f"Table {path}, row {row} has {len(line)} cells, its header {width}; quote cells "
                f"that hold {delimiter!r}, or set table.delimiter in the manifest."
            )
    return pd.DataFrame([line[:width] for line in lines], columns=range(width), dtype=object)
