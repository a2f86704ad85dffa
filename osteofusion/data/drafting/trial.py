"""Join the data by a drafted manifest, to learn what only the join shows."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from osteofusion.data.checks import describe
from osteofusion.data.images import find_images
from osteofusion.data.join import join, settle_labels
from osteofusion.data.labels import label_file, read_labels
from osteofusion.data.manifest import Manifest
from osteofusion.data.report import JoinReport
from osteofusion.data.rows import clinical_rows
from osteofusion.errors import OsteofusionError


def try_join(
    manifest: Manifest, root: Path, raw: pd.DataFrame | None
) -> tuple[JoinReport, str | None]:
    """The report of joining the table, as read, and what stopped it; no image is opened.

    `build_cohort` would read every file for its hash, which a first look need not wait for.
    """
    report = JoinReport.of(manifest, root)
    try:
        _join(manifest, root, raw, report)
    except OsteofusionError as error:
        return report, str(error)
    return report, None


def _join(manifest: Manifest, root: Path, raw: pd.DataFrame | None, report: JoinReport) -> None:
    file = label_file(manifest, root, None)
    if manifest.table is None or raw is None:
        images = find_images(root, manifest, None, None, report, need_labels=True)
        report.images = report.joined = len(images)
        return
    path = root / manifest.table.file
    rows = clinical_rows(raw, path, manifest, manifest.table, report)
    rows["label"] = read_labels(
        raw.loc[rows.index], rows, path, manifest, report, file=file, needed=True
    )
    joined = rows.assign(image="", folder_label=None)
    if manifest.images is not None:
        images = find_images(root, manifest, raw, path, report, need_labels=True)
        report.images = len(images)
        joined = join(rows, images, report)
    joined = settle_labels(joined, manifest, report, need_labels=True)
    describe(joined.assign(image_sha256=""), manifest, report)
