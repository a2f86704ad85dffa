"""How well a small classifier reads a label from facts that should say nothing about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit, logit
from scipy.stats import norm, rankdata
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import StratifiedGroupKFold

from osteofusion.evaluation.auroc import (
    Z95,
    auroc_interval,
    clustered_auroc,
    newcombe_interval,
)
from osteofusion.evaluation.metrics import Floats, Ints

FOLDS = 5
# Training sets of two folds share most rows, so out-of-fold scores scatter more than DeLong's
# variance of independent rows says (by 1.3 in standard error where there is nothing to read, of
# 150 as of 600 rows); Nadeau and Bengio's (2003) correction for folds is 1.5.
_WIDER = float(np.sqrt(1 + FOLDS / (FOLDS - 1)))
_NEAR = 0.98  # beyond, the logit scale stretches without bound
_FEWEST = 2 * FOLDS  # groups of a class, so that every fold can hold two
_TREES = 100
_TREE_ROWS = 2000  # a tree of many more sees nothing new and takes long
_CATEGORIES = 20  # most frequent words of a column; the others are one


@dataclass(frozen=True)
class Reading:
    """Cross-validated AUROC of a target from some columns.

    Attributes:
        what: The columns, in words.
        auroc: AUROC; of three or more classes the mean of one against the rest. None where it
            could not be had.
        low: Lower end of the 95 % interval.
        high: Upper end.
        p: One-sided p-value of "no better than chance".
        rows: Rows it rests on.
        reason: Why there is no AUROC.
    """

    what: str
    auroc: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    rows: int = 0
    reason: str | None = None

    @property
    def chance(self) -> bool:
        """Whether the interval contains 0.5, or lies below."""
        return self.low is None or self.low <= 0.5


class Target:
    """A word for each row that should not be readable, and the folds to try it on.

    Rows of one group (subject, copies of one film) stay in one fold. Classes of fewer than ten
    groups are left out.

    Args:
        words: N words; None where unknown.
        groups: (N,) group codes.

    Attributes:
        classes: The classes that are predicted.
        left_out: Classes of too few groups.
        reason: Why nothing can be predicted; None where it can.
    """

    def __init__(self, words: Sequence[str | None], groups: Ints) -> None:
        series = pd.Series(list(words), dtype=object)
        by_class = pd.Series(groups).groupby(series.to_numpy()).nunique()
        self.classes = sorted(str(name) for name, n in by_class.items() if n >= _FEWEST)
        self.left_out = sorted(str(name) for name, n in by_class.items() if n < _FEWEST)
        self.reason = (
            f"needs two classes of at least {_FEWEST} subjects or films each"
            if len(self.classes) < 2
            else None
        )
        codes = {name: code for code, name in enumerate(self.classes)}
        self.rows: Ints = np.flatnonzero(series.isin(self.classes)).astype(np.int64)
        self.codes: Ints = np.array([codes[word] for word in series.iloc[self.rows]], np.int64)
        self.groups: Ints = np.unique(groups[self.rows], return_inverse=True)[1].astype(np.int64)
        self.folds: list[tuple[Ints, Ints]] = []
        if self.reason is None:
            splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
            self.folds = list(splitter.split(self.codes, self.codes, self.groups))

    def read(self, what: str, facts: pd.DataFrame) -> Reading:
        """Predict the target from columns of all N rows: floats, and words as objects.

        A random forest on one-hot words and numbers, missing values marked, with
        balanced class weights. The scores of a fold become ranks within that fold before they
        are pooled: the folds' models are differently offset, and pooled raw scores would fall
        below 0.5 where there is nothing to read. The interval is DeLong's, clustered by group, and
        1.5 times as wide on the logit scale.
        """
        if self.reason is not None:
            return Reading(what, reason=self.reason)
        facts = facts.iloc[self.rows]
        matrix = encode(facts)
        if not matrix.shape[1]:
            return Reading(what, rows=len(self.rows), reason="the same in every image")
        scores = np.full((len(self.rows), len(self.classes)), np.nan)
        for train, test in self.folds:
            seen = np.unique(self.codes[train])
            forest = RandomForestClassifier(
                _TREES,
                min_samples_leaf=3,
                class_weight="balanced",
                max_samples=min(1.0, _TREE_ROWS / len(train)),
                random_state=0,
            ).fit(matrix[train], self.codes[train])
            found = forest.predict_proba(matrix[test])
            for column, code in enumerate(seen):
                scores[test, code] = rankdata(found[:, column]) / (len(test) + 1)
        return self._judge(what, scores)

    def _judge(self, what: str, scores: Floats) -> Reading:
        codes = range(len(self.classes)) if len(self.classes) > 2 else (1,)
        estimates = [
            clustered_auroc(self.codes == code, scores[:, code], self.groups) for code in codes
        ]
        value = float(np.mean([estimate.value for estimate in estimates]))
        low, high, method = auroc_interval(estimates)
        if method == "delong" and 1 - _NEAR < value < _NEAR:
            ends = logit(value) + _WIDER * (logit([low, high]) - logit(value))
            low, high = expit(ends).tolist()
        else:  # no spread to widen, or none that the logit scale holds: fewer groups
            positive, negative = (
                max(1, int(min(estimate.clusters[side] for estimate in estimates) / _WIDER**2))
                for side in (0, 1)
            )
            low, high = newcombe_interval(value, positive, negative)
        return Reading(what, value, low, high, p_above_chance(value, low), len(self.rows))


def p_above_chance(value: float, low: float) -> float:
    """One-sided p-value of AUROC 0.5, from the lower end of a 95 % interval."""
    if value <= 0.5:
        return 1 - value
    if value >= _NEAR:
        return float(norm.sf(Z95 * (value - 0.5) / (value - low)))
    return float(norm.sf(Z95 * logit(value) / (logit(value) - logit(low))))


def holm(values: Sequence[float | None]) -> list[float | None]:
    """P-values adjusted for their number (Holm 1979); None stays None and does not count."""
    known = [i for i, value in enumerate(values) if value is not None]
    order = sorted(known, key=lambda i: values[i] or 0.0)
    adjusted: list[float | None] = [None] * len(values)
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * (values[i] or 0.0)))
        adjusted[i] = highest
    return adjusted


def encode(facts: pd.DataFrame) -> npt.NDArray[np.float32]:
    """(N, F) numbers: words one-hot, gaps filled with the median and marked; constants dropped.

    Words and medians are those of all rows given: they hold nothing of the target.
    """
    columns: list[npt.NDArray[np.float64]] = []
    for name in facts:
        values = facts[name]
        missing = values.isna().to_numpy()
        if pd.api.types.is_numeric_dtype(values):
            numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
            fill = float(np.median(numbers[~missing])) if (~missing).any() else 0.0
            columns.append(np.where(missing, fill, numbers))
        else:
            frequent = values.value_counts().index[:_CATEGORIES]
            columns += [(values == word).to_numpy(dtype=np.float64) for word in frequent]
        columns.append(missing.astype(np.float64))
    kept = [column for column in columns if np.ptp(column) > 0]
    return np.column_stack(kept).astype(np.float32) if kept else np.zeros((len(facts), 0), "f4")
