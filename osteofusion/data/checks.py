"""What looks wrong in a joined cohort: copies, conflicting labels, constants, leaks."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from osteofusion.data.manifest import LABELS, Manifest
from osteofusion.data.report import JoinReport

Ints = NDArray[np.int64]
LEAK_AUROC = 0.98


def describe(joined: pd.DataFrame, manifest: Manifest, report: JoinReport) -> None:
    """Add to the report what the joined table shows; the table is not changed."""
    report.joined = len(joined)
    report.subjects = joined["subject_id"].nunique()
    by_label = joined["label"].value_counts()
    report.by_label = {label: int(by_label[label]) for label in LABELS if label in by_label}
    copies: dict[str, list[int]] = defaultdict(list)
    digests = joined["image_sha256"]
    several = digests.duplicated(keep=False) & (digests != "")  # a row without an image has none
    for i in np.flatnonzero(several).tolist():
        copies[digests.iloc[i]].append(i)
    for members in copies.values():
        names = joined["image"].iloc[members].tolist()
        report.identical_groups.append(names)
        report.surplus_identical_images += names[1:]
        labels = joined["label"].iloc[members]
        if labels.nunique() > 1:
            report.conflicting_groups.append(dict(zip(names, labels.astype(str), strict=True)))
    label = pd.Categorical(joined["label"], categories=LABELS).codes
    for name, column in manifest.columns.items():
        if name in joined and column.role != "identifier":
            numeric = pd.api.types.is_numeric_dtype(joined[name])
            counts = _counts(joined[name], label, ordered=numeric)
            if len(counts) <= 2:
                report.constant_columns.append(name)
            known, missing = counts[:-1], counts[-1]
            why = _leak_of_numbers(known) if numeric else _leak_of_words(known)
            if why is None:
                why = _leak_of_numbers(np.stack([known.sum(axis=0), missing]))
                why = None if why is None else f"whether it is missing: {why}"
            if why is not None and column.role == "feature":
                report.suspected_leaks.append({"column": name, "why": why})
    expected = manifest.expected
    totals = [
        ("rows", expected.rows, report.rows),
        ("radiographs", expected.radiographs, report.images),
        *((name, count, report.by_label.get(name, 0)) for name, count in expected.labels.items()),
    ]
    for what, published, here in totals:
        if published is not None and published != here and joined["label"].notna().all():
            report.unexpected_counts.append(f"{what}: {here}, published {published}")


def _counts(values: pd.Series, label: NDArray[np.int8], *, ordered: bool) -> Ints:
    """(V + 1, 3) labelled rows of each distinct value, rising if `ordered`, by label.

    The last line counts the rows without a value.
    """
    codes, distinct = pd.factorize(values, sort=ordered)
    codes = np.where(codes < 0, len(distinct), codes)
    shape = (len(distinct) + 1, len(LABELS))
    cells = codes[label >= 0] * len(LABELS) + label[label >= 0]
    return np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape)


def _judgeable(counts: Ints) -> bool:
    return bool(counts.sum() >= 20 and (counts.sum(axis=0) > 0).sum() >= 2)


def _leak_of_words(counts: Ints) -> str | None:
    """Why categories look like the label under another name; None when they do not.

    They are judged by how often the most frequent label of each is right.
    """
    if not _judgeable(counts):
        return None
    used = (counts.sum(axis=1) > 0).sum()
    right = counts.max(axis=1).sum() / counts.sum()
    share = counts.sum(axis=0).max() / counts.sum()
    if used <= 10 and right >= LEAK_AUROC and share < 0.9:
        return f"its categories predict {right:.0%} of the labels"
    return None


def _leak_of_numbers(counts: Ints) -> str | None:
    """The same of rising numbers, by how they rank "is it normal" and "is it osteoporosis"."""
    if not _judgeable(counts):
        return None
    for label in ("normal", "osteoporosis"):
        with_label = counts[:, LABELS.index(label)]
        others = counts.sum(axis=1) - with_label
        n, m = with_label.sum(), others.sum()
        if n < 5 or m < 5:
            continue
        below = np.cumsum(others) - others / 2  # a tie counts half
        auroc = (with_label * below).sum() / (n * m)
        if max(auroc, 1 - auroc) >= LEAK_AUROC:
            return f"AUROC {max(auroc, 1 - auroc):.3f} for {label}"
    return None
