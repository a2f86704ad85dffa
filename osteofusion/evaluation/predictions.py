"""The predictions table: one row a radiograph and arm, the only input of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from osteofusion.errors import EvaluationError

_KEY = ["subject_id", "image"]


@dataclass(frozen=True)
class TestRows:
    """What the arms were asked about; row i is the same radiograph in every array.

    Attributes:
        labels: (n,) int codes into the classes.
        groups: (n,) int codes of the split groups, 0 to G - 1.
        probabilities: Arm name to (n, C) probabilities.
        split: Name of the split the rows belong to.
    """

    __test__ = False  # pytest collects every class named Test*

    labels: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]
    probabilities: dict[str, npt.NDArray[np.float64]]
    split: str


def read_rows(predictions: pd.DataFrame, classes: Sequence[str]) -> TestRows:
    """Check a predictions table and return its arms on common rows.

    Args:
        predictions: One row a radiograph and arm, columns ``subject_id, image, group, split, arm,
            label`` and ``p_<class>`` for every class; further columns are not read.
        classes: Class names in order; the last one is the positive class of a binary task.

    Raises:
        EvaluationError: A column is missing, a label or probability is invalid, a radiograph is
            there twice for an arm, the arms were not asked about the same radiographs, or the
            table holds several splits or folds.
    """
    names = [f"p_{name}" for name in classes]
    missing = [c for c in [*_KEY, "group", "split", "arm", "label", *names] if c not in predictions]
    if missing:
        raise EvaluationError(
            f"the predictions table has no column {', '.join(map(repr, missing))}; it needs "
            f"subject_id, image, group, split, arm, label and {', '.join(names)}"
        )
    if predictions.empty:
        raise EvaluationError("the predictions table has no rows; predict on a split with rows")
    for column in ("split", "fold"):
        found = predictions[column].unique() if column in predictions else ()
        if len(found) > 1:
            raise EvaluationError(
                f"the predictions table mixes values of {column!r} "
                f"({', '.join(map(str, found[:5]))}); "
                f"evaluate one {column} at a time"
            )
    _check_values(predictions, names, classes)
    return _align(predictions, names, classes)


def add_arms(
    predictions: pd.DataFrame,
    probabilities: Mapping[str, npt.NDArray[np.float64]],
    classes: Sequence[str],
) -> pd.DataFrame:
    """Append arms that were asked about the same rows, such as the baselines.

    Args:
        predictions: Table of one arm; row order is the order of the probabilities.
        probabilities: Arm name to (n, C) probabilities.
        classes: Class names in order.

    Returns:
        The table followed by one copy an added arm, with ``arm``, ``p_<class>`` and
        ``raw_<class>`` replaced.

    Raises:
        EvaluationError: The table holds several arms, or a shape differs from (n, C).
    """
    if len(predictions["arm"].unique()) != 1:
        raise EvaluationError("arms can only be added to a table with the rows of one arm")
    tables = [predictions]
    for arm, values in probabilities.items():
        if values.shape != (len(predictions), len(classes)):
            raise EvaluationError(
                f"arm {arm!r} has probabilities of shape {values.shape}; the table needs "
                f"{(len(predictions), len(classes))}"
            )
        columns = {
            f"{kind}_{name}": values[:, code]
            for kind in ("p", "raw")
            for code, name in enumerate(classes)
        }
        tables.append(predictions.assign(arm=arm, **columns))
    return pd.concat(tables, ignore_index=True)


def _check_values(predictions: pd.DataFrame, names: list[str], classes: Sequence[str]) -> None:
    for column in [*_KEY, "group", "arm"]:
        if predictions[column].isna().any():
            raise EvaluationError(
                f"column {column!r} of the predictions table is empty in "
                f"{int(predictions[column].isna().sum())} rows; every row needs one"
            )
    unknown = predictions.loc[~predictions["label"].isin(list(classes)), "label"]
    if len(unknown):
        raise EvaluationError(
            f"{len(unknown)} rows of the predictions table have a label that is not one of "
            f"{', '.join(classes)}: {', '.join(map(str, unknown.unique()[:5]))}"
        )
    values = predictions[names].to_numpy(dtype=np.float64, na_value=np.nan)
    with np.errstate(invalid="ignore"):
        bad = ~((values >= 0) & (values <= 1)).all(axis=1) | ~np.isclose(
            values.sum(axis=1), 1, atol=1e-3
        )
    if bad.any():
        first = predictions.iloc[int(np.flatnonzero(bad)[0])]
        raise EvaluationError(
            f"{int(bad.sum())} rows of the predictions table have {', '.join(names)} that are not "
            f"probabilities with sum 1; the first is arm {first['arm']!r}, image "
            f"{first['image']!r}: {', '.join(f'{first[n]:.4g}' for n in names)}"
        )
    twice = predictions.duplicated(["arm", *_KEY])
    if twice.any():
        first = predictions[twice].iloc[0]
        raise EvaluationError(
            f"image {first['image']!r} of subject {first['subject_id']!r} is there more than once "
            f"for arm {first['arm']!r}; average repeats and seeds before the evaluation"
        )


def _align(predictions: pd.DataFrame, names: list[str], classes: Sequence[str]) -> TestRows:
    arms = {str(arm): rows.set_index(_KEY) for arm, rows in predictions.groupby("arm", sort=False)}
    reference_name, reference = next(iter(arms.items()))
    facts = reference[["group", "label"]]
    probabilities = {}
    for arm, rows in arms.items():
        if len(rows) != len(reference) or not rows.index.isin(reference.index).all():
            raise EvaluationError(
                f"arm {arm!r} was not asked about the same radiographs as {reference_name!r} "
                f"({len(rows)} and {len(reference)} rows); predict both on the same split"
            )
        ordered = rows.loc[reference.index]
        if not (ordered[["group", "label"]].to_numpy() == facts.to_numpy()).all():
            raise EvaluationError(
                f"arms {reference_name!r} and {arm!r} have different labels or groups for the same "
                "image; predict both from the same cohort and splits"
            )
        probabilities[arm] = ordered[names].to_numpy(dtype=np.float64)
    codes = {name: code for code, name in enumerate(classes)}
    return TestRows(
        labels=np.array([codes[label] for label in facts["label"]], dtype=np.int64),
        groups=pd.factorize(facts["group"])[0].astype(np.int64),
        probabilities=probabilities,
        split=str(predictions["split"].iloc[0]),
    )
