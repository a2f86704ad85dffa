"""Probabilities that mean what they say: Platt and vector scaling, fitted on the other folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from osteofusion.errors import EvaluationError
from osteofusion.evaluation.metrics import Floats, Ints

SMALLEST = 1e-6  # a forest says exactly 0 and 1, whose logarithm is not finite
# Deviation of the normal prior on each intercept (around 0) and slope (around 1). Undoing balanced
# class weights at 85 % takes an intercept of 1.7, so 2 hardly pulls once there are dozens of rows.
_PRIOR_SD = 2.0


@dataclass(frozen=True)
class Calibration:
    """A map from raw to calibrated probabilities: ``softmax(slope * log raw + intercept)``.

    Attributes:
        slope: One slope of the log-odds if binary (Platt 1999), else one a class on the
            log-probabilities (vector scaling, Guo et al. 2017).
        intercept: As many intercepts.
        note: What a reader should know, such as a slope that was refused; None otherwise.
    """

    slope: tuple[float, ...]
    intercept: tuple[float, ...]
    note: str | None = None

    def apply(self, raw: Floats) -> Floats:
        """Calibrated probabilities (n, C) of raw ones (n, C); rows sum to 1.

        Raises:
            EvaluationError: ``raw`` has another number of classes.
        """
        features = _features(raw)
        if features.shape[1] != len(self.slope):
            raise EvaluationError(
                f"a calibration with {len(self.slope)} slopes cannot be applied to probabilities "
                f"of {raw.shape[1]} classes; fit one for this task"
            )
        if set(self.slope) == {1.0} and not any(self.intercept):
            return raw.copy()
        calibrated: Floats = softmax(_scores(features, self.slope, self.intercept), axis=1)
        return calibrated

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and strings, ready for JSON."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """The calibration that :meth:`to_dict` wrote."""
        return cls(tuple(values["slope"]), tuple(values["intercept"]), values["note"])


def fit_calibration(raw: Floats, labels: Ints) -> Calibration:
    """Fit Platt scaling (two classes) or vector scaling with intercept (more).

    Penalised maximum likelihood with a light normal prior (deviation 2) around the identity, which
    keeps separable and tiny data finite. A slope that is not positive would turn the order of the
    rows round: it is refused, and only the intercepts are fitted. Without a row of every class the
    probabilities stay as they are; the note says either.

    Args:
        raw: (n, C) probabilities, taken to lie within 1e-6 and 1 - 1e-6.
        labels: (n,) class codes.
    """
    features = _features(raw)
    width = features.shape[1]
    held = len(np.unique(labels))
    if held < raw.shape[1]:
        note = f"not calibrated: the rows to fit on hold {held} of {raw.shape[1]} classes"
        return Calibration((1.0,) * width, (0.0,) * width, note)
    slope, intercept = _fit(features, labels, free_slope=True)
    if min(slope) > 0:
        return Calibration(slope, intercept)
    note = "intercept only: a slope that is not positive would turn the order round"
    return Calibration(*_fit(features, labels, free_slope=False), note)


def calibrate_folds(predictions: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Set ``p_<class>`` from ``raw_<class>`` of a table with several test folds.

    The map of a fold is fitted on the test rows of the other folds of the same variant, arm and
    repeat, never on the fold itself. Several seeds share one map. Where a variant, arm and repeat
    has a single fold, nothing can be fitted: ``p_`` is ``raw_``.

    Args:
        predictions: One row a radiograph, arm, fold and repeat.
        classes: Class names in order.

    Returns:
        A copy; ``attrs["calibration_notes"]`` lists what was not calibrated as described.

    Raises:
        EvaluationError: A column is missing, or a raw probability is not one.
    """
    columns = [f"raw_{name}" for name in classes]
    raw, labels = raw_and_labels(predictions, classes)
    table, notes = predictions.copy(), []
    values = raw.copy()
    fitted_on = np.ones(len(table), dtype=bool)
    if "split" in table:
        fitted_on = (table["split"] == "test").to_numpy()
    keys = [key for key in ("variant", "arm", "repeat") if key in table]
    for key, positions in table.groupby(keys, sort=False, dropna=False).indices.items():
        named = " ".join(map(str, key if isinstance(key, tuple) else (key,)))
        folds = table["fold"].to_numpy()[positions]
        if len(np.unique(folds)) < 2:
            notes.append(f"{named}: not calibrated, there is a single fold")
            continue
        for fold in np.unique(folds):
            own, other = positions[folds == fold], positions[folds != fold]
            other = other[fitted_on[other]]
            calibration = fit_calibration(raw[other], labels[other])
            values[own] = calibration.apply(raw[own])
            if calibration.note is not None:
                notes.append(f"{named} fold {fold}: {calibration.note}")
    table[[column.replace("raw_", "p_", 1) for column in columns]] = values
    table.attrs["calibration_notes"] = notes
    return table


