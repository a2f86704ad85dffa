"""Match radiographs to clinical rows by subject ID."""

from __future__ import annotations

import numpy as np
import pandas as pd

from osteofusion.data.images import near_ids
from osteofusion.data.manifest import Manifest
from osteofusion.data.report import JoinReport
from osteofusion.errors import CohortError


def join(rows: pd.DataFrame, images: pd.DataFrame, report: JoinReport) -> pd.DataFrame:
    """Columns subject_id, image, folder_label, label, then the rows' own; one row a radiograph.

    Args:
        rows: One row a subject, with `subject_id`, `label` and the canonical columns.
        images: One row a file, with `subject_id`, `image` and `folder_label`.
        report: Takes what does not match.

    Raises:
        CohortError: nothing matches.
    """
    subjects = pd.Index(rows["subject_id"], dtype=object)
    row = subjects.get_indexer(pd.Index(images["subject_id"], dtype=object))  # -1: none
    have_row, have_image = row >= 0, np.isin(np.arange(len(rows)), row)
    report.near_ids = near_ids(images.loc[~have_row, "subject_id"], subjects[~have_image])
    if not have_row.any():
        near = f" ({report.near_ids[0]} but for case or leading zeros)" if report.near_ids else ""
        raise CohortError(
            f"No image matches a row: IDs in the table look like "
            f"{_examples(rows['subject_id'])}, images like {_examples(images['image'])}{near}; "
            "correct table.id, table.id_pattern or images.id_pattern in the manifest."
        )
    duplicated = set(report.duplicate_ids)
    report.images_without_row = [
        name
        for name, subject in images.loc[~have_row, ["image", "subject_id"]].itertuples(index=False)
        if subject not in duplicated
    ]
    report.rows_without_image = rows.loc[~have_image, "subject_id"].tolist()
    theirs = rows.drop(columns="subject_id").iloc[row[have_row]]
    parts = [each.reset_index(drop=True) for each in (images[have_row], theirs)]
    joined: pd.DataFrame = pd.concat(parts, axis=1)
    return joined


def settle_labels(
    joined: pd.DataFrame, manifest: Manifest, report: JoinReport, *, need_labels: bool
) -> pd.DataFrame:
    """The joined rows with one `label` each: the table's, else the class folder's.

    Raises:
        CohortError: labels are needed and no row has one.
    """
    labelled = joined["label"].notna()
    from_folder = joined["folder_label"].notna()
    clash = labelled & from_folder & (joined["label"] != joined["folder_label"])
    columns = ["image", "folder_label", "label"]
    for image, folder, label in joined.loc[clash, columns].itertuples(index=False):
        report.label_conflicts.append({"image": image, "folder": folder, "table": label})
    joined["label"] = joined["label"].where(labelled, joined["folder_label"]).astype(object)
    if need_labels:
        without = joined["label"].isna()
        report.rows_without_label = sorted(joined.loc[without, "subject_id"].unique())
        joined = joined[~without]
        if joined.empty:
            raise CohortError(
                f"No subject of {manifest.name} has a label; see label in the manifest."
            )
    return joined.drop(columns="folder_label")


def _examples(values: pd.Series) -> str:
    return ", ".join(repr(str(value)) for value in values.head(2))
