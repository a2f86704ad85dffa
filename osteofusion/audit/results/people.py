"""Sex and age as simple models read them in radiographs that they have not seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from osteofusion.audit.results.simple import FEWEST, FOLDS, grouped_folds, ranked, ridge_scores
from osteofusion.evaluation.metrics import Floats, Ints
from osteofusion.progress import shown

REPEATS = 5


@dataclass(frozen=True)
class Read:
    """Sex and age as read from the film by models that have not seen it, between 0 and 1.

    Attributes:
        sex: (n,) larger means more likely a woman; None where it could not be learnt.
        age: (n,) larger means older; None likewise.
        reasons: ``sex`` or ``age`` to why it could not be learnt.
    """

    sex: Floats | None
    age: Floats | None
    reasons: dict[str, str]


def read_people(
    table: pd.DataFrame, features: Floats, groups: Ints, *, progress: bool = False
) -> Read:
    """Read sex and age out of every radiograph, cross-validated by split group.

    Ridge regression on the image features, trained on the films of all classes; ranks within
    each fold, averaged over 5 repeats.

    Args:
        table: Cohort rows with ``label`` and, for what is to be read, ``female`` and ``age``.
        features: (n, D) image features.
        groups: (n,) codes of the split groups.
        progress: Show a progress bar.
    """
    label = table["label"].to_numpy(dtype=object)
    found: dict[str, Floats | None] = {"sex": None, "age": None}
    reasons: dict[str, str] = {}
    targets = {}
    for name, column in (("sex", "female"), ("age", "age")):
        values = numbers(table, column)
        reason = _unreadable(values, groups, name)
        if reason is None:
            targets[name], found[name] = values, np.zeros(len(table))
        else:
            reasons[name] = reason
    for seed in shown(range(REPEATS), REPEATS, "Reading sex and age from the films", progress):
        for name, values in targets.items():
            known = ~np.isnan(values)
            strata = _strata(label, values if name == "sex" else None)
            total = found[name]
            assert total is not None  # as its target
            for train, test in grouped_folds(strata, groups, seed):
                train = train[known[train]]
                weights = _balance(values[train]) if name == "sex" else None
                scores = ridge_scores(features[train], values[train, None], features[test], weights)
                total[test] += ranked(scores)[:, 0] / REPEATS
    return Read(found["sex"], found["age"], reasons)


def numbers(table: pd.DataFrame, column: str) -> Floats:
    """A column (n,), NaN where missing or where the cohort has no such column."""
    if column not in table:
        return np.full(len(table), np.nan)
    return table[column].to_numpy(dtype=np.float64, na_value=np.nan)


def _unreadable(values: Floats, groups: Ints, name: str) -> str | None:
    known = ~np.isnan(values)
    if not known.any():
        return f"the cohort has no {name}"
    if name == "age":
        count = len(np.unique(groups[known]))
        same = np.ptp(values[known]) == 0
        return "too few ages are known" if count < FEWEST or same else None
    sides = [len(np.unique(groups[values == code])) for code in (0, 1)]
    return "too few rows of either sex" if min(sides) < FEWEST else None


def _strata(label: npt.NDArray[np.object_], sex: Floats | None) -> Ints:
    """Class, and sex where it is read; what is rarer than the folds joins the largest."""
    words = pd.Series(label).astype(str) + ("" if sex is None else pd.Series(sex).astype(str))
    counts = words.value_counts()
    words = words.where(words.map(counts) >= FOLDS, counts.index[0])
    return pd.factorize(words)[0].astype(np.int64)


def _balance(codes: Floats) -> Floats:
    """Weights that make both sexes count equally."""
    share = np.where(codes == 1, (codes == 1).mean(), (codes == 0).mean())
    weights: Floats = 1 / (2 * share)
    return weights