def raw_and_labels(predictions: pd.DataFrame, classes: Sequence[str]) -> tuple[Floats, Ints]:
    """Raw probabilities (n, C), made to sum to 1, and class codes (n,) of a predictions table.

    Raises:
        EvaluationError: A column is missing or has empty cells, or a label or raw probability is
            invalid.
    """
    columns = [f"raw_{name}" for name in classes]
    needed = ["subject_id", "image", "group", "arm", "fold", "repeat", "label", *columns]
    missing = [name for name in needed if name not in predictions]
    if missing:
        raise EvaluationError(
            f"the predictions table has no column {', '.join(map(repr, missing))}; calibration and "
            "decisions need the columns that `osteofusion fit` writes to predictions.csv"
        )
    for name in needed[:6]:
        empty = int(predictions[name].isna().sum())
        if empty:
            raise EvaluationError(
                f"column {name!r} of the predictions table is empty in {empty} rows; every row "
                "needs one"
            )
    unknown = predictions.loc[~predictions["label"].isin(list(classes)), "label"]
    if len(unknown):
        raise EvaluationError(
            f"{len(unknown)} rows of the predictions table have a label that is not one of "
            f"{', '.join(classes)}, such as {unknown.iloc[0]!r}; correct column 'label'"
        )
    raw = predictions[columns].to_numpy(dtype=np.float64, na_value=np.nan)
    sums = raw.sum(axis=1)
    bad = ~((raw >= 0).all(axis=1) & np.isclose(sums, 1, atol=1e-3))
    if bad.any():
        first = predictions.iloc[int(np.flatnonzero(bad)[0])]
        raise EvaluationError(
            f"{int(bad.sum())} rows of the predictions table have {', '.join(columns)} that are "
            f"not probabilities with sum 1, such as arm {first['arm']!r}, image "
            f"{first['image']!r}; predict them again"
        )
    codes = {name: code for code, name in enumerate(classes)}
    labels = np.array([codes[label] for label in predictions["label"]], dtype=np.int64)
    return raw / sums[:, None], labels


def _features(raw: Floats) -> Floats:
    logs = np.log(np.clip(raw, SMALLEST, 1 - SMALLEST))
    features: Floats = logs[:, 1:] - logs[:, :1] if raw.shape[1] == 2 else logs
    return features


def _scores(
    features: Floats, slope: npt.ArrayLike, intercept: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    scores: Floats = features * np.asarray(slope) + np.asarray(intercept)
    if scores.shape[1] == 1:  # log-odds against a class whose score is 0
        return np.hstack([np.zeros_like(scores), scores])
    return scores


def _fit(
    features: Floats, labels: Ints, *, free_slope: bool
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    width = features.shape[1]
    truth = np.eye(max(width, 2))[labels]

    def loss(parameters: Floats) -> tuple[float, Floats]:
        slope, intercept = parameters[:width], parameters[width:]
        logs = log_softmax(_scores(features, slope, intercept), axis=1)
        excess = (np.exp(logs) - truth)[:, -width:]
        away = parameters - start
        gradient = np.concatenate([(excess * features).sum(axis=0), excess.sum(axis=0)])
        gradient += away / _PRIOR_SD**2
        if not free_slope:
            gradient[:width] = 0
        return float(-(logs * truth).sum() + (away**2).sum() / (2 * _PRIOR_SD**2)), gradient

    start = np.repeat([1.0, 0.0], width)
    found = minimize(loss, start, jac=True, method="BFGS").x
    return tuple(map(float, found[:width])), tuple(map(float, found[width:]))
