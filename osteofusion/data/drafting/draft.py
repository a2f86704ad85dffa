"""Draft a manifest from a folder of radiographs, a table, or both."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from osteofusion.data.drafting.concepts import canonical_name
from osteofusion.data.drafting.folders import ImageFolder, guess_region, look_at_images, region_of
from osteofusion.data.drafting.naming import draft_columns, profiles_of, repeated_headers
from osteofusion.data.drafting.outcomes import LabelDraft, draft_label, without_source
from osteofusion.data.drafting.profile import ColumnDraft
from osteofusion.data.drafting.render import render
from osteofusion.data.drafting.sections import (
    Sections,
    add_columns,
    add_images,
    add_label,
    add_table,
    meet,
)
from osteofusion.data.drafting.sheets import ReadTable, look_at_table
from osteofusion.data.drafting.trial import try_join
from osteofusion.data.drafting.words import shown
from osteofusion.data.manifest import Manifest
from osteofusion.errors import CohortError, ConfigError


@dataclass(frozen=True)
class Draft:
    """A drafted manifest.

    Attributes:
        manifest: As it loads.
        text: As it is written, with the evidence in comments.
        root: Folder that its files are relative to.
        findings: What was found, as pairs of a subject and a sentence.
        problem: What keeps it from making a cohort; None where nothing does.
    """

    manifest: Manifest
    text: str
    root: Path
    findings: list[tuple[str, str]]
    problem: str | None


def draft_manifest(
    images: Path | None, table: Path | None, root: Path | None = None, name: str | None = None
) -> Draft:
    """Look at the data and say what they seem to be.

    Args:
        images: Folder of the radiographs.
        table: The clinical spreadsheet.
        root: Folder that the manifest's files are relative to; the common parent when left out.
        name: Name of the data set; the root's when left out.

    Raises:
        ConfigError: neither images nor table is given, or one lies outside the root.
        CohortError: a file cannot be read, or the table has no column that could be an ID.
    """
    images, table = _absolute(images), _absolute(table)
    base = _base(images, table, root)
    found = look_at_images(images, base) if images is not None else None
    sections = Sections()
    _head(sections, found, base, [path for path in (images, table) if path is not None], name)
    columns: list[ColumnDraft] = []
    read: ReadTable | None = None
    if table is not None:
        read = look_at_table(table, found.stems if found is not None else [])
        columns, label = _from_table(sections, read, found, images, table, base)
    else:
        assert images is not None  # as _base has seen
        assert found is not None
        add_images(sections, found, images, base, None)
        label = LabelDraft() if found.folders else without_source("id")
    add_label(sections, label, found)
    return _finish(sections, columns, found, base, None if read is None else read.raw)


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else Path(os.path.abspath(path))


def _base(images: Path | None, table: Path | None, root: Path | None) -> Path:
    given = [path for path in (images, table) if path is not None]
    if not given:
        raise ConfigError("manifest init needs --images, --table or both.")
    if table is not None and not table.is_file():
        raise CohortError(f"--table {table} does not exist; give the clinical spreadsheet.")
    places = [path for path in (images, table.parent if table else None) if path is not None]
    base = Path(os.path.abspath(root) if root is not None else os.path.commonpath(places))
    if root is None and len(given) > 1 and base == Path(base.anchor):
        raise ConfigError(f"{images} and {table} have no folder in common: put them into one.")
    for path in given:
        if not path.is_relative_to(base):
            raise ConfigError(f"{path} is not under --root {base}; give a folder above both.")
    return base


def _head(
    sections: Sections, found: ImageFolder | None, base: Path, given: list[Path], name: str | None
) -> None:
    region, evidence = guess_region(found, *(path.name for path in (base, *given)))
    sections.content |= {
        "name": name or canonical_name(base.name) or "cohort",
        "title": f"unknown: {name or base.name or 'cohort'}",
        "region": region,
        "license": "unknown: what may be done with these data",
        "citation": "unknown: where these data come from",
    }
    sections.note(
        say="Drafted by `osteofusion manifest init`, which looked at the data. Read the comments, "
        "correct what is wrong, then run `osteofusion manifest check`."
    )
    sections.note("title", say="title, license and citation stand in every report: fill them in")
    told = f"by {evidence}" if evidence else "such as knee, hip, hand or spine: fill it in"
    sections.note("region", say=told)


def _from_table(
    sections: Sections,
    read: ReadTable,
    found: ImageFolder | None,
    images: Path | None,
    table: Path,
    base: Path,
) -> tuple[list[ColumnDraft], LabelDraft]:
    meeting = meet(read.raw, found, base)
    if meeting is None:
        raise CohortError(
            f"Table {table} has no column that could hold subject IDs, one with a header of its "
            "own that is filled in most rows and seldom says the same twice; add one."
        )
    if found is not None and images is not None:
        add_images(sections, found, images, base, meeting)
    add_table(sections, read, table, base, meeting, found)
    header = meeting.match.header
    without = {header, meeting.path_column or header}
    rows = read.raw[read.raw[header].notna()]  # others are summaries and belong to nobody
    profiles = profiles_of(rows, read.decimal, without)
    columns = draft_columns(profiles)
    folders = found is not None and bool(found.folders)
    label = draft_label(profiles, columns, header, folders=folders)
    if repeated := repeated_headers(read.raw):
        sections.note(
            "columns",
            say=f"{shown(repeated)} stand above several columns, which are left out: rename them",
        )
    return [column for column in columns if column.profile.header != label.header], label


def _finish(
    sections: Sections,
    columns: Sequence[ColumnDraft],
    found: ImageFolder | None,
    base: Path,
    raw: pd.DataFrame | None,
) -> Draft:
    add_columns(sections, columns, found)
    for column in columns:
        region = region_of(*column.profile.counts) if len(column.profile.counts) == 1 else None
        if region is not None and sections.content["region"] == "unknown":
            sections.content["region"] = region
            sections.comments[("region",)] = [f"by the column {shown([column.profile.header])}"]
    manifest = Manifest.model_validate(sections.content)
    report, problem = try_join(manifest, base, raw)
    leaks = {leak["column"]: leak["why"] for leak in report.suspected_leaks}
    for name, why in leaks.items():
        sections.content["columns"][name]["role"] = "outcome"
        sections.note(
            "columns", name, say=f"{why}, as if it followed the label; if not, make it a feature"
        )
        sections.findings.append(("suspicious", f"{name}: {why}; drafted as outcome"))
    manifest = Manifest.model_validate(sections.content)
    text = render(sections.content, sections.comments, sections.proposals)
    return Draft(manifest, text, base, sections.findings, problem)
