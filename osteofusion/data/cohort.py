"""Join radiographs to clinical rows by subject ID; say everything that does not fit."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.progress import track

from osteofusion.data.checks import describe
from osteofusion.data.clinical import cross_check, parse_column
from osteofusion.data.images import find_images
from osteofusion.data.labels import label_file, read_labels
from osteofusion.data.manifest import Manifest, load_manifest, normalise_id
from osteofusion.data.radiograph import content_hash, read_radiograph
from osteofusion.data.report import JoinReport
from osteofusion.data.splits import connected_groups
from osteofusion.data.table import find_column, need_column, read_table
from osteofusion.errors import CohortError, RadiographError


@dataclass(frozen=True)
class Cohort:
    """One row a radiograph, in the order of subject ID and image.

    Attributes:
        table: Columns `subject_id, image` (relative to the root), `image_sha256, group, site,
            region, label` (None where unknown), then the canonical clinical columns.
        manifest: What the columns mean.
        root: Folder of the data set.
        report: What the join found.
    """

    table: pd.DataFrame
    manifest: Manifest
    root: Path
    report: JoinReport


def build_cohort(
    manifest: Manifest | str | Path,
    root: str | os.PathLike[str],
    *,
    table: str | os.PathLike[str] | None = None,
    labels: str | os.PathLike[str] | None = None,
    need_labels: bool = True,
    decode: bool = False,
    progress: bool = False,
) -> Cohort:
    """Join the images under `root` to the rows of the manifest's table.

    Args:
        manifest: A manifest, its path, or the name of a shipped one.
        root: Folder of the data set.
        table: Another table file in place of the manifest's.
        labels: Another label file in place of the manifest's.
        need_labels: False for new patients: rows without a label stay, and images may lie
            outside class folders.
        decode: Decode every image, so that unreadable ones are found now.
        progress: Show a progress bar on standard error.

    Raises:
        ManifestError: the manifest is wrong.
        CohortError: files, columns or labels are missing, or nothing matches.
    """
    if not isinstance(manifest, Manifest):
        manifest = load_manifest(manifest)
    root = Path(root)
    if not root.is_dir():
        raise CohortError(missing_root_message(manifest, root))
    table_path = Path(table) if table is not None else root / manifest.table.file
    if table is None and not table_path.is_file():
        raise CohortError(
            f"{root} has no {manifest.table.file!r}, the table of {manifest.name}; expected "
            f"under the root:\n{manifest.layout()}"
        )
    raw = read_table(table_path, manifest)
    report = JoinReport(
        manifest=manifest.name,
        title=manifest.title,
        citation=manifest.citation,
        synthetic=manifest.synthetic,
        root=str(root),
        rows=0,
        images=0,
        joined=0,
        subjects=0,
        by_label={},
    )
    rows = _clinical_rows(raw, table_path, manifest, report)
    rows["label"] = read_labels(
        raw.loc[rows.index],
        rows,
        table_path,
        manifest,
        report,
        file=label_file(manifest, root, labels) if need_labels else None,
        needed=need_labels,
    )
    images = find_images(root, manifest, raw, table_path, report, need_labels=need_labels)
    report.images = len(images)
    joined = _join(rows, images, manifest, report, need_labels=need_labels)
    joined = _hash_images(joined, root, report, decode=decode, progress=progress)
    if joined.empty:
        first = report.unreadable_images[0]["reason"]
        raise CohortError(f"None of the radiographs under {root} can be read, such as: {first}")
    joined["group"] = connected_groups(
        joined["subject_id"].tolist(), joined["image_sha256"].tolist()
    )
    describe(joined, manifest, report)
    return Cohort(joined, manifest, root, report)


def missing_root_message(manifest: Manifest, root: Path | None) -> str:
    """Where to get a data set and how its folder should look."""
    start = f"Folder {root} does not exist" if root is not None else "No folder given"
    source = f" Get it from {manifest.url} ({manifest.license})." if manifest.url else ""
    return (
        f"{start}: {manifest.name} ({manifest.title}) needs the folder that holds its files."
        f"{source} Expected there:\n{manifest.layout()}"
    )


def _clinical_rows(
    raw: pd.DataFrame, path: Path, manifest: Manifest, report: JoinReport
) -> pd.DataFrame:
    """Canonical columns, one row a subject, indexed by spreadsheet row."""
    id_header = need_column(raw, [manifest.table.id], path, "ID column")
    has_id = raw[id_header].notna()
    report.summary_rows = [int(row) for row in raw.index[~has_id]]
    raw = raw[has_id]
    if raw.empty:
        raise CohortError(f"Table {path} has no row with a {id_header!r}; choose another sheet.")
    ids = raw[id_header].map(normalise_id)
    repeated = ids.duplicated(keep=False)
    if repeated.any():
        # Equal rows say one thing twice; differing ones leave no row that could be trusted. A
        # running number may differ, and so may the image path: one row a film.
        content = _content(raw.assign(**{id_header: ids}), path, manifest)
        same = content.duplicated(keep="first")
        differing = ids[~same][ids[~same].duplicated(keep=False)]
        several = set(ids[repeated])
        if manifest.images.layout == "column":
            several &= set(differing)
        report.duplicate_ids = sorted(several)
        keep = ~same & ~ids.isin(set(differing))
        raw, ids = raw[keep], ids[keep]
        if raw.empty:
            raise CohortError(
                f"Table {path} has several differing rows for each {id_header!r}, such as "
                f"{differing.iloc[0]!r}; give one row a subject, or correct table.id."
            )
    report.rows = len(raw)
    parsed: dict[str, pd.Series] = {"subject_id": ids}
    mapped = {id_header}
    for name, column in manifest.columns.items():
        header = find_column(raw, column.headers(name), path, f"column {name}")
        if header is None:
            report.absent_columns.append(name)
            continue
        mapped.add(header)
        parsed[name], unparsable, implausible = parse_column(
            raw[header], ids, name, column, manifest.table.decimal
        )
        if column.role in ("feature", "outcome"):
            report.unparsable_cells += unparsable
            report.implausible_cells += implausible
    named = {manifest.label.column, manifest.images.column} - {None}
    mapped |= {find_column(raw, [str(header)], path, "column") or "" for header in named}
    report.unmapped_columns = [str(name) for name in raw.columns if name not in mapped]
    rows = pd.DataFrame(parsed)
    report.implausible_cells += cross_check(rows, manifest)
    return rows


def _content(raw: pd.DataFrame, path: Path, manifest: Manifest) -> pd.DataFrame:
    """The cells in which two rows of one subject may not differ, as text."""
    free = {
        find_column(raw, column.headers(name), path, f"column {name}")
        for name, column in manifest.columns.items()
        if column.role == "identifier"
    }
    if manifest.images.column is not None:
        free.add(find_column(raw, [manifest.images.column], path, "image column"))
    return raw.loc[:, [name not in free for name in raw.columns]].astype(str)


def _join(
    rows: pd.DataFrame,
    images: pd.DataFrame,
    manifest: Manifest,
    report: JoinReport,
    *,
    need_labels: bool,
) -> pd.DataFrame:
    have_row = images["subject_id"].isin(set(rows["subject_id"]))
    have_image = rows["subject_id"].isin(set(images["subject_id"]))
    if not have_row.any():
        raise CohortError(
            f"No image matches a row: IDs in the table look like "
            f"{_examples(rows['subject_id'])}, images like {_examples(images['image'])}; correct "
            "table.id or images.id_pattern in the manifest."
        )
    duplicated = set(report.duplicate_ids)
    report.images_without_row = [
        name
        for name, subject in images.loc[~have_row, ["image", "subject_id"]].itertuples(index=False)
        if subject not in duplicated
    ]
    report.rows_without_image = rows.loc[~have_image, "subject_id"].tolist()
    joined = images[have_row].merge(rows, on="subject_id", how="left", validate="many_to_one")
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
    joined = joined.drop(columns="folder_label")
    joined.insert(2, "site", manifest.site or manifest.name)
    joined.insert(3, "region", manifest.region)
    return joined.sort_values(["subject_id", "image"], ignore_index=True)


def _examples(values: pd.Series) -> str:
    return ", ".join(repr(str(value)) for value in values.head(2))


def _hash_images(
    joined: pd.DataFrame, root: Path, report: JoinReport, *, decode: bool, progress: bool
) -> pd.DataFrame:
    def examine(name: str) -> tuple[str | None, str]:
        try:
            digest = content_hash(root / name)
            if decode:
                read_radiograph(root / name)
        except RadiographError as error:
            return None, str(error)
        return digest, ""

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        names = joined["image"].tolist()
        console = Console(stderr=True)
        results = list(
            track(
                pool.map(examine, names),
                description="Reading radiographs" if decode else "Hashing radiographs",
                total=len(names),
                console=console,
                transient=True,
                disable=not progress or not console.is_terminal,
            )
        )
    for name, (digest, reason) in zip(names, results, strict=True):
        if digest is None:
            report.unreadable_images.append({"image": name, "reason": reason})
    joined = joined.assign(image_sha256=[digest or "" for digest, _ in results])
    joined = joined[joined["image_sha256"] != ""].reset_index(drop=True)
    first = ["subject_id", "image", "image_sha256", "site", "region", "label"]
    return joined[[*first, *(name for name in joined.columns if name not in first)]]
