"""The cells of one column, read in each way that a manifest could read them."""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from osteofusion.data.clinical import CellProblem, parse_column
from osteofusion.data.manifest import Column

_DATE = re.compile(r"\d{1,4}([./-])\d{1,2}\1\d{1,4}([ T]\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?)?")


@dataclass(frozen=True)
class Profile:
    """The cells of one column that say something.

    Attributes:
        header: As in the file.
        cells: Cells that are not empty, indexed by spreadsheet row.
        rows: How many rows the table has.
        decimal: Decimal mark of numbers that are text.
    """

    header: str
    cells: pd.Series
    rows: int
    decimal: str

    @cached_property
    def words(self) -> pd.Series:
        """Each cell as a word, without those that say "unknown"."""
        signs = {"-": "-"} if "+" in set(map(str, self.cells)) else {}
        return self.parse(Column(kind="categorical", values=dict(signs)))[0].dropna()

    @cached_property
    def numbers(self) -> tuple[pd.Series, list[CellProblem]]:
        """The numbers, and the cells that are none."""
        values, problems = self.parse(Column(kind="numeric"))
        return values.dropna(), problems

    @cached_property
    def counts(self) -> dict[str, int]:
        """How often each word stands there, the commonest first."""
        return dict(Counter(self.words).most_common())

    @cached_property
    def dates(self) -> list[int]:
        """Rows whose cell is a date."""
        return [int(str(row)) for row, cell in self.cells.items() if is_date(cell)]

    def parse(self, column: Column) -> tuple[pd.Series, list[CellProblem]]:
        """Each cell as `column` reads it, and the cells that it cannot read."""
        rows = self.cells.index.to_series()
        values, problems, _ = parse_column(self.cells, rows, self.header, column, self.decimal)
        return values, problems

    def share(self, words: Iterable[str]) -> float:
        """Share of the cells whose word is among `words`."""
        known = sum(self.counts.values())
        return sum(self.counts.get(word, 0) for word in words) / known if known else 0.0


@dataclass
class ColumnDraft:
    """One entry of a manifest's `columns`.

    Attributes:
        profile: The column's cells.
        name: Canonical name.
        entry: Keys and values of the entry.
        comments: The evidence, a sentence each.
    """

    profile: Profile
    name: str
    entry: dict[str, Any]
    comments: list[str] = field(default_factory=list)

    @property
    def role(self) -> str:
        """The drafted role."""
        return str(self.entry.get("role", "feature"))


def is_date(cell: object) -> bool:
    """Whether a cell is a date or time, or text that looks like one."""
    if isinstance(cell, (datetime.date, datetime.time, np.datetime64)):
        return True
    return isinstance(cell, str) and _DATE.fullmatch(cell.strip()) is not None
