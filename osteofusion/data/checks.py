"""What looks wrong in a joined cohort: copies, conflicting labels, constants, leaks."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from osteofusion.data.manifest import LABELS, Manifest
from osteofusion.data.report import JoinReport

LEAK_AUROC = 0.98


def describe(joined: pd.DataFrame, manifest: Manifest, report: JoinReport) -> None:
    """Add to the report what the joined table shows; the table is not changed."""
    report.joined = len(joined)
    report.subjects = joined["subject_id"].nunique()
    report.by_label = {
        label: int((joined["label"] == label).sum())
        for label in LABELS
        if (joined["label"] == label).any()
    }
    copies: dict[str, list[int]] = defaultdict(list)
    for i, digest in enumerate(joined["image_sha256"]):
        if digest:  # a row without an image has none
            copies[digest].append(i)
    for members in copies.values():
        if len(members) < 2:
            continue
        names = joined["image"].iloc[members].tolist()
        report.identical_groups.append(names)
        report.surplus_identical_images += names[1:]
        labels = joined["label"].iloc[members]
        if labels.nunique() > 1:
            report.conflicting_groups.append(dict(zip(names, labels.astype(str), strict=True)))
    for name, column in manifest.columns.items():
        if name in joined and column.role != "identifier":
            values = joined[name]
            if values.nunique(dropna=True) <= 1:
                report.constant_columns.append(name)
            why = _leak(values, joined["label"])
            if why is None:
                why = _leak(values.isna().astype(np.float64), joined["label"])
                why = None if why is None else f"whether it is missing: {why}"
            if why is not None and column.role == "feature":
                report.suspected_leaks.append({"column": name, "why": why})
    expected = manifest.expected
    counts = [
        ("rows", expected.rows, report.rows),
        ("radiographs", expected.radiographs, report.images),
        *((name, count, report.by_label.get(name, 0)) for name, count in expected.labels.items()),
    ]
    for what, published, here in counts:
        if published is not None and published != here and joined["label"].notna().all():
            report.unexpected_counts.append(f"{what}: {here}, published {published}")


def _leak(values: pd.Series, labels: pd.Series) -> str | None:
    """Why a feature looks like the label under another name; None when it does not.

    A number is ranked against "is it normal" and "is it osteoporosis"; words are judged by how
    often the most frequent label of their category is right.
    """
    known = values.notna() & labels.notna()
    values, labels = values[known], labels[known]
    if known.sum() < 20 or labels.nunique() < 2:
        return None
    if not pd.api.types.is_numeric_dtype(values):
        counts = pd.crosstab(values, labels)
        right = counts.max(axis=1).sum() / len(values)
        share = labels.value_counts(normalize=True).iloc[0]
        if len(counts) <= 10 and right >= LEAK_AUROC and share < 0.9:
            return f"its categories predict {right:.0%} of the labels"
        return None
    for label in ("normal", "osteoporosis"):
        is_label = labels == label
        if not 5 <= is_label.sum() <= len(labels) - 5:
            continue
        auroc = roc_auc_score(is_label, values.astype(np.float64))
        if max(auroc, 1 - auroc) >= LEAK_AUROC:
            return f"AUROC {max(auroc, 1 - auroc):.3f} for {label}"
    return None
