"""Join radiographs to clinical rows by subject ID; say everything that does not fit."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TypeAlias

import pandas as pd

from osteofusion.data.checks import describe
from osteofusion.data.copies import tied_digests
from osteofusion.data.images import find_images
from osteofusion.data.join import join, settle_labels
from osteofusion.data.labels import are_synthetic, label_file, read_labels
from osteofusion.data.manifest import Manifest, load_manifest
from osteofusion.data.radiograph import content_hash, read_radiograph
from osteofusion.data.report import JoinReport
from osteofusion.data.rows import clinical_rows
from osteofusion.data.splits import connected_groups
from osteofusion.data.table import read_table
from osteofusion.data.unite import unite
from osteofusion.errors import CohortError, RadiographError
from osteofusion.progress import in_threads

Folder: TypeAlias = str | os.PathLike[str]
Source: TypeAlias = Manifest | str | os.PathLike[str]
FIRST = ("subject_id", "image", "image_sha256", "group", "site", "region", "label")
_ONE = (Manifest, str, os.PathLike)
_BATCH = 32  # images that a thread takes at once, or handing them out would cost more than hashing


@dataclass(frozen=True)
class Cohort:
    """One row a radiograph, or a subject where there are no images, by subject ID and image.

    In a cohort of several data sets, subjects and images begin with their site, as in
    ``clinic/A12``, since two hospitals may number their patients alike.

    Attributes:
        table: Columns `subject_id, image` (relative to its site's root; empty without images),
            `image_sha256, group, site, region, label` (None where unknown), then the canonical
            clinical columns.
        manifest: What the columns mean; of several data sets, their union.
        roots: Folder of each site.
        report: What the join found.
    """

    table: pd.DataFrame
    manifest: Manifest
    roots: dict[str, Path]
    report: JoinReport

    def files(self, rows: pd.DataFrame) -> list[Path]:
        """Path of each row's radiograph."""
        several = len(self.roots) > 1
        return [
            self.roots[site] / (image.removeprefix(f"{site}/") if several else image)
            for site, image in zip(rows["site"], rows["image"], strict=True)
        ]


def build_cohort(
    manifest: Source | Sequence[Source],
    root: Folder | Sequence[Folder],
    *,
    table: Folder | None = None,
    labels: Folder | None = None,
    copies: Folder | None = None,
    need_labels: bool = True,
    decode: bool = False,
    progress: bool = False,
) -> Cohort:
    """Join the images under `root` to the rows of the manifest's table.

    A data set without a table has its subjects from the file names; one without images has one
    row a subject. Several data sets, each with its root, become one cohort: columns are united by
    canonical name, and one that a data set lacks is missing there.

    Args:
        manifest: A manifest, its path, or the name of a shipped one; or several.
        root: Folder of the data set; or as many.
        table: Another table file in place of the manifest's; for one data set.
        labels: Another label file in place of the manifest's; for one data set.
        copies: ``copies.csv`` of an audit; rows that it ties share a group, and so stay on one
            side of every split.
        need_labels: False for new patients: rows without a label stay, and images may lie
            outside class folders.
        decode: Decode every image, so that unreadable ones are found now.
        progress: Show a progress bar on standard error.

    Raises:
        ManifestError: a manifest is wrong, or two contradict each other.
        CohortError: files, columns or labels are missing, or nothing matches.
    """
    manifests, roots = _pairs(manifest, root)
    if len(manifests) > 1 and (table is not None or labels is not None):
        raise CohortError(
            "Another table or label file goes with one data set; of several, name each one's in "
            "its manifest (table.file, label.file)."
        )
    if need_labels:
        manifests = [
            each.with_synthetic_labels()
            if are_synthetic(label_file(each, folder, labels), each)
            else each
            for each, folder in zip(manifests, roots, strict=True)
        ]
    united = unite(manifests)
    parts, reports = [], []
    for each, folder in zip(manifests, roots, strict=True):
        rows, report = _join_site(
            each, folder, table, labels, need_labels=need_labels, progress=progress
        )
        rows = _read_images(rows, folder, report, decode=decode, progress=progress)
        if rows.empty:
            first = report.unreadable_images[0]["reason"]
            raise CohortError(
                f"None of the radiographs under {folder} can be read, such as: {first}"
            )
        parts.append(rows)
        reports.append(report)
    if len(parts) == 1:
        joined, report = parts[0], reports[0]
    else:
        for rows, each, report in zip(parts, manifests, reports, strict=True):
            describe(rows, each, report)
        joined = pd.concat([_named_by_site(rows) for rows in parts], ignore_index=True)
        report = JoinReport.of_sites(united, reports)
    film = tied_digests(copies) if copies is not None else {}
    digests = joined["image_sha256"].tolist()
    if film and need_labels and not film.keys() & set(digests):
        raise CohortError(
            f"Copies {os.fspath(copies or '')} names no file of this cohort; give the copies.csv "
            "of an audit of the same files."
        )
    joined["group"] = connected_groups(
        joined["subject_id"].tolist(), digests, [film.get(digest) for digest in digests]
    )
    named = [name for name in united.columns if name in joined and name not in FIRST]
    joined = joined[[*FIRST, *named]]
    describe(joined, united, report)
    sites = {each.site_name: folder for each, folder in zip(manifests, roots, strict=True)}
    return Cohort(joined, united, sites, report)


def missing_root_message(manifest: Manifest, root: Path | None) -> str:
    """Where to get a data set and how its folder should look."""
    start = f"Folder {root} does not exist" if root is not None else "No folder given"
    source = f" Get it from {manifest.url} ({manifest.license})." if manifest.url else ""
    return (
        f"{start}: {manifest.name} ({manifest.title}) needs the folder that holds its files."
        f"{source} Expected there:\n{manifest.layout()}"
    )


def _pairs(
    manifest: Source | Sequence[Source], root: Folder | Sequence[Folder]
) -> tuple[list[Manifest], list[Path]]:
    """Each manifest with its folder, which exists."""
    sources = [manifest] if isinstance(manifest, _ONE) else list(manifest)
    folders = [root] if isinstance(root, (str, os.PathLike)) else list(root)
    if len(sources) != len(folders) or not sources:
        raise CohortError(
            f"{len(sources)} manifests and {len(folders)} root folders were given; give one root "
            "for each manifest, in the same order."
        )
    manifests = [each if isinstance(each, Manifest) else load_manifest(each) for each in sources]
    roots = [Path(folder) for folder in folders]
    for each, folder in zip(manifests, roots, strict=True):
        if not folder.is_dir():
            raise CohortError(missing_root_message(each, folder))
    return manifests, roots


def _join_site(
    manifest: Manifest,
    root: Path,
    table: Folder | None,
    labels: Folder | None,
    *,
    need_labels: bool,
    progress: bool,
) -> tuple[pd.DataFrame, JoinReport]:
    """Rows of one data set, their images found and labelled but not yet read."""
    report = JoinReport.of(manifest, root)
    file = label_file(manifest, root, labels) if need_labels else None
    raw, path = None, root
    if manifest.table is not None:
        path = Path(table) if table is not None else root / manifest.table.file
        if table is None and not path.is_file():
            raise CohortError(
                f"{root} has no {manifest.table.file!r}, the table of {manifest.name}; expected "
                f"under the root:\n{manifest.layout()}"
            )
        raw = read_table(path, manifest.table)
        rows = clinical_rows(raw, path, manifest, manifest.table, report)
    elif table is not None:
        raise CohortError(
            f"Manifest {manifest.name} describes no table, so the columns of {table} mean nothing; "
            "add `table` and `columns` to it (osteofusion manifest init drafts them)."
        )
    images = None
    if manifest.images is not None:
        images = find_images(
            root, manifest, raw, path, report, need_labels=need_labels, progress=progress
        )
        report.images = len(images)
    if raw is None:
        assert images is not None  # a manifest has a table or images
        rows = images[["subject_id"]].drop_duplicates(ignore_index=True)
        raw = pd.DataFrame(index=rows.index)
    rows["label"] = read_labels(
        raw.loc[rows.index], rows, path, manifest, report, file=file, needed=need_labels
    )
    if images is None:
        joined = rows.assign(image="", folder_label=None)
    else:
        joined = join(rows, images, report)
    joined = settle_labels(joined, manifest, report, need_labels=need_labels)
    if images is not None and any(column.dicom for column in manifest.columns.values()):
        from osteofusion.data.headers import fill_from_headers, read_headers

        files = [root / image for image in joined["image"]]
        joined = fill_from_headers(joined, manifest, read_headers(files, progress=progress), report)
    joined["site"], joined["region"] = manifest.site_name, manifest.region
    # They are sorted by image.
    return joined.sort_values("subject_id", kind="stable", ignore_index=True), report


def _read_images(
    joined: pd.DataFrame, root: Path, report: JoinReport, *, decode: bool, progress: bool
) -> pd.DataFrame:
    """The rows whose image can be read, with its `image_sha256` (empty without images)."""
    folder = os.path.join(root, "")
    refused: dict[str, str] = {}

    def examine(name: str) -> str | None:
        if not name:
            return ""
        try:
            digest = content_hash(folder + name)
            if decode:
                read_radiograph(folder + name)
        except RadiographError as error:
            refused[name] = str(error)
            return None
        return digest

    names = joined["image"].tolist()
    batches = [names[i : i + _BATCH] for i in range(0, len(names), _BATCH)]
    what = "Reading radiographs" if decode else "Hashing radiographs"
    found = in_threads(lambda batch: [examine(name) for name in batch], batches, what, progress)
    joined["image_sha256"] = list(chain.from_iterable(found))
    report.unreadable_images += [
        {"image": name, "reason": refused[name]} for name in names if name in refused
    ]
    return joined[joined["image_sha256"].notna()].reset_index(drop=True)


def _named_by_site(rows: pd.DataFrame) -> pd.DataFrame:
    site = rows["site"] + "/"
    image = (site + rows["image"]).where(rows["image"] != "", "")
    return rows.assign(subject_id=site + rows["subject_id"], image=image)
