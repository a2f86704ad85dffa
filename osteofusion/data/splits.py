"""Train, validation and test sides that share neither a subject nor an image."""

from __future__ import annotations

import csv
import os
from collections.abc import Hashable, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from osteofusion.data.allocation import Ints, allocate
from osteofusion.errors import SplitError
from osteofusion.files import atomic_path

SPLITS = ("train", "val", "test")
COLUMNS = ["subject_id", "image", "image_sha256", "group", "label", "repeat", "fold", "split"]
_TEST = SPLITS.index("test")


def connected_groups(
    subject_id: Sequence[str],
    image_sha256: Sequence[str | None],
    *keys: Sequence[Hashable | None],
) -> Ints:
    """Connected components of "same subject or identical image".

    Args:
        subject_id: N subject IDs.
        image_sha256: N digests; a row without one (None, NaN or empty) is connected by its
            subject alone.
        *keys: N further values each; rows that share one are connected as well.

    Returns:
        (N,) component of each row, 0..G-1 in order of first appearance.
    """
    n_rows = n_nodes = len(subject_id)
    rows, nodes = [], []
    for key in (subject_id, image_sha256, *keys):
        values = pd.Series(list(key), dtype=object)
        codes, distinct = pd.factorize(values.mask(values == ""))
        known = np.flatnonzero(codes >= 0)
        rows.append(known)
        nodes.append(codes[known] + n_nodes)
        n_nodes += len(distinct)
    row, node = np.concatenate(rows), np.concatenate(nodes)
    graph = coo_array((np.ones(len(row)), (row, node)), shape=(n_nodes, n_nodes))
    _, component = connected_components(graph, directed=False)
    return pd.factorize(component[:n_rows])[0].astype(np.int64)


def make_splits(
    table: pd.DataFrame,
    *,
    seed: int,
    validation: float = 0.15,
    test: float = 0.15,
    folds: int | Literal["sites"] | None = None,
    repeats: int = 1,
) -> pd.DataFrame:
    """Grouped, stratified, seeded sides of a cohort.

    Rows tied by subject, identical image or ``group`` stay on one side, and every side holds
    every class. Shares are kept as far as that allows: with C classes and m rows in the largest
    component, each side has each class within ``1 + 2 m max(1, C - 1)`` rows of its share,
    within ``1 + 2 m`` where no component holds several classes, and within 1 where no subject
    and no image comes twice and every share is at least a row. The bounds are for the worst
    cohorts that the property tests find; ordinary ones stay below ``1 + m``. The order of the
    table's rows does not matter.

    Args:
        table: one row a radiograph, with ``subject_id``, ``image``, ``image_sha256``, ``group``
            and ``label``; the pair of subject and image is unique.
        seed: not negative.
        validation: share of the cohort; with ``folds``, of what is not on the test side.
        test: share of the cohort; without meaning when ``folds`` is given.
        folds: None for one division by shares; k: fold i has the i-th of k disjoint parts as its
            test side; ``"sites"``: fold i has the i-th site in alphabetical order as its test
            side (leave one site out), with whatever classes it holds, and any row of another
            site that is tied to it, such as a copy of one of its radiographs.
        repeats: independent divisions, numbered from 0.

    Returns:
        The table's rows sorted by subject and image, once per repeat and fold, with ``repeat``,
        ``fold`` and ``split`` (``train``, ``val``, ``test``).

    Raises:
        SplitError: a share or number is out of range, a row has no label or is listed twice, or
            a class has too few subject groups for every side to hold it.
    """
    _check_request(seed, validation, test, folds, repeats)
    rows, component = _cohort_rows(table)
    classes, label = np.unique(rows["label"].to_numpy(dtype=object), return_inverse=True)
    counts = np.zeros((component.max() + 1, len(classes)), dtype=np.int64)
    np.add.at(counts, (component, label), 1)
    if folds == "sites":
        tests = _site_components(rows, component, classes, counts)
    else:
        _check_feasible(classes, (counts > 0).sum(axis=0), folds)
    sides = []
    for repeat in range(repeats):
        rng = np.random.default_rng([seed, repeat])
        if folds == "sites":
            sides += [_train_and_val(counts, test, validation, rng) for test in tests]
            continue
        if folds is None:
            shares = np.array([1 - validation - test, validation, test])
            sides.append(allocate(counts, shares, rng))
            continue
        # What two folds leave for training and validation is one fold, so each must cover twice.
        parts = 2 if folds == 2 else 1
        part = allocate(counts, np.full(folds, 1 / folds), rng, parts)
        for fold in range(folds):
            sides.append(_train_and_val(counts, part == fold, validation, rng))
    n_folds = len(tests) if folds == "sites" else folds or 1
    pairs = [(repeat, fold) for repeat in range(repeats) for fold in range(n_folds)]
    return _long(rows, pairs, np.stack(sides)[:, component])


