"""Read a table nobody has described yet: its sheet, encoding, delimiter and decimal mark."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from osteofusion.data.drafting.ids import match_ids
from osteofusion.data.drafting.text import sniff_decimal, sniff_text
from osteofusion.data.drafting.words import shown
from osteofusion.data.manifest import Table
from osteofusion.data.table import read_table
from osteofusion.errors import CohortError

_TEXT = (".csv", ".tsv", ".txt")
_BOOKS = (".xlsx", ".xlsm", ".xls")


@dataclass
class ReadTable:
    """A table, and how it was read.

    Attributes:
        raw: Every cell, as `read_table` returns it.
        options: Keys of the manifest's `table` that differ from their defaults.
        comments: The evidence, by key.
        decimal: Decimal mark of numbers that are text.
    """

    raw: pd.DataFrame
    options: dict[str, Any] = field(default_factory=dict)
    comments: dict[str, list[str]] = field(default_factory=dict)
    decimal: str = "."


def look_at_table(path: Path, stems: Sequence[str]) -> ReadTable:
    """Read a table; of several sheets the one whose IDs meet most file names.

    Args:
        path: The table.
        stems: Names of the radiographs without suffix; empty where there are none.

    Raises:
        CohortError: it cannot be read, or its first row is a title and no header.
    """
    suffix = path.suffix.lower()
    if suffix in _TEXT and path.is_file():
        found = _from_text(path)
    elif suffix in _BOOKS and path.is_file():
        found = _from_workbook(path, stems)
    else:
        found = ReadTable(read_table(path, Table(file=path.name, id="-")))
    unnamed = [name for name in found.raw.columns if str(name).startswith("(column ")]
    if len(found.raw.columns) - len(unnamed) == 1 and len(unnamed) > 1:
        _refuse_title(path, found.raw.columns[0])
    mark, others = sniff_decimal(found.raw)
    found.decimal = mark
    if mark == ",":
        found.options["decimal"] = mark
        if others:
            found.comments["decimal"] = [f"{others} cells have a decimal point all the same"]
    return found


def _from_text(path: Path) -> ReadTable:
    form = sniff_text(path)
    options: dict[str, Any] = {}
    if form.delimiter != ("\t" if path.suffix.lower() == ".tsv" else ","):
        options["delimiter"] = form.delimiter
    if form.encoding != "utf-8-sig":
        options["encoding"] = form.encoding
    with path.open(encoding=form.encoding, errors="replace", newline="") as stream:
        try:
            widths = [
                sum(bool(cell.strip()) for cell in line)
                for line in csv.reader(stream, delimiter=form.delimiter)
            ]
        except csv.Error:
            widths = []  # read_table says what is wrong
    filled = [width for width in widths if width]
    if len(filled) > 2 and filled[0] == 1 and max(filled) > 2:
        _refuse_title(path, "")
    return ReadTable(read_table(path, Table(file=path.name, id="-", **options)), options)


def _from_workbook(path: Path, stems: Sequence[str]) -> ReadTable:
    states = _sheets(path)
    if len(states) == 1:
        return ReadTable(read_table(path, Table(file=path.name, id="-")))
    read: dict[str, pd.DataFrame] = {}
    for name in states:
        try:
            read[name] = read_table(path, Table(file=path.name, id="-", sheet=name))
        except CohortError:  # an empty sheet; if all are, the first says so below
            continue
    if not read:
        return ReadTable(read_table(path, Table(file=path.name, id="-")))

    def worth(name: str) -> tuple[int, bool, int]:
        match = match_ids(read[name], stems) if stems else None
        return match.images if match else 0, not states[name], read[name].size

    chosen = max(read, key=worth)
    met = worth(chosen)[0]
    told = [f"of the sheets {shown(list(states), 6)}"]
    if stems:
        told.append(f"{met} of {len(stems)} file names match here")
    hidden = [name for name, is_hidden in states.items() if is_hidden]
    if hidden:
        told.append(f"hidden: {shown(hidden)}")
    return ReadTable(read[chosen], {"sheet": chosen}, {"sheet": told})


def _sheets(path: Path) -> dict[str, bool]:
    """Names of the sheets with cells, and whether each is hidden; the first is "" unreadable."""
    try:
        if path.suffix.lower() == ".xls":
            with pd.ExcelFile(path) as book:
                return {sheet.name: bool(sheet.visibility) for sheet in book.book.sheets()}
        import openpyxl

        with closing(openpyxl.load_workbook(path, read_only=True)) as book:
            return {sheet.title: sheet.sheet_state != "visible" for sheet in book.worksheets}
    except Exception:  # damaged files raise almost anything; read_table says it in a sentence
        return {"": False}


def _refuse_title(path: Path, title: str) -> None:
    named = f", {title!r}," if title else ""
    raise CohortError(
        f"Table {path}: its first row{named} is a title and no header; delete the rows above the "
        "one that names the columns, and save it again."
    )
