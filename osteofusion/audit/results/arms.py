"""Test predictions of a study or run, lined up with the cohort's rows, folds on one scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import logit

from osteofusion.audit.results.estimates import Bools
from osteofusion.errors import EvaluationError
from osteofusion.evaluation.metrics import Floats, Ints

TRAINED = ("fused", "image", "tabular")
_SURE = 1e-6  # probabilities are kept this far from 0 and 1


@dataclass(frozen=True)
class Arms:
    """The arms on the test rows that all of them have; row i is the same radiograph everywhere.

    Attributes:
        rows: (m,) positions in the cohort's table.
        positive: (m,) true for all classes but the first.
        scores: Arm to (m,) log-odds of the positive side, standardised within each fold and
            averaged over repeats, since models of different folds score on different scales.
        probabilities: Arm to (m,) probability of the positive side, averaged over repeats.
    """

    rows: Ints
    positive: Bools
    scores: dict[str, Floats]
    probabilities: dict[str, Floats]


def read_arms(predictions: pd.DataFrame, table: pd.DataFrame, classes: Sequence[str]) -> Arms:
    """Trained arms of a predictions table.

    Args:
        predictions: Columns ``subject_id, image, split, fold, repeat, arm, seed, label,
            p_<class>``; only test rows are read.
        table: The cohort.
        classes: Class names of the task; for three the positive side is low BMD.

    Raises:
        EvaluationError: there are several variants, no test rows of a trained arm, or rows that
            are not in the cohort.
    """
    if "variant" in predictions and predictions["variant"].nunique() > 1:
        raise EvaluationError(
            f"The predictions table mixes {predictions['variant'].nunique()} variants; audit one "
            "at a time."
        )
    test = predictions[(predictions["split"] == "test") & predictions["arm"].isin(TRAINED)]
    if test.empty:
        raise EvaluationError(
            "The predictions table has no test row of a trained arm (fused, image or tabular); "
            "predict on the test side first."
        )
    places = pd.MultiIndex.from_frame(table[["subject_id", "image"]].astype(str))
    keys = pd.MultiIndex.from_frame(test[["subject_id", "image"]].astype(str))
    at = places.get_indexer(keys)
    if (at < 0).any():
        subject, image = keys[int(np.argmax(at < 0))]
        raise EvaluationError(
            f"Image {image!r} of subject {subject!r} in the predictions table is not in the "
            "cohort; audit predictions with the cohort that they are of."
        )
    rows = test.assign(place=at, p=1 - test[f"p_{classes[0]}"].to_numpy(dtype=np.float64))
    once = rows.groupby(["arm", "repeat", "fold", "place"], as_index=False)["p"].mean()
    odds = pd.Series(logit(once["p"].clip(_SURE, 1 - _SURE)), index=once.index)
    folds = odds.groupby([once["arm"], once["repeat"], once["fold"]])
    spread = folds.transform("std").fillna(0)
    once["score"] = ((odds - folds.transform("mean")) / spread.where(spread > 0, 1)).to_numpy()
    means = once.pivot_table(index="place", columns="arm", values=["p", "score"]).dropna()
    kept = means.index.to_numpy(dtype=np.int64)
    named = [arm for arm in TRAINED if ("p", arm) in means]
    label = pd.Series(test["label"].to_numpy(), index=at)
    label = label[~label.index.duplicated()].reindex(means.index)
    return Arms(
        rows=kept,
        positive=(label != classes[0]).to_numpy(),
        scores={arm: means["score", arm].to_numpy() for arm in named},
        probabilities={arm: means["p", arm].to_numpy() for arm in named},
    )
