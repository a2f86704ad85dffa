"""What is audited: a cohort or plain folders, as one table with a row an image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from osteofusion.data.cohort import Cohort, build_cohort
from osteofusion.data.manifest import LABELS, Column
from osteofusion.data.radiograph import RADIOGRAPH_SUFFIXES
from osteofusion.data.scan import scan_folder
from osteofusion.errors import CohortError

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "holdout"), "test"),
}
_MOST_CLASSES = 10  # sub-folders of more names are taken as one subject each


@dataclass
class Collection:
    """Images to audit.

    Attributes:
        title: What it is, for a heading.
        table: One row an image: `path` (None where a row has no image), `name` (as shown),
            `source` (folder or site), `subject`, `label` (each None where unknown).
        clinical: Canonical clinical columns of the same rows; none for folders.
        columns: What the clinical columns mean.
        divisions: One column a division (fold) of the same rows into sides; None where a row is
            on no side.
        notes: What was assumed or left out.
        on_both_sides: Names that one division puts on two sides.
    """

    title: str
    table: pd.DataFrame
    clinical: pd.DataFrame
    columns: dict[str, Column]
    divisions: pd.DataFrame
    notes: list[str] = field(default_factory=list)
    on_both_sides: list[str] = field(default_factory=list)

    def keep(self, rows: Sequence[int]) -> Collection:
        """The same without other rows."""
        table, clinical, divisions = (
            frame.iloc[list(rows)].reset_index(drop=True)
            for frame in (self.table, self.clinical, self.divisions)
        )
        return Collection(
            self.title, table, clinical, self.columns, divisions, self.notes, self.on_both_sides
        )


def from_cohort(manifests: Sequence[str], roots: Sequence[Path], *, progress: bool) -> Collection:
    """The rows of a cohort; without labels where it has none.

    Raises:
        ManifestError: a manifest is wrong.
        CohortError: files or columns are missing, or nothing matches.
    """
    notes = []
    try:
        cohort = build_cohort(manifests, roots, progress=progress)
    except CohortError as error:
        try:
            cohort = build_cohort(manifests, roots, need_labels=False, progress=progress)
        except CohortError:
            raise error from None
        notes.append(f"audited without labels: {error}")
    table, names = cohort.table, [name for name in cohort.manifest.columns if name in cohort.table]
    several = table["site"].nunique() > 1
    rows = pd.DataFrame(
        {
            "path": _paths(cohort),
            "name": table["image"].where(table["image"] != "", table["subject_id"]).map(shown),
            "source": table["site"],
            "subject": table["subject_id"].map(shown),
            "label": table["label"].astype(object).where(table["label"].notna(), None),
        },
        dtype=object,
    )
    report = cohort.report
    for finding in report.problems:
        if finding.startswith(("images_", "rows_", "label_", "unreadable_", "duplicate_")):
            count = sum(len(getattr(each, finding)) for each in (report, *report.sites))
            notes.append(f"{finding.replace('_', ' ')}: {count} (see osteofusion cohort)")
    roles = {name: cohort.manifest.columns[name] for name in names}
    kept = {name: c for name, c in roles.items() if c.role in ("feature", "outcome")}
    title = f"{report.manifest}{'' if several else f': {report.title}'}"
    if report.synthetic_what:
        notes.append(report.synthetic_what)
    return Collection(title, rows, table[list(kept)], kept, _no_divisions(len(rows)), notes)


def from_folders(roots: Sequence[Path]) -> Collection:
    """The images in one or more folders.

    Sub-folders called train, val, test (or the like) give the side. Sub-folders called normal,
    osteopenia and osteoporosis give the label; where there are none, the first sub-folders that
    differ do, or, where these are more than ten, the subject.

    Raises:
        CohortError: a folder is missing, lies in another one, or holds no image.
    """
    sources = _source_names(roots)
    notes: list[str] = []
    parts = []
    for root, source in zip(roots, sources, strict=True):
        files = _image_files(root, notes)
        if not files:
            raise CohortError(
                f"No image ({', '.join(sorted(RADIOGRAPH_SUFFIXES))}) under {root}; name the "
                "folder that holds the radiographs."
            )
        relative = [file.relative_to(root) for file in files]
        splits, labels, subjects = _read_layout([path.parts[:-1] for path in relative], notes)
        if len(roots) > 1 and source.casefold() in SPLIT_NAMES:
            splits = [SPLIT_NAMES[source.casefold()]] * len(files)
        prefix = f"{source}/" if len(roots) > 1 else ""
        part = {
            "path": files,
            "name": [prefix + shown(path.as_posix()) for path in relative],
            "source": shown(source),
            "subject": [None if name is None else prefix + shown(name) for name in subjects],
            "label": [None if name is None else shown(name) for name in labels],
            "split": splits,
        }
        parts.append(pd.DataFrame(part, dtype=object))
    table = pd.concat(parts, ignore_index=True)
    sides = table.pop("split")
    divisions = pd.DataFrame({"split": sides}) if sides.notna().any() else _no_divisions(len(table))
    title = " and ".join(map(shown, roots))
    return Collection(title, table, pd.DataFrame(index=table.index), {}, divisions, notes)


def shown(name: object) -> str:
    """A name that any encoding and any terminal takes: control characters become escapes."""
    text = str(name).encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _paths(cohort: Cohort) -> list[Path | None]:
    has_image = cohort.table["image"] != ""
    files = iter(cohort.files(cohort.table[has_image]))
    return [next(files) if there else None for there in has_image]


def _no_divisions(rows: int) -> pd.DataFrame:
    return pd.DataFrame(index=range(rows))


def _source_names(roots: Sequence[Path]) -> list[str]:
    for root in roots:
        if not root.is_dir():
            raise CohortError(f"{root} is no folder; name one or more folders of radiographs.")
    resolved = [root.resolve() for root in roots]
    for i, one in enumerate(resolved):
        for j, other in enumerate(resolved):
            if i != j and (one == other or one in other.parents):
                raise CohortError(
                    f"{roots[j]} lies in {roots[i]}; name folders that share no file, or the "
                    "outer one alone."
                )
    names = [path.name for path in resolved]
    return names if len(set(names)) == len(names) else [str(root) for root in roots]


def _image_files(root: Path, notes: list[str]) -> list[Path]:
    scan = scan_folder(root, root)
    if scan.linked_folders:
        notes.append(f"{root}: {len(scan.linked_folders)} links to folders were not followed")
    notes += [f"left out: {item['reason']}" for item in scan.unreadable]
    hidden = [name for name in scan.other if name.endswith("/")]
    if hidden:
        notes.append(f"{root}: hidden folders were not looked at: {', '.join(hidden)}")
    return [root / name for name in scan.images]


_Names = list[str | None]


def _read_layout(
    folders: Sequence[tuple[str, ...]], notes: list[str]
) -> tuple[_Names, _Names, _Names]:
    """Side, label and subject of each file from the names of the folders it lies in."""
    splits: _Names = []
    rest: list[tuple[str, ...]] = []
    for parts in folders:
        at = next((i for i, part in enumerate(parts) if part.casefold() in SPLIT_NAMES), None)
        splits.append(None if at is None else SPLIT_NAMES[parts[at].casefold()])
        rest.append(parts if at is None else (*parts[:at], *parts[at + 1 :]))
    if any(split is None for split in splits) and any(splits):
        notes.append(f"{splits.count(None)} images lie in no split folder")
    nothing: _Names = [None] * len(folders)
    known = [_first_in(parts, LABELS) for parts in rest]
    if any(known):
        if None in known:
            notes.append(f"{known.count(None)} images lie in no class folder and have no label")
        return splits, known, nothing
    shared = next(
        (i for i, level in enumerate(zip(*rest, strict=False)) if len(set(level)) > 1),
        min(map(len, rest)),
    )
    names: _Names = [parts[shared] if len(parts) > shared else None for parts in rest]
    distinct = {name for name in names if name is not None}
    if len(distinct) > _MOST_CLASSES:
        notes.append(f"each of {len(distinct)} sub-folders was taken as one subject")
        return splits, nothing, names
    if distinct:
        notes.append(f"sub-folders were taken as labels: {', '.join(sorted(map(shown, distinct)))}")
    return splits, names, nothing


def _first_in(parts: Iterable[str], wanted: Iterable[str]) -> str | None:
    return next((part.casefold() for part in parts if part.casefold() in wanted), None)
