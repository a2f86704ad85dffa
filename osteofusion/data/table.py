"""Read a clinical spreadsheet as it stands: every cell, its row number, nothing interpreted."""

from __future__ import annotations

import csv
import re
import zipfile
from contextlib import closing
from itertools import chain, islice, product
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
_BLOCK = 100  # lines of text taken at once: what stays in the processor's cache
_KNOWN = 20_000  # of its cells that new ones are compared with, so that equal ones are one string


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
        cells = _without_blanks(_read_workbook(path, spec.sheet, legacy=suffix == ".xls"))
    elif suffix == ".parquet":
        cells = _without_blanks(_read_parquet(path))
    elif suffix in (".csv", ".tsv", ".txt"):
        cells = _read_text(path, spec, default="\t" if suffix == ".tsv" else ",")
    else:
        raise CohortError(
            f"Table {path} is neither xlsx, xls, csv, tsv nor parquet; save it as one of these."
        )
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
    kept = [i for i, has_name in enumerate(named) if has_name or cells.iloc[:, i].notna().any()]
    return cells.iloc[:, kept]


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


def distinct_cells(cells: pd.Series) -> tuple[np.ndarray, pd.Series]:
    """Which of the distinct cells stands in each row, and these, so that each is read once.

    Returns:
        (N,) positions, -1 where a cell is empty, and the distinct cells in order of appearance,
        indexed by the row in which each comes first.
    """
    keys = cells.to_numpy(dtype=object)
    if pd.api.types.infer_dtype(cells, skipna=True) != "string":
        # True, 1 and 1.0 are equal, and different words.
        shown = [None if cell is None else f"{type(cell).__name__} {cell}" for cell in keys]
        keys = np.array(shown, dtype=object)
    codes, distinct = pd.factorize(keys)
    first = np.empty(len(distinct), dtype=np.int64)
    known = np.flatnonzero(codes >= 0)[::-1]
    first[codes[known]] = known  # of several rows the one written last counts: the first
    return codes, cells.iloc[first]


def _without_blanks(cells: pd.DataFrame) -> pd.DataFrame:
    cells = cells.astype(object)
    return cells.where(cells.map(_has_content), None)


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


class _Cells(dict[str, str | None]):
    """Each cell as one string, however often it stands in a file; None for a blank one."""

    def __missing__(self, cell: str) -> str | None:
        self[cell] = cell if cell.strip() else None
        return self[cell]


def _read_text(path: Path, spec: Table, *, default: str) -> pd.DataFrame:
    delimiter = spec.delimiter or default
    columns: list[list[str | None]] = []
    surplus: tuple[int, int] | None = None
    width = 0
    try:
        with path.open(encoding=spec.encoding, newline="") as stream:
            reader = csv.reader(stream, delimiter=delimiter, strict=True)
            above: list[list[str]] = []
            while not width and (line := next(reader, None)) is not None:
                above.append(line)
                width = len(line) if any(line) else 0
            columns, known = [[] for _ in range(width)], _Cells()
            lines = enumerate(chain(above, reader), start=1)
            while block := list(islice(lines, _BLOCK)):
                fitted = []
                for row, line in block:
                    if len(line) != width:
                        if any(line[width:]):
                            surplus = surplus or (row, len(line))
                        line = [*line[:width], *[""] * (width - len(line))]
                    fitted.append(line)
                if len(known) > _KNOWN:
                    known.clear()
                for column, cells in zip(columns, zip(*fitted, strict=True), strict=True):
                    column += map(known.__getitem__, cells)
    except (UnicodeError, LookupError):
        raise CohortError(
            f"Table {path} is not in encoding {spec.encoding!r}; set table.encoding in the "
            "manifest (for example cp1252)."
        ) from None
    except csv.Error as error:
        raise CohortError(
            f"Table {path} is no table with {delimiter!r} between cells ({error}); export it again."
        ) from None
    if surplus is not None:
        raise CohortError(
            f"Table {path}, row {surplus[0]} has {surplus[1]} cells, its header {width}; quote "
            f"cells that hold {delimiter!r}, or set table.delimiter in the manifest."
        )
    return pd.DataFrame(dict(enumerate(columns)), dtype=object)
