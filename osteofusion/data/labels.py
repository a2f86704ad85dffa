"""Labels: from a column, a T-score, or a file of their own; and the tasks they serve."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd

from osteofusion.data.clinical import MISSING_WORDS, YES_NO
from osteofusion.data.manifest import LABELS, Manifest, Table, normalise_word, subject_id
from osteofusion.data.report import JoinReport
from osteofusion.data.table import distinct_cells, find_column, need_column, read_table
from osteofusion.errors import CohortError

TASKS: dict[str, dict[str, str]] = {
    "binary": {"normal": "normal", "osteopenia": "low_bmd", "osteoporosis": "low_bmd"},
    "osteoporosis": {
        "normal": "no_osteoporosis",
        "osteopenia": "no_osteoporosis",
        "osteoporosis": "osteoporosis",
    },
    "three_class": {label: label for label in LABELS},
}


def task_classes(task: str) -> list[str]:
    """Class names of a task, in order of falling bone density."""
    return list(dict.fromkeys(TASKS[task].values()))


def label_file(manifest: Manifest, root: Path, given: str | os.PathLike[str] | None) -> Path | None:
    """The separate label file: the one given, else the manifest's; None when there is none.

    Raises:
        CohortError: it does not exist.
    """
    if given is None and manifest.label.file is None:
        return None
    path = Path(given) if given is not None else root / str(manifest.label.file)
    if not path.is_file():
        note = f" {manifest.note}" if manifest.note else ""
        raise CohortError(f"Label file {path} does not exist.{note}")
    return path


def are_synthetic(file: Path | None, manifest: Manifest) -> bool:
    """Whether a label file says of itself, in a column `synthetic`, that a label is invented.

    Raises:
        CohortError: it cannot be read, or the column holds other words than yes and no.
    """
    if file is None:
        return False
    table = _label_table(file, manifest)
    header = find_column(table, ["synthetic"], file, "synthetic column")
    words = (
        {} if header is None else {row: normalise_word(cell) for row, cell in table[header].items()}
    )
    for row, word in words.items():
        if word not in YES_NO:
            raise CohortError(
                f"Label file {file}, row {row}: synthetic is {word!r}; write yes or no."
            )
    return any(YES_NO[word] for word in words.values())


def read_labels(
    raw: pd.DataFrame,
    rows: pd.DataFrame,
    path: Path,
    manifest: Manifest,
    report: JoinReport,
    *,
    file: Path | None,
    needed: bool,
) -> pd.Series:
    """The class of each row (None where unknown), from the file, the column or the T-score.

    Args:
        raw: Cells of the table, indexed as `rows`; without columns where there is no table.
        rows: `subject_id` and the canonical columns.
        path: Where `raw` comes from, for messages.
        manifest: Says where the label stands.
        report: Takes contradictions.
        file: A separate label file.
        needed: Whether rows without a label are of no use.

    Raises:
        CohortError: the label column is missing, a label is unknown, or the file names subjects
            that the table does not have.
    """
    source = manifest.label
    labels = pd.Series([None] * len(rows), index=rows.index, dtype=object)
    if file is not None:
        by_id = _read_label_file(file, manifest)
        labels = rows["subject_id"].map(by_id).where(lambda found: found.notna(), None)
        unknown = sorted(set(by_id) - set(rows["subject_id"]))
        if unknown:
            raise CohortError(
                f"Label file {file} names {len(unknown)} subjects that {path} does not "
                f"have, such as {unknown[0]!r}; correct their {source.id!r}."
            )
    elif source.column is not None and source.file is None:
        headers = [source.column]
        header = (
            need_column(raw, headers, path, "label column")
            if needed and source.t_score not in rows
            else find_column(raw, headers, path, "label column")
        )
        if header is not None:
            codes, distinct = distinct_cells(raw[header])
            found = [
                None
                if normalise_word(cell) in MISSING_WORDS
                else _canonical_label(cell, manifest, f"table {path}, row {row}, {header!r}")
                for row, cell in distinct.items()
            ]
            each = np.array([*found, None], dtype=object)[codes]
            labels = pd.Series(each, index=rows.index, dtype=object)
    elif needed and source.t_score is not None and source.t_score not in rows:
        headers = manifest.columns[source.t_score].headers(source.t_score)
        need_column(raw, headers, path, "T-score column")
    if source.t_score is not None and source.t_score in rows:
        by_score = rows[source.t_score].map(who_label, na_action="ignore")
        clash = labels.notna() & by_score.notna() & (labels != by_score)
        told = (rows["subject_id"], labels, rows[source.t_score], by_score)
        for subject, label, score, who in zip(*(each[clash] for each in told), strict=True):
            report.label_conflicts.append(
                {"subject": subject, "table": label, f"{source.t_score} {score!s}": who}
            )
        labels = labels.where(labels.notna(), by_score.where(by_score.notna(), None))
    return labels


def who_label(t_score: float) -> str:
    """WHO class of a T-score in SD: >= -1 normal, <= -2.5 osteoporosis, between osteopenia.

    World Health Organization, Technical Report Series 843, 1994.
    """
    if t_score >= -1.0:
        return "normal"
    return "osteoporosis" if t_score <= -2.5 else "osteopenia"


def _canonical_label(cell: object, manifest: Manifest, where: str) -> str:
    word = normalise_word(cell)
    label = manifest.label.values.get(word, word)
    if label not in LABELS:
        raise CohortError(
            f"Unknown label {str(cell)!r} in {where}; use {', '.join(LABELS)}, or map it under "
            "label.values in the manifest."
        )
    return label


def _label_table(path: Path, manifest: Manifest) -> pd.DataFrame:
    layout = Table(file=path.name, id=manifest.label.id)
    if manifest.table is not None:
        layout = layout.model_copy(update={"encoding": manifest.table.encoding})
    return read_table(path, layout)


def _read_label_file(path: Path, manifest: Manifest) -> dict[str, str]:
    table = _label_table(path, manifest)
    ids = need_column(table, [manifest.label.id], path, "ID column")
    header = need_column(table, [manifest.label.column or "label"], path, "label column")
    # Its IDs are written as the table's are or, where there is none, as the files are named.
    ids_as = manifest.table or manifest.images
    assert ids_as is not None  # a manifest has one of them
    found: dict[str, str] = {}
    for row, subject, cell in table[[ids, header]].itertuples(name=None):
        if subject is None or cell is None:
            raise CohortError(f"Label file {path}, row {row}: the ID or the label is empty.")
        label = _canonical_label(cell, manifest, f"label file {path}, row {row}")
        if found.setdefault(subject_id(subject, ids_as.id_pattern), label) != label:
            raise CohortError(
                f"Label file {path}, row {row}: subject {subject} has two labels; keep one."
            )
    return found
