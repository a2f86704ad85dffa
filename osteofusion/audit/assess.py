"""Run all checks on a collection of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from osteofusion.audit.copies import CopySearch, find_copies
from osteofusion.audit.drift import DriftTest, compare_sides, find_drift, tell_apart
from osteofusion.audit.features import read_features
from osteofusion.audit.file_facts import GROUPS, FileFacts, read_file_facts
from osteofusion.audit.findings import AuditReport, Finding, LabelReading
from osteofusion.audit.predictability import Reading, Target, holm
from osteofusion.audit.shared_films import copy_findings, describe_copies, subject_finding
from osteofusion.audit.sources import Collection, shown
from osteofusion.audit.verdicts import (
    drift_findings,
    family_finding,
    feature_finding,
    reading_findings,
)
from osteofusion.data.checks import LEAK_AUROC
from osteofusion.data.splits import connected_groups
from osteofusion.errors import CohortError
from osteofusion.evaluation.metrics import Ints

_NAMES = ("ID pattern", "file name")  # groups that say nothing of the population


def assess(collection: Collection, *, progress: bool = False) -> tuple[AuditReport, Collection]:
    """Audit a collection.

    Args:
        collection: Images, from `from_cohort` or `from_folders`.
        progress: Show progress bars on standard error.

    Returns:
        The report, and the collection without unreadable images: the rows that its copies mean.

    Raises:
        CohortError: no image can be read.
    """
    collection, facts, search, unreadable = _read(collection, progress=progress)
    table = collection.table
    films = np.arange(len(table))
    for group in search.films:
        films[group] = min(group)
    subjects = table["subject"].where(table["subject"].notna(), None).tolist()
    unique = [f"{i}" if name is None else f"subject {name}" for i, name in enumerate(subjects)]
    groups = connected_groups(unique, [None] * len(table), films.tolist())
    copies = describe_copies(collection, search.pairs, facts.sha256)
    target = Target(table["label"].tolist(), groups)
    readings = read_labels(target, facts, table["source"])
    features = read_features(collection, target) if collection.columns else None
    split_drift, split_sides = _compare(collection, facts, groups, "split")
    source_drift, source_sides = _compare(collection, facts, groups, "source")
    findings = [
        Finding("unreadable_images", len(unreadable), "not looked at", unreadable),
        *copy_findings(collection, search.films, copies),
        *subject_finding(collection),
        *reading_findings(target, readings),
        family_finding(facts.table, table["label"], groups),
        feature_finding(features),
        *drift_findings(split_drift, split_sides, source_drift, source_sides),
    ]
    notes = list(collection.notes)
    if search.undecided:
        named = [f"{table['name'].iat[i]} ({why})" for i, why in search.undecided]
        notes.append(f"only identical copies were looked for of {len(named)}: {_few(named)}")
    if target.left_out and target.reason is None:
        notes.append(f"too few to be predicted: {', '.join(target.left_out)}")
    if collection.divisions.shape[1] > 1:
        notes.append(
            f"{collection.divisions.shape[1]} divisions: copies and subjects were looked for "
            "across the sides of each, differences between the sides of the first"
        )
    report = AuditReport(
        title=collection.title,
        images=int(table["path"].notna().sum()),
        subjects=len(set(subjects) - {None}) or None,
        labels=_counts(table["label"]),
        splits=_counts(_sides(collection)),
        sources=_counts(table["source"]),
        notes=notes,
        findings=findings,
        copies=copies,
        label_readings=readings,
        families=_families(facts, table["label"]),
        features=features,
        drift=[*split_drift, *source_drift],
        sides=[*split_sides, *source_sides],
    )
    return report, collection


def _read(
    collection: Collection, *, progress: bool
) -> tuple[Collection, FileFacts, CopySearch, list[str]]:
    """File facts and copies, of the images that can be read; the others in words."""
    there = collection.table["path"].notna()
    if not there.all():
        count = int((~there).sum())
        collection.notes.append(f"{count} rows have no image; only their columns were looked at")
    paths: list[Path] = collection.table["path"][there].tolist()
    places = np.flatnonzero(there)
    facts = read_file_facts(paths, progress=progress)
    names = collection.table["name"].tolist()
    unreadable = {int(places[i]): reason for i, reason in facts.unreadable.items()}
    kept = [i for i in range(len(collection.table)) if i not in unreadable]
    if not kept:
        first = next(iter(facts.unreadable.values()))
        raise CohortError(f"None of the images of {collection.title} can be read, such as: {first}")
    facts = _spread(facts, places, kept)
    collection = collection.keep(kept)
    rows = np.flatnonzero(collection.table["path"].notna()).tolist()
    found = find_copies(collection.table["path"].iloc[rows].tolist(), progress=progress)
    search = CopySearch(
        [replace(pair, a=rows[pair.a], b=rows[pair.b]) for pair in found.pairs],
        [],
        [(rows[i], why) for i, why in found.undecided],
    )
    shown_names = [f"{names[i]}: {shown(reason)}" for i, reason in unreadable.items()]
    shown_names += [
        f"{collection.table['name'].iat[rows[i]]}: {shown(why)}" for i, why in found.unreadable
    ]
    return collection, facts, search, shown_names


def _spread(facts: FileFacts, places: np.ndarray, kept: Sequence[int]) -> FileFacts:
    """The facts in the rows of the kept images; missing where a row has no image."""
    table = facts.table.set_axis(places).reindex(pd.Index(kept)).reset_index(drop=True)
    digest = dict(zip(places.tolist(), facts.sha256, strict=True))
    return FileFacts(table, [digest.get(i, "") for i in kept], {})


def read_labels(target: Target, facts: FileFacts, source: pd.Series) -> list[LabelReading]:
    """How well the target is read from each group of facts, and from all of either kind."""
    read: list[tuple[Reading, bool]] = []
    if target.reason is not None:
        return []
    for group in GROUPS:
        read.append((target.read(group.name, facts.table[list(group.columns)]), group.visible))
    for visible, name in ((True, "all of these in the pixels"), (False, "all of these outside")):
        perfect = {
            reading.what
            for reading, seen in read
            if seen == visible and not visible and (reading.auroc or 0) >= LEAK_AUROC
        }
        columns = [
            column
            for group in GROUPS
            if group.visible == visible and group.name not in perfect
            for column in group.columns
        ]
        without = f", without {', '.join(sorted(perfect))}" if perfect else ""
        read.append((target.read(f"{name}{without}", facts.table[columns]), visible))
    if source.nunique() > 1:
        read.append((target.read("source", source.astype(object).to_frame()), True))
    adjusted = holm([reading.p for reading, _ in read])
    readings = [
        LabelReading(reading, visible, p)
        for (reading, visible), p in zip(read, adjusted, strict=True)
    ]
    return sorted(readings, key=lambda item: not item.visible)


def _compare(
    collection: Collection, facts: FileFacts, groups: Ints, what: str
) -> tuple[list[DriftTest], list[Reading]]:
    sides = _sides(collection) if what == "split" else collection.table["source"]
    comparisons = compare_sides(sides.tolist())
    if not comparisons:
        return [], []
    named = [column for group in GROUPS if group.name in _NAMES for column in group.columns]
    file_columns = facts.table.drop(columns=named)
    seen = [c for g in GROUPS if g.visible for c in g.columns]
    clinical = collection.clinical[
        [name for name, column in collection.columns.items() if column.kind != "text"]
    ]
    label = collection.table[["label"]]
    # A patient has a height as well.
    columns = pd.concat([label, clinical, file_columns.add_prefix("file: ")], axis=1)
    drift = find_drift(comparisons, columns, groups)
    sets = {"file facts in the pixels": file_columns[seen]}
    sets["other file facts"] = file_columns.drop(columns=seen)
    if clinical.shape[1]:
        sets["clinical columns"] = clinical
    return drift, tell_apart(comparisons, sets, groups)


def _sides(collection: Collection) -> pd.Series:
    if not collection.divisions.shape[1]:
        return pd.Series([None] * len(collection.table), dtype=object)
    return collection.divisions.iloc[:, 0]


def _counts(values: pd.Series) -> dict[str, int]:
    return {str(word): int(count) for word, count in values.value_counts().items()}


def _families(facts: FileFacts, labels: pd.Series) -> dict[str, dict[str, int]]:
    """Labels of each acquisition family, largest first."""
    known = labels.fillna("unknown")
    families = facts.table["family"]  # missing where a row has no image
    return {
        str(family): _counts(known[families == family].reset_index(drop=True))
        for family in families.value_counts().index
    }


def _few(items: list[str]) -> str:
    return "; ".join(items[:3]) + (" ..." if len(items) > 3 else "")
