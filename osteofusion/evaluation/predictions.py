"""The predictions table: one row a radiograph and arm, the only input of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from osteofusion.errors import EvaluationError

_KEY = ["subject_id", "image"]
_CELL = ["repeat", "fold"]


@dataclass(frozen=True)
class TestFold:
    """One test fold of one repeat; a single split is one of them.

    Attributes:
        name: As read, such as ``fold 2 of repeat 0``.
        rows: (m,) positions of its radiographs in :class:`TestRows`.
        probabilities: Arm name to (m, C) probabilities, averaged over seeds.
    """

    __test__ = False  # pytest collects every class named Test*

    name: str
    rows: npt.NDArray[np.int64]
    probabilities: dict[str, npt.NDArray[np.float64]]


@dataclass(frozen=True)
class TestRows:
    """What the arms were asked about; row i is the same radiograph in every array.

    Attributes:
        labels: (n,) int codes into the classes.
        groups: (n,) int codes of the split groups, 0 to G - 1.
        probabilities: Arm name to (n, C) probabilities, averaged over seeds and repeats.
        split: Name of the split the rows belong to.
        folds: The test folds; all arms were asked about the same radiographs in each.
        seeds: Most predictions of an arm that were averaged for a radiograph in a fold.
    """

    __test__ = False

    labels: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]
    probabilities: dict[str, npt.NDArray[np.float64]]
    split: str
    folds: list[TestFold]
    seeds: int


def read_rows(predictions: pd.DataFrame, classes: Sequence[str]) -> TestRows:
    """Check a predictions table and return its arms on common rows.

    Args:
        predictions: One row a radiograph, arm, repeat, fold and seed, columns ``subject_id, image,
            group, split, arm, label`` and ``p_<class>`` for every class; without ``repeat``,
            ``fold`` or ``seed`` there is one of them. Further columns are not read.
        classes: Class names in order; the last one is the positive class of a binary task.

    Raises:
        EvaluationError: A column is missing, a label or probability is invalid, a radiograph is
            there twice for an arm, fold and seed, the arms were not asked about the same
            radiographs in the same folds, or the table holds several splits or variants.
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
    for column in ("split", "variant"):
        found = predictions[column].unique() if column in predictions else ()
        if len(found) > 1:
            raise EvaluationError(
                f"the predictions table mixes values of {column!r} "
                f"({', '.join(map(str, found[:5]))}); "
                f"evaluate one {column} at a time"
            )
    single = {column: 0 for column in [*_CELL, "seed"] if column not in predictions}
    predictions = predictions.assign(**single)
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
    twice = predictions.duplicated(["arm", *_CELL, "seed", *_KEY])
    if twice.any():
        first = predictions[twice].iloc[0]
        raise EvaluationError(
            f"image {first['image']!r} of subject {first['subject_id']!r} is there more than once "
            f"for arm {first['arm']!r} in one fold and seed; keep one row of each"
        )
    facts = predictions.groupby(_KEY, sort=False)[["group", "label"]].nunique().max(axis=1)
    if (facts > 1).any():
        subject, image = facts.index[int(np.argmax(facts > 1))]
        raise EvaluationError(
            f"image {image!r} of subject {subject!r} has different labels or groups in different "
            "arms or folds; predict all of them from the same cohort and splits"
        )


def _align(predictions: pd.DataFrame, names: list[str], classes: Sequence[str]) -> TestRows:
    facts = predictions.drop_duplicates(_KEY)
    index = pd.MultiIndex.from_frame(facts[_KEY])
    coded = predictions[["arm", *names]].assign(
        cell=predictions.groupby(_CELL, dropna=False).ngroup(),
        row=index.get_indexer(pd.MultiIndex.from_frame(predictions[_KEY])),
    )
    named = predictions[_CELL].assign(cell=coded["cell"]).drop_duplicates("cell")
    repeats, folds = (named.sort_values("cell")[column].tolist() for column in _CELL)
    fold_names = [f"fold {fold} of repeat {rep}" for rep, fold in zip(repeats, folds, strict=True)]
    asked, values, seeds = {}, {}, 0
    for arm, own in coded.groupby("arm", sort=False):
        grouped = own.groupby(["cell", "row"])[names]
        seeds = max(seeds, int(grouped.size().max()))
        mean = grouped.mean()
        asked[str(arm)] = mean.index.to_frame().to_numpy(dtype=np.int64)
        values[str(arm)] = mean.to_numpy(dtype=np.float64)
    _check_same_rows(asked, fold_names, facts["image"].tolist())
    cell, row = next(iter(asked.values())).T
    codes = {name: code for code, name in enumerate(classes)}
    return TestRows(
        labels=np.array([codes[label] for label in facts["label"]], dtype=np.int64),
        groups=pd.factorize(facts["group"])[0].astype(np.int64),
        probabilities={arm: _average(each, row, len(facts)) for arm, each in values.items()},
        split=str(predictions["split"].iloc[0]),
        folds=[
            TestFold(name, row[cell == code], {arm: v[cell == code] for arm, v in values.items()})
            for code, name in enumerate(fold_names)
        ],
        seeds=seeds,
    )


def _average(
    values: npt.NDArray[np.float64], row: npt.NDArray[np.int64], n: int
) -> npt.NDArray[np.float64]:
    total = np.zeros((n, values.shape[1]))
    np.add.at(total, row, values)
    mean: npt.NDArray[np.float64] = total / np.bincount(row, minlength=n)[:, None]
    return mean


def _check_same_rows(
    asked: dict[str, npt.NDArray[np.int64]], fold_names: list[str], images: list[str]
) -> None:
    """Refuse arms whose (cell, row) pairs differ from those of the first."""
    reference_name, *others = asked
    reference = set(map(tuple, asked[reference_name].tolist()))
    for arm in others:
        own = set(map(tuple, asked[arm].tolist()))
        if own == reference:
            continue
        lacking, other = (arm, reference_name) if reference - own else (reference_name, arm)
        lacked = sorted(reference - own or own - reference)
        cells = {cell for cell, _ in lacked}
        where = f" in {len(cells)} of {len(fold_names)} test folds" if len(fold_names) > 1 else ""
        raise EvaluationError(
            f"arm {lacking!r} was not asked about the same radiographs as {other!r}: it lacks "
            f"{len(lacked)} of them{where}, the first being image {images[lacked[0][1]]!r} in "
            f"{fold_names[lacked[0][0]]}; predict both on the same splits"
        )
