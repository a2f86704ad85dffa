"""One arm on all its test folds, each calibrated on the other folds of its repeat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from osteofusion.errors import EvaluationError
from osteofusion.evaluation.calibration import fit_calibration, raw_and_labels
from osteofusion.evaluation.intervals import wilson_interval
from osteofusion.evaluation.metrics import Estimate, Floats, Ints

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class FoldScores:
    """Low-BMD scores of one test fold and of the other folds of its repeat, calibrated alike.

    Attributes:
        rows: (m,) positions of the fold's rows.
        scores: (m,) their scores.
        raw: (m,) the same before calibration.
        other_rows: (k,) positions of the rows of the other folds; empty if none.
        other_scores: (k,) their scores, to choose thresholds on.
        note: What the calibration said.
    """

    rows: Ints
    scores: Floats
    raw: Floats
    other_rows: Ints
    other_scores: Floats
    note: str | None


@dataclass(frozen=True)
class OutOfFold:
    """One arm on all its test folds; row i is the same radiograph everywhere.

    Attributes:
        images: Subject and image of each row, sorted.
        low: (n,) true for the positive class, or for low BMD of three classes.
        groups: (n,) codes of the split groups, 0 to G - 1.
        folds: One entry a repeat and fold.
    """

    images: list[tuple[str, str]]
    low: Bools
    groups: Ints
    folds: list[FoldScores]

    @property
    def cross_fitted(self) -> bool:
        """Whether every fold has other folds with rows of both kinds to learn from."""
        others = [self.low[fold.other_rows] for fold in self.folds]
        return all(low.any() and not low.all() for low in others)

    def average(self, values: Sequence[npt.NDArray[np.generic]]) -> Floats:
        """Mean over the repeats of what each fold gives its rows; (n,) or (n, T)."""
        total = np.zeros((len(self.low), *values[0].shape[1:]))
        for fold, value in zip(self.folds, values, strict=True):
            total[fold.rows] += value
        seen = np.bincount(np.concatenate([fold.rows for fold in self.folds]))
        mean: Floats = total / seen.reshape(-1, *[1] * (total.ndim - 1))
        return mean

    def share(self, low: bool, chosen: Floats) -> Estimate:
        """Share of the low-BMD (or normal) rows that are chosen, Wilson's interval over groups.

        Args:
            low: Which rows.
            chosen: (n,) share of the repeats in which a row is chosen.
        """
        rows = self.low == low
        n = int(rows.sum())
        if not n:
            return Estimate(None, 0, reason=f"no row is {'positive' if low else 'negative'}")
        below, above = wilson_interval(rows, chosen, self.groups)
        return Estimate(float(chosen[rows].mean()), n, below, above, "wilson")


def out_of_fold(predictions: pd.DataFrame, classes: Sequence[str], arm: str) -> OutOfFold:
    """Test scores of an arm, each fold calibrated on the other folds of its repeat.

    Seeds are averaged first. The other folds are read through the same calibration, which has not
    seen the left-out fold, so that a threshold carries over. A single fold stays uncalibrated.

    Args:
        predictions: Predictions table of one variant; only test rows are read.
        classes: Class names in order; scores are for all but the first.
        arm: The arm.

    Raises:
        EvaluationError: The table is not valid, or has no test row of the arm.
    """
    rows = predictions[predictions["arm"] == arm] if "arm" in predictions else predictions
    if "split" in rows:
        rows = rows[rows["split"] == "test"]
    if rows.empty:
        raise EvaluationError(
            f"the predictions table has no test row of arm {arm!r}; choose another arm"
        )
    if "variant" in rows and rows["variant"].nunique() > 1:
        raise EvaluationError(
            f"the predictions table mixes {rows['variant'].nunique()} variants; "
            "take one variant at a time"
        )
    raw, labels = raw_and_labels(rows, classes)
    frame = rows[["repeat", "fold", "subject_id", "image", "group"]].assign(
        code=labels, **{f"raw_{c}": raw[:, c] for c in range(len(classes))}
    )
    keys = ["subject_id", "image"]
    frame = frame.astype(dict.fromkeys(keys, str))
    scores = [f"raw_{c}" for c in range(len(classes))]
    frame = frame.groupby(["repeat", "fold", *keys], as_index=False).agg(
        {"group": "first", "code": "first", **dict.fromkeys(scores, "mean")}
    )
    index, facts = _number_rows(frame, keys)
    folds = [
        _fold(frame, index, scores, repeat, fold)
        for repeat, fold in frame[["repeat", "fold"]].drop_duplicates().itertuples(index=False)
    ]
    return OutOfFold(
        images=list(facts[keys].itertuples(index=False, name=None)),
        low=facts["code"].to_numpy() > 0,
        groups=pd.factorize(facts["group"])[0].astype(np.int64),
        folds=folds,
    )


def _number_rows(frame: pd.DataFrame, keys: list[str]) -> tuple[Ints, pd.DataFrame]:
    facts = frame.groupby(keys, as_index=False).agg({"group": "first", "code": "first"})
    disagree = frame.groupby(keys)[["group", "code"]].nunique().max(axis=1) > 1
    if disagree.any():
        subject, image = disagree.index[int(np.argmax(disagree))]
        raise EvaluationError(
            f"image {image!r} of subject {subject!r} has different labels or groups in different "
            "folds or repeats; predict all of them from one cohort"
        )
    order = pd.MultiIndex.from_frame(facts[keys])
    index = order.get_indexer(pd.MultiIndex.from_frame(frame[keys])).astype(np.int64)
    return index, facts


def _fold(
    frame: pd.DataFrame, index: Ints, scores: list[str], repeat: object, fold: object
) -> FoldScores:
    own = ((frame["repeat"] == repeat) & (frame["fold"] == fold)).to_numpy()
    other = ((frame["repeat"] == repeat) & (frame["fold"] != fold)).to_numpy()
    raw, code = frame[scores].to_numpy(), frame["code"].to_numpy()
    plain = 1 - raw[own, 0]
    if not other.any():
        return FoldScores(index[own], plain, plain, index[other], np.empty(0), None)
    calibration = fit_calibration(raw[other], code[other])
    return FoldScores(
        rows=index[own],
        scores=1 - calibration.apply(raw[own])[:, 0],
        raw=plain,
        other_rows=index[other],
        other_scores=1 - calibration.apply(raw[other])[:, 0],
        note=calibration.note,
    )
