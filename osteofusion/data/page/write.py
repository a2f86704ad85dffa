"""Put the page together and write it."""

from __future__ import annotations

import dataclasses
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

import osteofusion
from osteofusion.data.cohort import Cohort
from osteofusion.data.manifest import Column
from osteofusion.data.page import balance, classes, families, films, figures, missing, table_one
from osteofusion.data.report import JoinReport
from osteofusion.files import write_text

_LEFT_OUT = (
    "images_without_row",
    "images_outside_folders",
    "images_without_id",
    "unreadable_images",
    "rows_without_image",
    "rows_without_label",
    "duplicate_ids",
    "summary_rows",
)


def write_page(cohort: Cohort, path: str | os.PathLike[str], *, progress: bool = False) -> None:
    """Write one HTML file to look at a cohort with, readable without network or scripts.

    It shows what was left out, the class balance, Table 1 by class, missing cells, distributions,
    acquisition families, contact sheets, and byte-identical films side by side with their rows.
    Of a patient it names the subject ID and the file's name; no path of this machine stands in it.

    Args:
        cohort: As `build_cohort` returns it.
        path: The HTML file.
        progress: Show progress bars on standard error.

    Raises:
        RadiographError: a file is DICOM and pydicom is not installed.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["words"] = classes.words
    environment.globals.update(percent=classes.percent, colours=classes.COLOURS)
    text = environment.get_template("page.html").render(
        manifest=cohort.manifest,
        version=osteofusion.__version__,
        report=cohort.report,
        sites=[_site(cohort, report) for report in cohort.report.sites or [cohort.report]],
        findings=_findings(cohort, cohort.report),
        **_clinical(cohort),
        **_films(cohort, progress=progress),
    )
    # A file name that is no text in this machine's encoding holds halves of characters.
    write_text(path, text.encode("utf-8", "backslashreplace").decode("utf-8"))


@dataclass(frozen=True)
class _Finding:
    name: str
    count: int
    meaning: str
    items: list[str]
    wrong: bool


@dataclass(frozen=True)
class _Site:
    """What was found in one data set, and what became of it."""

    report: JoinReport
    left_out: list[_Finding]
    findings: list[_Finding]


@dataclass(frozen=True)
class _Film:
    subject: str
    image: str
    label: str
    picture: str  # data URI; empty where it cannot be read
    refusal: str
    facts: tuple[str, ...]


def _site(cohort: Cohort, report: JoinReport) -> _Site:
    findings = _findings(cohort, report)
    left_out = [found for found in findings if found.name in _LEFT_OUT]
    return _Site(report, left_out, findings)


def _findings(cohort: Cohort, report: JoinReport) -> list[_Finding]:
    return [
        _Finding(
            name,
            len(getattr(report, name)),
            meaning,
            [_without_folders(item, cohort) for item in items],
            name in report.problems,
        )
        for name, meaning, items in report.lines()
        if items
    ]


def _without_folders(text: str, cohort: Cohort) -> str:
    """A message without the folders of this machine, which say where and by whom it was made."""
    for root in cohort.roots.values():
        if root.name:  # not `.` or `/`
            text = text.replace(f"{root}{os.sep}", "").replace(str(root), "the folder")
    return text


def _clinical(cohort: Cohort) -> dict[str, Any]:
    table, manifest = cohort.table, cohort.manifest
    people = classes.subjects(table)
    columns = table_one.shown_columns(people, manifest)
    gaps = missing.missing_by_class(people, list(columns), manifest)
    mixes = balance.class_mixes(table, people)
    counts = [count for count in mixes[0].counts.values() if count]
    return {
        "mixes": mixes,
        "imbalance": max(counts) / min(counts),
        "guesses": balance.guesses(table),
        "people": balance.mix("subjects", classes.classes(people)),
        "variables": table_one.table_one(people, manifest),
        "unsummarised": [name for name in manifest.columns if name in table and name not in columns],
        "missing": gaps,
        "uneven": missing.UNEVEN,
        "missing_map": figures.draw_missing(people, list(columns), manifest) if gaps else "",
        "distributions": [
            (name, column, figures.draw_distribution(people, name, column.unit or ""))
            for name, column in columns.items()
            if column.kind == "numeric" and people[name].nunique() > 1
        ],
    }


def _films(cohort: Cohort, *, progress: bool) -> dict[str, Any]:
    table = cohort.table[cohort.table["image"] != ""].reset_index(drop=True)
    if table.empty:
        return {"films": 0}
    files = cohort.files(table)
    by_class = classes.classes(table)
    names = families.acquisition_families(files, progress=progress)
    ranked = pd.Series(names).value_counts().index.tolist()
    family = pd.Series(names, dtype=pd.CategoricalDtype(ranked, ordered=True))
    sheets = [films.contact_sheets(kinds) for kinds in (by_class, family)]
    groups = films.copy_groups(table, cohort.manifest)
    wanted = {row for some in sheets for sheet in some for row in sheet.chosen}
    wanted |= {group.rows[0] for group in groups[: films.MOST_GROUPS]}
    drawn = films.thumbnails({row: files[row] for row in sorted(wanted)}, progress=progress)
    facts = films.patient_columns(table, cohort.manifest)
    facts += [name for name in [cohort.manifest.label.t_score] if name in table]
    pictures = [
        _Film(
            subject=str(row["subject_id"]),
            image=str(row["image"]),
            label=str(label),
            picture=drawn.get(i, ("", ""))[0],
            refusal=_without_folders(drawn.get(i, ("", ""))[1], cohort),
            facts=tuple(_fact(row[name], cohort.manifest.columns[name]) for name in facts),
        )
        for (i, row), label in zip(table.iterrows(), by_class, strict=True)
    ]
    return {
        "films": len(table),
        "pictures": pictures,
        "side": films.SIDE,
        "families": (kinds := balance.split_mix(by_class, family)),
        "family_guess": balance.best_guess(kinds),
        "other": families.OTHER,
        "class_sheets": sheets[0],
        "family_sheets": sheets[1],
        "groups": groups[: films.MOST_GROUPS],
        "more_groups": groups[films.MOST_GROUPS :],
        "facts": [(name, cohort.manifest.columns[name]) for name in facts],
    }
