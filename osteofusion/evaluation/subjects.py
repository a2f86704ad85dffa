"""Several radiographs of a subject, one prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

Combine = Literal["mean", "max"]

_SAME_RUN = ("variant", "repeat", "fold", "seed")


def combine_subjects(
    predictions: pd.DataFrame, classes: Sequence[str], how: Combine
) -> pd.DataFrame:
    """One row a subject, arm, fold, repeat and seed in place of one a radiograph.

    A subject whose radiographs have different labels, such as two knees with a T-score each, keeps
    one row a label.

    Args:
        predictions: Table of one split, columns as in
            :func:`osteofusion.evaluation.predictions.read_rows`.
        classes: Class names in order of falling bone density.
        how: ``mean`` averages the probabilities; ``max`` takes those of the radiograph that looks
            worst to the arm, the one with the highest expected class.

    Returns:
        The same columns; `image` is the first radiograph of the subject by name, so that arms and
        folds can be compared.
    """
    keys = [key for key in _SAME_RUN if key in predictions] + ["arm", "subject_id", "label"]
    values = predictions[[f"p_{name}" for name in classes]].to_numpy(dtype=np.float64)
    grouped = predictions.groupby(keys, sort=False, dropna=False)
    if how == "max":
        expected = pd.Series(values @ np.arange(len(classes)), index=predictions.index)
        by = [predictions[key] for key in keys]
        worst = expected.groupby(by, sort=False, dropna=False).idxmax()
        return predictions.loc[worst].assign(image=grouped["image"].min().to_numpy())
    combined = grouped.first().assign(image=grouped["image"].min()).reset_index()
    averaged = [f"{kind}_{name}" for kind in ("p", "raw") for name in classes]
    present = [name for name in averaged if name in predictions]
    combined[present] = grouped[present].mean().to_numpy()
    return combined[predictions.columns.tolist()]
