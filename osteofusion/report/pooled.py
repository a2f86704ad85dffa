"""Test rows as the figures show them: one row a radiograph, all arms beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from osteofusion.evaluation.metrics import Floats, Ints

KEY = ["subject_id", "image"]


@dataclass(frozen=True)
class Pooled:
    """Probabilities averaged over seeds and repeats, the folds pooled; row i is one radiograph.

    Attributes:
        rows: `subject_id, image, group, label` of each.
        labels: (n,) class codes.
        groups: (n,) codes of the split groups.
        p: Arm to (n, C) calibrated probabilities.
        raw: Arm to (n, C) probabilities as the models say them.
        left_out: Radiographs that some arm was not asked about.
    """

    rows: pd.DataFrame
    labels: Ints
    groups: Ints
    p: dict[str, Floats]
    raw: dict[str, Floats]
    left_out: int

    @property
    def positive(self) -> npt.NDArray[np.bool_]:
        """(n,) true for every class but the first."""
        return self.labels > 0

    def scores(self, arms: Sequence[str], kind: str = "p") -> dict[str, Floats]:
        """Arm to (n,) probability of every class but the first; unknown arms are left out."""
        found = self.p if kind == "p" else self.raw
        return {arm: found[arm][:, 1:].sum(axis=1) for arm in arms if arm in found}


def pool(predictions: pd.DataFrame, classes: Sequence[str]) -> Pooled:
    """Pool the test rows of one variant."""
    names = [f"{kind}_{name}" for kind in ("p", "raw") for name in classes]
    table = predictions.assign(image=predictions["image"].fillna(""))
    facts = table.groupby(KEY, sort=True)[["group", "label"]].first()
    means = {
        str(arm): rows.groupby(KEY, sort=True)[names].mean() for arm, rows in table.groupby("arm")
    }
    common = facts.index
    for rows in means.values():
        common = common[common.isin(rows.index)]
    facts = facts.loc[common]
    codes = {name: code for code, name in enumerate(classes)}
    width = len(classes)
    values = {arm: rows.loc[common].to_numpy(np.float64) for arm, rows in means.items()}
    return Pooled(
        rows=facts.reset_index(),
        labels=np.array([codes[label] for label in facts["label"]], dtype=np.int64),
        groups=pd.factorize(facts["group"])[0].astype(np.int64),
        p={arm: value[:, :width] for arm, value in values.items()},
        raw={arm: value[:, width:] for arm, value in values.items()},
        left_out=table[KEY].drop_duplicates().shape[0] - len(facts),
    )
