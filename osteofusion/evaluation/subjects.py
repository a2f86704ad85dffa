"""Several radiographs of a subject, one prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

Combine = Literal["mean", "max"]


def combine_subjects(
    predictions: pd.DataFrame, classes: Sequence[str], how: Combine
) -> pd.DataFrame:
    """One row a subject and arm in place of one a radiograph.

    A subject whose radiographs have different labels, such as two knees with a T-score each, keeps
    one row a label.

    Args:
        predictions: Table of one split, columns as in
            :func:`osteofusion.evaluation.predictions.read_rows`.
        classes: Class names in order of falling bone density.
        how: ``mean`` averages the probabilities; ``max`` takes those of the radiograph that looks
            worst to the arm, the one with the highest expected class.

    Returns:
        The same columns; `image` is the subject's first radiograph, so that arms can be compared.
    """
    keys = ["arm", "subject_id", "label"]
    values = predictions[[f"p_{name}" for name in classes]].to_numpy(dtype=np.float64)
    grouped = predictions.groupby(keys, sort=False)
    if how == "max":
        expected = pd.Series(values @ np.arange(len(classes)), index=predictions.index)
        worst = expected.groupby([predictions[key] for key in keys], sort=False).idxmax()
        return predictions.loc[worst].assign(image=grouped["image"].first().to_numpy())
    combined = grouped.first().reset_index()
    averaged = [f"{kind}_{name}" for kind in ("p", "raw") for name in classes]
    present = [name for name in averaged if name in predictions]
    combined[present] = grouped[present].mean().to_numpy()
    return combined[predictions.columns.tolist()]
