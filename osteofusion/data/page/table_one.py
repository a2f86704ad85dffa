"""Table 1: who the subjects are, by class.

Without p values, as STROBE asks for: in a table of characteristics they test nothing that anyone
claimed. What separates the classes is said by the standardised mean difference instead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from osteofusion.data.manifest import Column, Manifest
from osteofusion.data.page.classes import NOTHING, classes, percent, words
from osteofusion.data.page.missing import applies

MOST_LEVELS = 10  # words of a categorical column with a line of their own


@dataclass(frozen=True)
class Line:
    """One line of Table 1: a name and one cell for all subjects, then one a class."""

    name: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Variable:
    """The lines of one column.

    Attributes:
        name: As read.
        unit: Unit of its numbers; empty where there is none.
        outcome: Whether it defines or follows the label.
        lines: Its summary, by class.
        difference: Standardised mean difference between normal and low BMD; empty for outcomes
            and where one side is missing.
    """

    name: str
    unit: str
    outcome: bool
    lines: tuple[Line, ...]
    difference: str


def shown_columns(table: pd.DataFrame, manifest: Manifest) -> dict[str, Column]:
    """The clinical columns that the page summarises: features, then outcomes; no free text."""
    found = {
        name: column
        for name, column in manifest.columns.items()
        if name in table and column.role in ("feature", "outcome") and column.kind != "text"
    }
    return dict(sorted(found.items(), key=lambda item: item[1].role == "outcome"))


def table_one(
    table: pd.DataFrame, manifest: Manifest, by: pd.Series | None = None
) -> list[Variable]:
    """Summarise every clinical column over all subjects and by class.

    Numbers: median [quartiles] and mean (SD), rounded to two digits of the SD (Cole, Arch Dis
    Child 2015). Binary columns and words: count (share of the known). Missing cells are counted
    among the subjects that the column applies to.

    Args:
        table: One row a subject.
        manifest: What the columns mean.
        by: Category of each row, such as its side of a split; default: its class.
    """
    kinds = classes(table) if by is None else by
    groups = [table, *(rows for _, rows in table.groupby(kinds, observed=True))]
    return [
        Variable(
            name=words(name),
            unit=column.unit or "",
            outcome=column.role == "outcome",
            lines=(
                *_lines([rows[name].dropna() for rows in groups], column),
                *_missing(groups, name, manifest),
            ),
            difference="" if column.role == "outcome" else _difference(table, name, column),
        )
        for name, column in shown_columns(table, manifest).items()
    ]


def standardised_difference(one: pd.Series, other: pd.Series, *, numeric: bool) -> float:
    """Absolute difference of the means in units of the pooled SD; of shares alike.

    For words the Mahalanobis distance between their shares, which for two words is the same
    formula (Yang and Dalton, SAS Global Forum 2012). NaN where a side has fewer than two values;
    infinite where the sides differ and neither varies.

    Args:
        one: Known values of one side: numbers, 0 and 1, or words.
        other: Those of the other side.
        numeric: Whether they are numbers.
    """
    if min(len(one), len(other)) < 2:
        return math.nan
    sides = [one, other]
    if numeric:
        means = [np.array([side.mean()]) for side in sides]
        spreads = [np.array([[side.var()]]) for side in sides]
    else:
        levels = sorted(set(one) | set(other))[1:]  # the shares sum to 1, so one is implied
        means = [np.array([(side == level).mean() for level in levels]) for side in sides]
        spreads = [np.diag(share) - np.outer(share, share) for share in means]
    gap, pooled = means[0] - means[1], (spreads[0] + spreads[1]) / 2
    if not (np.isfinite(gap).all() and np.isfinite(pooled).all()):  # numbers near overflow
        return math.nan
    return _distance(gap, pooled)


def _distance(gap: NDArray[np.float64], pooled: NDArray[np.float64]) -> float:
    solved = np.linalg.pinv(pooled) @ gap
    unexplained = np.linalg.norm(pooled @ solved - gap)
    if unexplained > 1e-6 * np.linalg.norm(gap):  # a gap in a direction without spread
        return math.inf
    return math.sqrt(max(float(gap @ solved), 0.0))


def _difference(table: pd.DataFrame, name: str, column: Column) -> str:
    normal = table["label"] == "normal"
    low = table["label"].notna() & ~normal
    sides = [table.loc[side, name].dropna() for side in (normal, low)]
    value = standardised_difference(*sides, numeric=column.kind == "numeric")
    return "" if math.isnan(value) else "∞" if math.isinf(value) else f"{value:.2f}"


def _lines(groups: list[pd.Series], column: Column) -> list[Line]:
    """Lines of one column; `groups` are its known values over all subjects, then by class."""
    if column.kind == "numeric":
        digits = _digits(groups[0])
        return [
            Line("median [quartiles]", tuple(_quartiles(known, digits) for known in groups)),
            Line("mean (SD)", tuple(_mean(known, digits) for known in groups)),
        ]
    if column.kind in ("binary", "presence"):
        return [Line("yes", tuple(_count(known == 1, known) for known in groups))]
    levels = groups[0].value_counts().index.tolist()
    lines = [
        Line(str(level), tuple(_count(known == level, known) for known in groups))
        for level in levels[:MOST_LEVELS]
    ]
    if rest := levels[MOST_LEVELS:]:
        name = f"any of {len(rest)} other words"
        lines.append(Line(name, tuple(_count(known.isin(rest), known) for known in groups)))
    return lines


def _missing(groups: list[pd.DataFrame], name: str, manifest: Manifest) -> list[Line]:
    cells, some = [], False
    for rows in groups:
        among = applies(rows, name, manifest)
        missing = int((rows[name].isna() & among).sum())
        of = int(among.sum())
        some |= missing > 0 or of < len(rows)
        cells.append(f"{missing} of {of}")
    return [Line("missing", tuple(cells))] if some else []


def _count(chosen: pd.Series, known: pd.Series) -> str:
    count = int(chosen.sum())
    return f"{count} ({percent(count, len(known), 1)})" if len(known) else NOTHING


def _digits(known: pd.Series) -> int:
    spread = known.std()
    if not 0 < spread < math.inf:
        return 1
    return int(np.clip(1 - math.floor(math.log10(spread)), 0, 4))


def _quartiles(known: pd.Series, digits: int) -> str:
    if known.empty:
        return NOTHING
    low, middle, high = (_number(float(known.quantile(q)), digits) for q in (0.25, 0.5, 0.75))
    return f"{middle} [{low} to {high}]"


def _mean(known: pd.Series, digits: int) -> str:
    if known.empty:
        return NOTHING
    spread = f" ({_number(known.std(), digits)})" if len(known) > 1 else ""
    return _number(known.mean(), digits) + spread


def _number(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}" if abs(value) < 1e9 else f"{value:.3g}"
    return text.replace("-", "\N{MINUS SIGN}")
