"""Find the radiographs of a data set and whose they are."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from osteofusion.data.manifest import (
    Images,
    Label,
    Manifest,
    normalise_word,
    subject_id,
)
from osteofusion.data.radiograph import RADIOGRAPH_SUFFIXES, is_dicom
from osteofusion.data.report import JoinReport
from osteofusion.data.scan import FolderScan, scan_folder, sided_pairs, stem
from osteofusion.data.table import need_column
from osteofusion.errors import CohortError, RadiographError

_DEPTH = 3  # folders below the root in which class folders are looked for


def find_images(
    root: Path,
    manifest: Manifest,
    raw: pd.DataFrame | None,
    table: Path | None,
    report: JoinReport,
    *,
    need_labels: bool,
    progress: bool = False,
) -> pd.DataFrame:
    """Columns subject_id, image (relative to the root), folder_label; one row a file, by path.

    Images beside the class folders are left out where labels are needed (they may be figures or
    thumbnails), and taken where not (they may be new patients). Class folders are the ones
    nearest to the root, up to three levels below, so that an archive may be unpacked into a
    folder of its own. Whatever is left out or looks odd goes to the report.

    Args:
        root: Folder of the data set.
        manifest: Its `images` say where to look.
        raw: The table as read; None where there is none.
        table: Path of the table, which counts as no odd file.
        report: Takes what is left out or looks wrong.
        need_labels: Whether class folders must be there.
        progress: Show a progress bar while DICOM headers are read for their PatientID.

    Raises:
        CohortError: a folder or a file that the table names is missing, a file name is no text,
            IDs are to come from headers and a file is not DICOM, or there is no image.
        RadiographError: a DICOMDIR cannot be read, or pydicom is missing.
    """
    spec = manifest.images
    assert spec is not None  # else there is nothing to look for
    if spec.layout == "column":
        return _in_column(root, manifest, spec, raw, table)
    labels: dict[str, Label | None]  # of each file
    if spec.layout == "folder":
        labels = dict.fromkeys(_in_folder(root, manifest, spec, report))
    else:
        labels = _in_class_folders(root, manifest, spec, report, need_labels=need_labels)
    known = [table, root / manifest.label.file if manifest.label.file is not None else None]
    used = {path.absolute() for path in known if path is not None}
    report.other_files = [
        name for name in report.other_files if (root / name).absolute() not in used
    ]
    if not labels:
        odd = [item["image"] for item in report.unreadable_images] + report.other_files
        lies = f" ({len(odd)} other files, such as {odd[0]!r})" if odd else ""
        raise CohortError(
            f"No image (DICOM, {', '.join(sorted(RADIOGRAPH_SUFFIXES))}) under {root}{lies}; "
            f"expected:\n{manifest.layout()}"
        )
    ids = _subjects(list(labels), root, spec, report, progress=progress)
    if raw is None and manifest.label.file is None and spec.id == "name":
        _keep_classes_apart(ids, labels, report)
    if spec.id == "name":
        _note_equal_names(ids, report)
    if raw is None:
        sides = sided_pairs(ids.values())
        report.sides_as_subjects = [" | ".join(names) for names in sides.values()]
    return _frame(list(ids.values()), list(ids), [labels[name] for name in ids])


def near_ids(ids: Iterable[str], others: Iterable[str]) -> list[str]:
    """IDs of either side that would match but for case or leading zeros, as ``'007' ~ '7'``."""

    def bare(identifier: str) -> str:
        return re.sub(r"(?<!\d)0+(?=\d)", "", identifier).casefold()

    ids, others = set(ids), set(others)
    by_bare = {bare(other): other for other in sorted(others - ids)}
    lone = sorted(ids - others)
    return [f"{one!r} ~ {by_bare[bare(one)]!r}" for one in lone if bare(one) in by_bare]


def _in_column(
    root: Path, manifest: Manifest, spec: Images, raw: pd.DataFrame | None, table: Path | None
) -> pd.DataFrame:
    assert raw is not None  # else the manifest would be refused
    assert manifest.table is not None
    assert table is not None
    header = need_column(raw, [str(spec.column)], table, "image column")
    ids = need_column(raw, [manifest.table.id], table, "ID column")
    found: dict[tuple[str, str], None] = {}  # two rows may say the same
    for row, identifier, name in raw[[ids, header]].itertuples(name=None):
        if identifier is None or name is None:
            continue
        if not (root / str(name)).is_file():
            raise CohortError(
                f"Table {table}, row {row}, column {header!r}: {root / str(name)} does not "
                "exist; correct the path or empty the cell."
            )
        subject = subject_id(identifier, manifest.table.id_pattern)
        found[subject, Path(str(name)).as_posix()] = None
    return _frame(
        [subject for subject, _ in found], [name for _, name in found], [None] * len(found)
    )


def _in_folder(root: Path, manifest: Manifest, spec: Images, report: JoinReport) -> list[str]:
    folder = root / spec.folder
    if not folder.is_relative_to(root):
        raise CohortError(
            f"images.folder {spec.folder!r} is not relative to the root {root}; correct it."
        )
    if folder.is_file():
        from osteofusion.data.dicom import dicomdir_images

        return [path.relative_to(root).as_posix() for path in dicomdir_images(folder)]
    if not folder.is_dir():
        raise CohortError(f"{root} has no folder {spec.folder!r}; expected:\n{manifest.layout()}")
    scan = scan_folder(folder, root)
    _note(scan, report)
    return scan.images


def _in_class_folders(
    root: Path, manifest: Manifest, spec: Images, report: JoinReport, *, need_labels: bool
) -> dict[str, Label | None]:
    wanted = {normalise_word(name): label for name, label in spec.folders.items()}
    folders = {path: wanted[normalise_word(path.name)] for path in _class_folders(root, wanted)}
    missing = set(wanted) - {normalise_word(folder.name) for folder in folders}
    if need_labels and missing:
        raise CohortError(
            f"{root} has no folder {', '.join(map(repr, sorted(missing)))}; expected:\n"
            f"{manifest.layout()}"
        )
    labels: dict[str, Label | None] = {}
    for folder, label in folders.items():
        if root.resolve().is_relative_to(folder.resolve()):
            raise CohortError(
                f"Class folder {folder} is a link to a folder that holds it; remove the link."
            )
        scan = scan_folder(folder, root)
        _note(scan, report)
        labels |= dict.fromkeys(scan.images, label)
        if not scan.images:
            report.empty_folders.append(folder.relative_to(root).as_posix())
    outside = scan_folder(root, root, skip=folders.keys())
    _note(outside, report)
    if need_labels:
        report.images_outside_folders = outside.images
        return labels
    return labels | dict.fromkeys(outside.images)


def _class_folders(root: Path, wanted: Iterable[str]) -> list[Path]:
    """The folders of the wanted names on the first level that has any."""
    level = [root]
    for _ in range(_DEPTH):
        inside = [entry for folder in level for entry in _folders(folder)]
        if found := [entry for entry in inside if normalise_word(entry.name) in set(wanted)]:
            return sorted(found)
        level = [entry for entry in inside if not entry.is_symlink() and entry.name[0] != "."]
    return []


def _folders(folder: Path) -> list[Path]:
    try:
        return [entry for entry in folder.iterdir() if entry.is_dir()]
    except OSError:  # told by the scan
        return []


def _subjects(
    names: list[str], root: Path, spec: Images, report: JoinReport, *, progress: bool
) -> dict[str, str]:
    """Subject ID of each file that has one."""
    given: list[str | None]
    if spec.id == "name":
        given = [stem(name) for name in names]
    else:
        given = _patient_ids(names, root, report, progress=progress)
    refused = {item["image"] for item in report.unreadable_images}
    ids = {}
    for name, text in zip(names, given, strict=True):
        if text is not None and (subject := subject_id(text, spec.id_pattern)):
            ids[name] = subject
        elif name not in refused:
            report.images_without_id.append(name)
    return ids


def _patient_ids(
    names: list[str], root: Path, report: JoinReport, *, progress: bool
) -> list[str | None]:
    from osteofusion.data.dicom import read_dicom_facts
    from osteofusion.data.headers import read_headers

    facts = read_headers([root / name for name in names], progress=progress)
    for name, fact in zip(names, facts, strict=True):
        if fact is None and not is_dicom(root / name):
            raise CohortError(
                f"{root / name} is not a DICOM file, and images.id is header; move it away, or "
                "take the IDs from the names (id: name)."
            )
        if fact is None:
            try:
                read_dicom_facts(root / name)
            except RadiographError as error:
                report.unreadable_images.append({"image": name, "reason": str(error)})
    return [fact.patient_id if fact is not None else None for fact in facts]


def _keep_classes_apart(
    ids: dict[str, str], labels: dict[str, Label | None], report: JoinReport
) -> None:
    """Prefix IDs that stand in folders of several classes by the class, in place.

    Without a table the name is all there is, and class folders are often numbered each from 1;
    nobody has two classes.
    """
    classes: dict[str, set[Label | None]] = defaultdict(set)
    for name, subject in ids.items():
        classes[subject].add(labels[name])
    report.ids_in_several_classes = sorted(key for key, found in classes.items() if len(found) > 1)
    for name, subject in ids.items():
        if len(classes[subject]) > 1 and labels[name] is not None:
            ids[name] = f"{labels[name]}/{subject}"


def _note_equal_names(ids: dict[str, str], report: JoinReport) -> None:
    subjects = pd.Series(list(ids.values()), dtype=object)
    several = set(subjects[subjects.duplicated()])
    alike: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, subject in ids.items():
        if subject in several:
            alike[subject, stem(name)].append(name)
    report.equal_names = [sorted(names) for names in alike.values() if len(names) > 1]


def _note(scan: FolderScan, report: JoinReport) -> None:
    report.other_files += scan.other
    report.linked_folders += scan.linked_folders
    report.unreadable_images += scan.unreadable


def _frame(subjects: list[str], names: list[str], labels: Sequence[Label | None]) -> pd.DataFrame:
    columns = {"subject_id": subjects, "image": names, "folder_label": labels}
    frame = pd.DataFrame(columns, dtype=object)
    return frame.sort_values("image", kind="stable")  # quick where they are nearly sorted
