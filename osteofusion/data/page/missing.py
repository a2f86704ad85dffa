"""What is missing, and whether it is missing more often in one class than in another."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from osteofusion.data.manifest import Manifest
from osteofusion.data.page.classes import classes, percent, words

UNEVEN = 10  # percentage points between two classes from which a column is pointed out


@dataclass(frozen=True)
class Missing:
    """Missing cells of one column, among the subjects that it applies to.

    Attributes:
        name: As read.
        cells: Count and share over all subjects, then by class.
        gap: Percentage points between the classes with the highest and the lowest share.
    """

    name: str
    cells: tuple[str, ...]
    gap: float

    @property
    def uneven(self) -> bool:
        """Whether the classes differ so much that a model may read the label off the gaps."""
        return self.gap >= UNEVEN


def applies(table: pd.DataFrame, name: str, manifest: Manifest) -> pd.Series:
    """Whether a column makes sense for each row, by the manifest's `only_if`."""
    among = pd.Series(True, index=table.index)
    for other, wanted in manifest.columns[name].only_if.items():
        if other in table:
            among &= table[other].isna() | (table[other] == wanted)
    return among


def missing_by_class(table: pd.DataFrame, names: list[str], manifest: Manifest) -> list[Missing]:
    """The columns with missing cells, those first whose shares differ most between classes."""
    groups = [table, *(rows for _, rows in table.groupby(classes(table), observed=True))]
    found = []
    for name in names:
        cells, shares = [], []
        for rows in groups:
            among = rows.loc[applies(rows, name, manifest), name]
            count = int(among.isna().sum())
            cells.append(f"{count} of {len(among)} ({percent(count, len(among))})")
            shares.append(100 * count / len(among) if len(among) else None)
        known = [share for share in shares[1:] if share is not None]
        if shares[0]:
            found.append(Missing(words(name), tuple(cells), max(known) - min(known)))
    return sorted(found, key=lambda item: -item.gap)
