"""AUROCs of an arm: within each test fold, since folds score on different scales, then averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from osteofusion.evaluation.auroc import (
    ClusteredAuroc,
    auroc_interval,
    clustered_auroc,
    mean_auroc,
)
from osteofusion.evaluation.metrics import Estimate, Floats, auroc_targets, metric_names
from osteofusion.evaluation.predictions import TestRows


@dataclass(frozen=True)
class Area:
    """One AUROC of an arm over all test folds.

    Attributes:
        means: Means over the folds on common clusters; one, or one a class of a macro average.
        n: Radiographs of the folds it rests on.
        ranks: Ranks of the scores within each fold; arms that order all rows alike share them.
        constant: Whether every row of a fold has the same score, in every fold.
    """

    means: list[ClusteredAuroc]
    n: int
    ranks: list[Floats]
    constant: bool

    @property
    def value(self) -> float:
        """The AUROC."""
        return float(np.mean([mean.value for mean in self.means]))

    def estimate(self) -> Estimate:
        """The AUROC with its 95 % interval."""
        if self.constant:
            reason = "every row has the same probability"
            return Estimate(self.value, self.n, self.value, self.value, "constant", reason)
        low, high, method = auroc_interval(self.means)
        return Estimate(self.value, self.n, low, high, method)


def areas_of(rows: TestRows, arm: str, classes: Sequence[str]) -> dict[str, Area]:
    """Every AUROC of an arm by metric name; one is left out where no fold has rows of both kinds.

    A fold that lacks a kind is left out of the AUROCs that need it, which
    :func:`osteofusion.evaluation.notes.fold_notes` says.
    """
    names = [name for name in metric_names(classes) if "auroc" in name and name != "macro_auroc"]
    found = {name: area for name in names if (area := _area(rows, arm, name, classes)) is not None}
    of_classes = [found.get(f"auroc_{name}") for name in classes]
    known = [area for area in of_classes if area is not None]
    if len(classes) > 2 and len(known) == len(classes):
        found["macro_auroc"] = Area(
            means=[area.means[0] for area in known],
            n=max(area.n for area in known),
            ranks=[ranks for area in known for ranks in area.ranks],
            constant=all(area.constant for area in known),
        )
    return found


def _area(rows: TestRows, arm: str, name: str, classes: Sequence[str]) -> Area | None:
    size = int(rows.groups.max()) + 1
    found, ranks, used = [], [], []
    constant = True
    for fold in rows.folds:
        labels = rows.labels[fold.rows]
        positive, scores = auroc_targets(labels, fold.probabilities[arm], name, classes)
        if positive.all() or not positive.any():
            continue
        found.append(clustered_auroc(positive, scores, rows.groups[fold.rows], size))
        ranks.append(rankdata(scores))
        used.append(fold.rows)
        constant &= bool(np.ptp(scores) == 0)
    if not found:
        return None
    chosen = np.unique(np.concatenate(used))
    positive, _ = auroc_targets(rows.labels, rows.probabilities[arm], name, classes)
    counts = [
        len(np.unique(rows.groups[chosen[positive[chosen] == kind]])) for kind in (True, False)
    ]
    mean = found[0] if len(rows.folds) == 1 else mean_auroc(found, (counts[0], counts[1]))
    return Area([mean], len(chosen), ranks, constant)
