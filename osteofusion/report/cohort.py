"""Who is in the cohort: flow, Table 1 by side and by class, missing cells."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from osteofusion.data.clinical import CellProblem
from osteofusion.data.page.classes import classes, subjects, words
from osteofusion.data.page.findings import Found, everything_found, without_folders
from osteofusion.data.page.missing import missing_by_class
from osteofusion.data.page.table_one import Variable, shown_columns, table_one
from osteofusion.data.report import JoinReport
from osteofusion.report.blocks import (
    Block,
    Bullets,
    Drawing,
    Grid,
    Heading,
    Paragraph,
    Section,
    absent,
)
from osteofusion.report.flow import FlowBox, draw_flow
from osteofusion.report.read import Material

_SIDES = ("train", "val", "test")


def cohort_section(material: Material) -> Section:
    """Flow from the files found to the sides, and what the join found."""
    section = Section("cohort", "Cohort")
    if not material.join:
        section.blocks.append(absent("Cohort flow", "The folder has no join_report.json."))
        return section
    report = join_report(material.join)
    found = everything_found(report)
    roots = [Path(each.root) for each in report.sites or [report]]
    boxes = _boxes(report, found, material)
    text = "; ".join(
        ": ".join(part for part in (box.title, ", ".join(box.lines)) if part) for box in boxes
    )
    section.blocks.append(
        Drawing(
            "flow",
            lambda: draw_flow(boxes),
            "From the files found to the sides of the split; on the right who was left out.",
            f"Flow diagram. {text}.",
            wide=True,
        )
    )
    for each in found:
        if not each.findings:
            continue
        name = f" ({each.report.manifest})" if len(found) > 1 else ""
        section.blocks.append(Heading(f"What the join found{name}"))
        section.blocks += [
            Bullets(
                tuple(without_folders(item, roots) for item in finding.items),
                f"{finding.name.replace('_', ' ')}: {len(finding.items)} ({finding.meaning})",
            )
            for finding in each.findings
        ]
    return section


def join_report(content: Mapping[str, Any]) -> JoinReport:
    """The report that join_report.json was written from; keys of other versions are left out."""
    known = {item.name for item in dataclasses.fields(JoinReport)}
    values = {name: value for name, value in content.items() if name in known}
    values["sites"] = [join_report(site) for site in values.get("sites", [])]
    for name in ("implausible_cells", "unparsable_cells"):
        values[name] = [CellProblem(**cell) for cell in values.get(name, [])]
    return JoinReport(**values)


def _boxes(report: JoinReport, found: list[Found], material: Material) -> list[FlowBox]:
    counts = {"image files": report.images, "table rows": report.rows}
    left_out = [
        f"{what}: {count}{f' ({each.report.manifest})' if report.sites else ''}"
        for each in found
        for what, count in each.left_out.items()
    ]
    labels = [f"{count} {label}" for label, count in report.by_label.items()]
    what = "radiographs" if report.images else "rows"
    return [
        FlowBox("Found", [f"{count} {name}" for name, count in counts.items() if count]),
        FlowBox("Left out", left_out or ["nothing"], aside=True),
        FlowBox(f"Joined: {report.joined} {what}", [f"of {report.subjects} subjects", *labels]),
        *_side_boxes(material),
    ]


def _side_boxes(material: Material) -> list[FlowBox]:
    if material.evaluation.get("n_folds", 1) > 1:
        rows = material.first_predictions
        cells = rows[["repeat", "fold"]].drop_duplicates()
        repeats = cells["repeat"].nunique()
        count = len(rows[["subject_id", "image"]].drop_duplicates())
        times = "once" if repeats == 1 else f"once in each of {repeats} repeats"
        lines = [f"{len(cells)} test folds", f"each row {times}"]
        return [FlowBox(f"Tested: {count} radiographs", lines)]
    sides = _with_side(material)
    if sides is None:
        return []
    boxes = []
    for side in _SIDES:
        labels = sides.loc[sides["split"] == side, "task_label"].value_counts().sort_index()
        if labels.sum():
            lines = [f"{count} {words(str(name))}" for name, count in labels.items()]
            boxes.append(FlowBox(f"{side}: {labels.sum()}", lines, side=True))
    return boxes


def _with_side(material: Material) -> pd.DataFrame | None:
    """The cohort with the side and the label of the task of each row."""
    if material.cohort is None or material.splits is None:
        return None
    sides = material.splits[["subject_id", "image", "split", "label"]]
    sides = sides.rename(columns={"label": "task_label"})
    return material.cohort.merge(sides, on=["subject_id", "image"], how="inner")


def table_section(material: Material) -> Section:
    """Table 1 by side of the split and by class, and what is missing."""
    section = Section("table-one", "Table 1")
    if material.cohort is None or material.manifest is None:
        missing = (
            "cohort.csv is not there"
            if material.cohort is None
            else ("its manifest can no longer be read, which says what the columns mean")
        )
        section.blocks.append(absent("Table 1", f"{missing[0].upper()}{missing[1:]}."))
        return section
    people = subjects(material.cohort)
    if not shown_columns(people, material.manifest):
        section.blocks.append(absent("Table 1", "The cohort has no clinical columns."))
        return section
    by_class = classes(people)
    variables = table_one(people, material.manifest)
    counts = by_class.value_counts(sort=False)
    section.blocks += [
        Heading("By class"),
        _grid(
            variables,
            ["all", *map(str, counts.index)],
            [len(people), *counts],
            "One row a subject. SMD: standardised mean difference between normal and low BMD.",
            difference=True,
        ),
        Heading("By side of the split"),
        _by_side(material),
        Heading("Missing cells"),
        *_missing(people, material),
    ]
    return section


def _by_side(material: Material) -> Block:
    if material.evaluation.get("n_folds", 1) > 1:
        return Paragraph(
            "With several test folds every subject stands on the test side once a repeat and on "
            "the training side otherwise, so the sides do not differ but by chance.",
            "soft",
        )
    rows = _with_side(material)
    if rows is None or material.manifest is None:
        return absent("Table 1 by side", "splits.csv is not there.")
    people = subjects(rows)
    present = [side for side in _SIDES if (people["split"] == side).any()]
    by = people["split"].astype(pd.CategoricalDtype(present, ordered=True))
    counts = by.value_counts(sort=False)
    return _grid(
        table_one(people, material.manifest, by),
        ["all", *present],
        [len(people), *counts],
        "One row a subject; sides are compared to see whether the test side resembles the rest.",
        difference=False,
    )


def _grid(
    variables: list[Variable],
    names: list[str],
    counts: list[int],
    caption: str,
    *,
    difference: bool,
) -> Grid:
    rows: list[tuple[str, ...]] = []
    for variable in variables:
        unit = f" ({variable.unit})" if variable.unit else ""
        outcome = ", outcome: never a feature" if variable.outcome else ""
        rows.append((f"{variable.name}{unit}{outcome}",))
        for number, line in enumerate(variable.lines):
            last = (variable.difference if number == 0 else "",) if difference else ()
            rows.append((line.name, *line.cells, *last))
    head = ["", *(f"{name}\nn = {count}" for name, count in zip(names, counts, strict=True))]
    return Grid(caption, (*head, *(["SMD"] if difference else [])), tuple(rows))


def _missing(people: pd.DataFrame, material: Material) -> list[Block]:
    assert material.manifest is not None  # `table_section` has looked
    names = list(shown_columns(people, material.manifest))
    gaps = missing_by_class(people, names, material.manifest)
    if not gaps:
        return [Paragraph("No cell of a clinical column is missing.")]
    labels = [str(name) for name in classes(people).cat.categories]
    return [
        Grid(
            "Missing among the subjects that a column applies to. Gap: percentage points between "
            "the classes with the highest and the lowest share; a model can read the label off "
            "uneven gaps.",
            ("column", "all", *labels, "gap"),
            tuple((gap.name, *gap.cells, f"{gap.gap:.0f}") for gap in gaps),
        )
    ]
