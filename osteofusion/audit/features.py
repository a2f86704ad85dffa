"""Clinical columns that predict the label almost perfectly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from osteofusion.audit.predictability import Reading, Target
from osteofusion.audit.sources import Collection
from osteofusion.data.checks import LEAK_AUROC
from osteofusion.evaluation.auroc import auroc_interval, clustered_auroc
from osteofusion.evaluation.metrics import Floats, Ints


@dataclass(frozen=True)
class FeatureReading:
    """How well one clinical column, or its gaps, separates one label from the rest.

    Attributes:
        column: Canonical name.
        what: ``value`` or ``missing``.
        role: ``feature`` or ``outcome``.
        label: The label.
        auroc: The larger of the AUROC and its mirror image. Of words, that of the label's share
            among the other folds' rows with the same word.
        low: Lower end of the 95 % interval.
        high: Upper end.
    """

    column: str
    what: str
    role: str
    label: str
    auroc: float
    low: float
    high: float

    @property
    def leaks(self) -> bool:
        """Whether a feature is the label under another name."""
        return self.role == "feature" and self.auroc >= LEAK_AUROC


@dataclass(frozen=True)
class FeatureReadings:
    """All columns.

    Attributes:
        columns: The best separation of each column, best first.
        together: All features in one small classifier, cross-validated: for orientation, since
            features are meant to predict.
        tests: Number of AUROCs that were looked at.
    """

    columns: list[FeatureReading]
    together: Reading
    tests: int


def read_features(collection: Collection, target: Target) -> FeatureReadings:
    """Look at every clinical column of a collection.

    Args:
        collection: With clinical columns.
        target: Its labels, and the folds of its groups.
    """
    best: list[FeatureReading] = []
    tests = 0
    for name, column in collection.columns.items():
        found = []
        if column.kind != "text" and target.reason is None:
            found = _read(name, column.role, collection.clinical[name], target)
        tests += len(found)
        best += sorted(found, key=lambda reading: -reading.auroc)[:1]
    features = [
        name
        for name, column in collection.columns.items()
        if column.role == "feature" and column.kind != "text"
    ]
    together = target.read("all features together", collection.clinical[features])
    return FeatureReadings(sorted(best, key=lambda r: -r.auroc), together, tests)


def _read(name: str, role: str, values: pd.Series, target: Target) -> list[FeatureReading]:
    values = values.iloc[target.rows].reset_index(drop=True)
    missing = values.isna().to_numpy()
    numeric = pd.api.types.is_numeric_dtype(values)
    found = []
    for code, label in enumerate(target.classes):
        positive = target.codes == code
        tried: list[tuple[str, Floats, Ints]] = [
            ("missing", missing.astype(np.float64), np.arange(len(values)))
        ]
        known = np.flatnonzero(~missing)
        scores = values.to_numpy(dtype=np.float64) if numeric else _shares(values, positive, target)
        tried.append(("value", scores[known], known))
        for what, shown, rows in tried:
            here = positive[rows]
            if not 5 <= here.sum() <= len(rows) - 5 or np.ptp(shown) == 0:
                continue
            groups = np.unique(target.groups[rows], return_inverse=True)[1]
            estimate = clustered_auroc(here, shown, groups)
            low, high, _ = auroc_interval([estimate])
            value = estimate.value
            if value < 0.5 and (numeric or what == "missing"):
                value, low, high = 1 - value, 1 - high, 1 - low
            found.append(FeatureReading(name, what, role, label, value, low, high))
    return found


def _shares(values: pd.Series, positive: np.ndarray, target: Target) -> Floats:
    """Share of the label among the training folds' rows with the same word."""
    scores = np.full(len(values), float(positive.mean()))
    for train, test in target.folds:
        share = pd.Series(positive[train]).groupby(values.iloc[train].to_numpy()).mean()
        scores[test] = values.iloc[test].map(share).fillna(positive[train].mean()).to_numpy()
    return scores
