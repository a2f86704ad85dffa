"""Classes, names and shares as the page shows them."""

from __future__ import annotations

import pandas as pd

from osteofusion.data.manifest import LABELS

UNLABELLED = "unlabelled"
NOTHING = "\N{EN DASH}"  # where there is nothing to count or average
# Okabe and Ito (2008), as the figures of evaluated runs: told apart with any colour vision.
COLOURS = dict(
    zip((*LABELS, UNLABELLED), ("#0072B2", "#E69F00", "#D55E00", "#999999"), strict=True)
)


def classes(table: pd.DataFrame) -> pd.Series:
    """The class of each row, as an ordered category of the classes that occur."""
    named = table["label"].astype(object).where(table["label"].notna(), UNLABELLED)
    present = [name for name in COLOURS if (named == name).any()]
    return named.astype(pd.CategoricalDtype(present, ordered=True))


def subjects(table: pd.DataFrame) -> pd.DataFrame:
    """One row a subject and class: the first known value of each column."""
    keys = [table["subject_id"].rename("subject"), classes(table).astype(str).rename("class")]
    return table.groupby(keys, sort=False).first().reset_index(drop=True)


def words(name: str) -> str:
    """A canonical name as read."""
    return name.replace("low_bmd", "low BMD").replace("_", " ")


def percent(count: int, of: int, digits: int = 0) -> str:
    """A share, with an en dash where there is nothing to have a share of."""
    return f"{100 * count / of:.{digits}f} %" if of else NOTHING
