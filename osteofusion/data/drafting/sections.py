"""The sections of a drafted manifest, with the evidence for each key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from osteofusion.data.drafting.folders import ImageFolder
from osteofusion.data.drafting.ids import WHOLE, IdMatch, id_column, match_ids
from osteofusion.data.drafting.outcomes import LabelDraft
from osteofusion.data.drafting.profile import ColumnDraft
from osteofusion.data.drafting.sheets import ReadTable
from osteofusion.data.drafting.words import shown
from osteofusion.data.radiograph import RADIOGRAPH_SUFFIXES
from osteofusion.data.scan import SIDED, sided_pairs

_FROM_HEADERS: dict[str, dict[str, Any]] = {
    "age": {"kind": "numeric", "unit": "years", "range": [15, 105], "dicom": "age"},
    "female": {"kind": "binary", "dicom": "female"},
}
_MOSTLY = 0.9


@dataclass
class Sections:
    """What goes into the file.

    Attributes:
        content: Keys and values of the manifest.
        comments: Sentences above a key, by the path to it.
        proposals: Lines below a section that only need their # deleted.
        findings: What was found, for the terminal.
    """

    content: dict[str, Any] = field(default_factory=dict)
    comments: dict[tuple[str, ...], list[str]] = field(default_factory=dict)
    proposals: dict[tuple[str, ...], list[str]] = field(default_factory=dict)
    findings: list[tuple[str, str]] = field(default_factory=list)

    def note(self, *key: str, say: str) -> None:
        """Add a sentence above a key."""
        self.comments.setdefault(key, []).append(say)


@dataclass(frozen=True)
class Meeting:
    """How rows and images meet.

    Attributes:
        match: The ID column and its patterns.
        by_header: Whether the IDs are those of the DICOM headers, not of the file names.
        path_column: Header of the column that holds the image's path, if there is one.
    """

    match: IdMatch
    by_header: bool = False
    path_column: str | None = None


def meet(raw: pd.DataFrame, found: ImageFolder | None, root: Path) -> Meeting | None:
    """Find the ID column; None where no column could be one."""
    if found is None:
        header = id_column(raw)
        return None if header is None else Meeting(IdMatch(header))
    paths = _path_column(raw, root)
    others = raw.loc[:, [name != paths for name in raw.columns]] if paths else raw
    match = match_ids(others, found.stems)
    if match is None or (paths and not match.images):
        match = match_ids(raw, found.stems)
    if match is None:
        return None
    share = match.images / len(found.stems)
    if found.dicom_share == 1.0 and (share < _MOSTLY or match.image_pattern != WHOLE):
        patients = [facts.patient_id for facts in found.facts if facts.patient_id]
        enough = len(patients) >= max(_MOSTLY * len(found.facts), 1)
        known = match_ids(others, patients) if enough else None
        if known is not None:
            # Scanners number their files, so a number in a name may be another one than the ID's.
            exact = known.image_pattern == known.table_pattern == WHOLE
            if known.images > share * len(patients) or (
                exact and known.images >= _MOSTLY * len(patients)
            ):
                return Meeting(known, by_header=True)
    return Meeting(match, path_column=paths)


def _path_column(raw: pd.DataFrame, root: Path) -> str | None:
    for place, header in enumerate(raw.columns):
        cells = raw.iloc[:, place].dropna().astype(str)
        named = cells[[Path(cell).suffix.lower() in RADIOGRAPH_SUFFIXES for cell in cells]]
        if len(named) < _MOSTLY * max(len(cells), 1) or list(raw.columns).count(header) > 1:
            continue
        if sum((root / cell).is_file() for cell in named) >= _MOSTLY * len(named):
            return str(header)
    return None


def add_images(
    sections: Sections, found: ImageFolder, images: Path, root: Path, meeting: Meeting | None
) -> None:
    """The section `images`."""
    total = len(found.names)
    sections.findings.append(("images", f"{total} radiographs under {images.name or images}"))
    if meeting is not None and meeting.path_column is not None:
        content: dict[str, Any] = {"layout": "column", "column": meeting.path_column}
        sections.note("images", "column", say="its cells are files under the root")
    elif found.folders:
        content = {"layout": "class_folders", "folders": found.folders}
        sections.note(
            "images", "folders", say=f"{found.in_folders} of {total} radiographs lie in them"
        )
    else:
        content = {"layout": "folder", "folder": images.relative_to(root).as_posix()}
        sections.note("images", "folder", say=f"{total} radiographs")
        if found.coded:
            meaning = ", ".join(f'"{folder}": normal' for folder in found.coded[:3])
            sections.proposals[("images",)] = [
                f"EDIT: if the folders {shown(found.coded)} are classes, say which is which:",
                f"layout: class_folders, and folders: {{ {meaning} }}",
            ]
    if meeting is not None and meeting.by_header:
        content["id"] = "header"
        sections.note("images", "id", say="the PatientID of the DICOM files is the table's ID")
    if meeting is not None and meeting.match.image_pattern != WHOLE:
        content["id_pattern"] = meeting.match.image_pattern
        sections.note(
            "images",
            "id_pattern",
            say=f"a regular expression; its first group is the ID in {shown(found.stems, 2)}",
        )
    elif meeting is None and (sides := sided_pairs(found.stems)):
        content["id_pattern"] = SIDED
        pairs = shown([" | ".join(names) for names in sides.values()], 2)
        sections.note(
            "images",
            "id_pattern",
            say=f"{len(sides)} names differ in the side alone, such as {pairs}",
        )
    sections.content["images"] = content


def add_table(
    sections: Sections,
    read: ReadTable,
    path: Path,
    root: Path,
    meeting: Meeting,
    found: ImageFolder | None,
) -> None:
    """The section `table`."""
    match, rows = meeting.match, len(read.raw)
    content = {"file": path.relative_to(root).as_posix(), "id": match.header}
    if match.table_pattern != WHOLE:
        content["id_pattern"] = match.table_pattern
        sections.note("table", "id_pattern", say="on the ID's cell; its first group is the ID")
    sections.content["table"] = content | read.options
    for key, sentences in read.comments.items():
        sections.comments[("table", key)] = sentences
    sections.findings.append(("table", f"{path.name}: {rows} rows, {read.raw.shape[1]} columns"))
    if found is None:
        sections.note("table", "id", say="by its header")
        return
    if meeting.path_column is not None:
        told = f"{rows} rows name their image in the column {shown([meeting.path_column])}"
    else:
        names = "PatientIDs of a sample" if meeting.by_header else "file names"
        total = len(found.facts) if meeting.by_header else len(found.names)
        told = f"{match.images} of {total} {names} match, and {match.rows} of {rows} rows"
    sections.note("table", "id", say=told)
    sections.findings.append(("IDs", f"column {shown([match.header])}: {told}"))
    if match.others:
        sections.note("table", "id", say=f"{shown(match.others)} would match as well")
    if match.case_only:
        sections.note(
            "table", "id", say=f"{match.case_only} more would match but for case: rename them"
        )


def add_label(sections: Sections, label: LabelDraft, found: ImageFolder | None) -> None:
    """The section `label`."""
    folders = found is not None and bool(found.folders)
    if label.content or folders:
        sections.content["label"] = label.content
    if "file" in label.content:
        sections.content["note"] = label.comments[0]
    elif label.comments:
        sections.comments[("label",)] = label.comments
    if label.proposals:
        sections.proposals[("label",)] = label.proposals
    source = [shown([label.header])] if label.header else []
    source += [label.content["t_score"]] if "t_score" in label.content else []
    source += ["the class folders"] if folders else []
    told = " and ".join(source) or f"not found: bring {label.content.get('file')}"
    sections.findings.append(("label", told + ("" if label.decided else " (to be edited)")))


def add_columns(
    sections: Sections, columns: Sequence[ColumnDraft], found: ImageFolder | None
) -> None:
    """The section `columns`, and those that the DICOM headers fill."""
    content: dict[str, dict[str, Any]] = {}
    for column in columns:
        content[column.name] = _ordered(column.entry)
        if column.comments:
            sections.comments[("columns", column.name)] = column.comments
    if found is not None:
        _from_headers(sections, content, found)
    sections.content["columns"] = content
    for role in ("feature", "outcome", "ignored", "identifier"):
        names = [n for n, entry in content.items() if entry.get("role", "feature") == role]
        if names:
            title = f"{role}s" if role != "ignored" else role
            sections.findings.append((title, f"{len(names)}: {', '.join(names)}"))


def _from_headers(
    sections: Sections, content: dict[str, dict[str, Any]], found: ImageFolder
) -> None:
    for name, entry in _FROM_HEADERS.items():
        known = sum(getattr(facts, name) is not None for facts in found.facts)
        if not known:
            continue
        told = f"the headers of {known} of {len(found.facts)} DICOM files know it"
        own = content.get(name)
        if (
            own is not None
            and own["kind"] == entry["kind"]
            and own.get("unit") == entry.get("unit")
        ):
            own["dicom"] = name
            sections.note("columns", name, say=f"{told} and fill empty cells")
        elif own is None and found.dicom_share >= _MOSTLY and known >= 0.5 * len(found.facts):
            content[name] = dict(entry)
            sections.note("columns", name, say=f"not in the table; {told}")


def _ordered(entry: dict[str, Any]) -> dict[str, Any]:
    order = ("header", "kind", "role", "unit", "scale", "range", "values", "absent")
    first = {key: entry[key] for key in order if key in entry}
    return {**first, **{key: value for key, value in entry.items() if key not in order}}