def select_fold(splits: pd.DataFrame, fold: int, repeat: int) -> pd.DataFrame:
    """The rows of one fold of one repeat.

    Raises:
        SplitError: there is no such fold.
    """
    chosen = splits[(splits["fold"] == fold) & (splits["repeat"] == repeat)]
    if chosen.empty:
        known = splits.groupby("repeat")["fold"].unique()
        there = "; ".join(f"repeat {r}: {', '.join(map(str, sorted(f)))}" for r, f in known.items())
        raise SplitError(
            f"the splits have no fold {fold} in repeat {repeat}; choose among the folds of {there}"
        )
    return chosen.reset_index(drop=True)


def save_splits(splits: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write the splits as CSV, for :func:`load_splits`."""
    with atomic_path(path) as temporary:
        # All text is quoted: the csv module does not quote a lone carriage return by itself.
        splits[COLUMNS].to_csv(
            temporary,
            index=False,
            encoding="utf-8",
            quoting=csv.QUOTE_NONNUMERIC,
            lineterminator="\n",
        )


def load_splits(path: str | os.PathLike[str], table: pd.DataFrame) -> pd.DataFrame:
    """Read splits and fit them to a cohort.

    The file needs ``subject_id``, ``repeat``, ``fold``, ``split`` and one of ``image_sha256`` and
    ``image``; the digest is what rows are matched by where the file has it, since it does not
    change with the folder. A ``label`` column is compared with the cohort's: one of the two may
    be coarser (three classes against normal and low BMD), but they may not contradict each other.

    Args:
        path: CSV.
        table: as for :func:`make_splits`.

    Returns:
        As :func:`make_splits`, with image, group and label as the cohort has them.

    Raises:
        SplitError: the file is not readable; it does not hold each row of the cohort, and nothing
            else, once per repeat and fold; a subject or an identical image is on two sides; a
            side lacks a class; or labels contradict each other.
    """
    rows, component = _cohort_rows(table)
    listed = _read(path)
    key = "image_sha256" if listed.get("image_sha256", pd.Series([""])).ne("").any() else "image"
    if key not in listed:
        raise SplitError(f"{path} has neither image_sha256 nor image filled in; add one of the two")

    # A subject may have two identical images, so the n-th of a key meets the n-th.
    by = ["subject_id", key]
    listed["n"] = listed.groupby(["repeat", "fold", *by]).cumcount()
    cohort = rows[by].fillna("").astype(str)
    cohort["n"] = cohort.groupby(by).cumcount()
    cohort["row"] = np.arange(len(cohort))
    row = listed.merge(cohort, how="left", on=[*by, "n"])["row"].to_numpy(dtype=float)
    unknown = np.flatnonzero(np.isnan(row))
    if len(unknown):
        first = listed.iloc[unknown[0]]
        where = (
            f"{path} row {unknown[0] + 2}: subject {first['subject_id']!r}, {key} {first[key]!r}"
        )
        if first["n"] and (cohort[by] == first[by]).all(axis=1).any():
            raise SplitError(
                f"{where} is listed more than once in repeat {first['repeat']}, fold "
                f"{first['fold']}; remove the surplus row"
            )
        hint = ", or delete the column image_sha256 to match by image" if key != "image" else ""
        raise SplitError(
            f"{where} is not in the cohort, nor are {len(unknown) - 1} more rows; use the data the "
            f"splits were made for{hint if 'image' in listed else ''}"
        )

    position = row.astype(np.int64)
    pairs = sorted(set(zip(listed["repeat"], listed["fold"], strict=True)))
    pair = pd.MultiIndex.from_tuples(pairs).get_indexer(
        pd.MultiIndex.from_frame(listed[["repeat", "fold"]])
    )
    side = np.full((len(pairs), len(rows)), -1)
    side[pair, position] = [SPLITS.index(name) for name in listed["split"]]
    _check_sides(path, rows, component, pairs, side)
    if "label" in listed:
        _check_labels(path, listed, rows["label"].iloc[position].to_numpy())
    return _long(rows, pairs, side)


def _train_and_val(
    counts: Ints, test: NDArray[np.bool_], validation: float, rng: np.random.Generator
) -> Ints:
    """Side of each component, those of `test` given."""
    side = np.full(len(counts), _TEST)
    side[~test] = allocate(counts[~test], np.array([1 - validation, validation]), rng)
    return side


def _site_components(
    rows: pd.DataFrame, component: Ints, classes: NDArray[np.object_], counts: Ints
) -> list[NDArray[np.bool_]]:
    """Which components are tested when each site is left out, by site name."""
    sites = sorted(rows["site"].unique())
    if len(sites) < 2:
        raise SplitError(
            f"data.folds=sites leaves one site out, and the cohort has one only ({sites[0]}); give "
            "data.manifest and data.root several data sets, as lists"
        )
    tests = []
    for site in sites:
        test = np.zeros(len(counts), dtype=bool)
        test[component[(rows["site"] == site).to_numpy()]] = True
        groups = (counts[~test] > 0).sum(axis=0)
        if groups.min() < 2:
            raise SplitError(
                f"without site {site!r} class {classes[groups.argmin()]!r} has {groups.min()} "
                "subject groups, and training and validation need at least 2; use more sites, or "
                "train on some and test on another (osteofusion test --data.manifest)"
            )
        tests.append(test)
    return tests


def _cohort_rows(table: pd.DataFrame) -> tuple[pd.DataFrame, Ints]:
    """Sorted rows of a cohort and the component of each."""
    if table.empty:
        raise SplitError("the cohort has no rows to split; check the manifest and the root")
    kept = [*COLUMNS[:5], *(["site"] if "site" in table else [])]
    rows = table[kept].sort_values(["subject_id", "image"], ignore_index=True)
    for problem, bad in (
        ("has no label; give it one or leave it out", rows["label"].isna()),
        ("is listed twice; keep one of the rows", rows.duplicated(["subject_id", "image"])),
    ):
        if bad.any():
            subject, image = rows.loc[bad, ["subject_id", "image"]].iloc[0]
            raise SplitError(f"cohort: subject {subject!r}, image {image!r} {problem}")
    rows = rows.astype({"subject_id": str, "label": str})
    # A group of the cohort may rest on more than subject and digest, such as near-duplicates.
    return rows, connected_groups(
        *(rows[key].tolist() for key in ("subject_id", "image_sha256", "group"))
    )


def _long(rows: pd.DataFrame, pairs: list[tuple[int, int]], side: Ints) -> pd.DataFrame:
    """The rows once per (repeat, fold) pair; ``side`` is (pairs, rows)."""
    splits = rows[COLUMNS[:5]].iloc[np.tile(np.arange(len(rows)), len(pairs))]
    splits = splits.reset_index(drop=True)
    splits["repeat"] = np.repeat([repeat for repeat, _ in pairs], len(rows))
    splits["fold"] = np.repeat([fold for _, fold in pairs], len(rows))
    splits["split"] = np.array(SPLITS)[side.reshape(-1)]
    return splits


def _read(path: str | os.PathLike[str]) -> pd.DataFrame:
    """A splits file: text as it stands, repeat and fold as whole numbers, known split names."""
    try:
        # Every cell is text, so that 007, 1e5 and NA stay what they are.
        listed = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise SplitError(f"{path} cannot be read as splits in CSV: {str(error).strip()}") from error
    missing = [c for c in ("subject_id", "repeat", "fold", "split") if c not in listed]
    if missing:
        raise SplitError(f"{path} has no column {', '.join(missing)}; add it to the splits file")
    if listed.empty:
        raise SplitError(f"{path} has no rows; make the splits again")
    for column, pattern, what in (
        ("repeat", r"\d{1,9}", "a whole number"),
        ("fold", r"\d{1,9}", "a whole number"),
        ("split", "|".join(SPLITS), f"one of {', '.join(SPLITS)}"),
    ):
        bad = np.flatnonzero(~listed[column].str.fullmatch(pattern))
        if len(bad):
            value = listed[column].iloc[bad[0]]
            raise SplitError(f"{path} row {bad[0] + 2}: {column} {value!r} must be {what}")
    return listed.astype({"repeat": int, "fold": int})


def _check_request(
    seed: int, validation: float, test: float, folds: int | Literal["sites"] | None, repeats: int
) -> None:
    if seed < 0:
        raise SplitError(f"the split seed is {seed}; choose one that is not negative")
    if not 0 < validation < 1:
        raise SplitError(f"the validation share is {validation}; choose one between 0 and 1")
    if folds is None and not 0 < test < 1 - validation:
        raise SplitError(
            f"the test share is {test} beside a validation share of {validation}; choose both "
            "above 0 and with a sum below 1, so that training rows are left"
        )
    if isinstance(folds, int) and folds < 2:
        raise SplitError(f"{folds} folds were asked for; choose at least 2, or none for shares")
    if repeats < 1:
        raise SplitError(f"{repeats} repeats were asked for; choose at least 1")


def _check_feasible(classes: NDArray[np.object_], groups: Ints, folds: int | None) -> None:
    needed = {None: 3, 2: 4}.get(folds, folds)
    rarest = int(groups.argmin())
    if needed is None or groups[rarest] >= needed:
        return
    asked = "train, val and test" if folds is None else f"{folds} folds with a validation side"
    possible = int(groups[rarest])
    remedy = (
        f"use fewer folds ({possible} at most) or more data"
        if needed > 4 and possible > 2
        else "use more data or a coarser task"
    )
    raise SplitError(
        f"class {classes[rarest]!r} has {groups[rarest]} subject groups but {asked} need at least "
        f"{needed}; {remedy}"
    )


def _check_sides(
    path: str | os.PathLike[str],
    rows: pd.DataFrame,
    component: Ints,
    pairs: list[tuple[int, int]],
    side: Ints,
) -> None:
    """Every row has a side, components do not cross, every side holds every class."""

    def place(pair: int) -> str:
        return f"{path}: in repeat {pairs[pair][0]}, fold {pairs[pair][1]}"

    missing = np.argwhere(side < 0)
    if len(missing):
        pair, row = missing[0]
        subject, image = rows.loc[row, ["subject_id", "image"]]
        raise SplitError(
            f"{place(pair)} the cohort's subject {subject!r}, image {image!r} is missing "
            f"({len(missing)} rows in all); add it or make new splits"
        )
    _, first = np.unique(component, return_index=True)
    crossing = np.argwhere(side != side[:, first[component]])
    if len(crossing):
        pair, row = crossing[0]
        other = first[component[row]]
        raise SplitError(
            f"{place(pair)} subject {rows['subject_id'][row]!r} is on the side "
            f"{SPLITS[side[pair, row]]} and subject {rows['subject_id'][other]!r} on "
            f"{SPLITS[side[pair, other]]}, though they are one subject or share an image; put "
            "both on one side"
        )
    classes, label = np.unique(rows["label"].to_numpy(dtype=object), return_inverse=True)
    held = np.zeros((len(pairs), len(SPLITS), len(classes)), dtype=bool)
    held[np.arange(len(pairs))[:, None], side, label] = True
    if "site" in rows and rows["site"].nunique() > 1:
        # A site that was left out has the classes that it has.
        for pair, sides in enumerate(side):
            elsewhere = set(rows["site"][sides != _TEST])
            held[pair, _TEST] |= not set(rows["site"]) <= elsewhere
    if not held.all():
        pair, empty, lacking = np.argwhere(~held)[0]
        raise SplitError(
            f"{place(pair)} the side {SPLITS[empty]} has no row of class {classes[lacking]!r}; "
            "make new splits for these classes"
        )


def _check_labels(
    path: str | os.PathLike[str], listed: pd.DataFrame, label: NDArray[np.object_]
) -> None:
    """The labels of file and cohort agree, or one is a coarser reading of the other."""
    both = pd.DataFrame({"file": listed["label"], "cohort": label})
    pairs = both.value_counts().reset_index()
    shared = set(pairs["file"]) & set(pairs["cohort"])
    clash = (pairs["file"] != pairs["cohort"]) & (
        pairs["file"].isin(shared) | pairs["cohort"].isin(shared)
    )
    if not clash.any() and (pairs["file"].is_unique or pairs["cohort"].is_unique):
        return
    rarest = pairs[clash if clash.any() else pairs["file"] != pairs["cohort"]].iloc[-1]
    row = np.flatnonzero((both == rarest[["file", "cohort"]]).all(axis=1))[0]
    raise SplitError(
        f"{path} row {row + 2}: subject {listed['subject_id'].iloc[row]!r} has the label "
        f"{rarest['file']!r} and {rarest['cohort']!r} in the cohort; correct it or make new splits"
    )
