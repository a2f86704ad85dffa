"""What the audits of the result found: leakage, shortcuts, subgroups, pairing, learning curve."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from osteofusion.audit.results import draw_learning_curve, draw_pairing, draw_subgroups
from osteofusion.audit.results.arms import read_arms
from osteofusion.audit.results.subgroups import audit_subgroups
from osteofusion.data.page.families import acquisition_families
from osteofusion.errors import OsteofusionError
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
from osteofusion.report.films import image_files
from osteofusion.report.read import Material
from osteofusion.report.words import arm_words, estimate, number

Audit = Mapping[str, Any]


def audits_section(material: Material, *, progress: bool) -> Section:
    """The audits of a study; of a run its subgroups, which need no further model."""
    section = Section("audits", "Audits of the result")
    audits: dict[str, Audit] = dict(material.audits)
    if not audits:
        why = (
            "`osteofusion study` was run with audits: false, or they could not be run."
            if material.kind == "study"
            else "`osteofusion study` runs them, since they need many small models."
        )
        what = "Leakage, shortcut, pairing, gain and learning curve"
        section.blocks.append(absent(what, why))
        audits = {"subgroups": _subgroups_of_run(material, progress=progress)}
    for name, audit in audits.items():
        section.blocks += [Heading(audit["title"]), *_audit(name, audit)]
    return section


def _audit(name: str, audit: Audit) -> list[Block]:
    found: list[Block] = []
    if audit.get("reason"):
        found.append(absent("This audit", f"{audit['reason'][:1].upper()}{audit['reason'][1:]}."))
    if audit.get("verdict"):
        found.append(Bullets(tuple(audit["verdict"])))
    if audit.get("rows") and not audit.get("reason"):
        found += _DETAILS.get(name, _no_details)(audit)
    found += [Paragraph(note, "soft") for note in audit.get("notes") or []]
    return found


def _no_details(audit: Audit) -> list[Block]:
    return []


def _leakage(audit: Audit) -> list[Block]:
    rows = tuple(
        (
            row["model"].replace("_", " "),
            f"{_metric(row['metric'])}, {row['on']}",
            number(row["by_row"]),
            number(row["by_group"]),
            estimate(row["difference"], signed=True),
            _p(row.get("p_adjusted")),
        )
        for row in audit["rows"]
    )
    head = ("simple model", "metric", "split by row", "grouped", "difference", "p, adjusted")
    return [Grid("The same models on two kinds of splits.", head, rows, frozenset({1}))]


def _shortcut(audit: Audit) -> list[Block]:
    rows = tuple(
        (
            row["what"],
            "yes" if row["in_pixels"] else "no",
            estimate({"value": row["auroc"], "low": row["low"], "high": row["high"]}),
            _p(row["p_adjusted"]),
            row["reason"] or "",
        )
        for row in audit["rows"]
    )
    head = ("label told from", "seen by a network", "AUROC", "p, adjusted", "note")
    caption = "AUROC of the label from one fact of the file, cross-validated; 0.5 is guessing."
    return [Grid(caption, head, rows, frozenset({4}))]


def _subgroups(audit: Audit) -> list[Block]:
    found: list[Block] = []
    for arm in dict.fromkeys(row["arm"] for row in audit["rows"]):
        rows = tuple(
            (
                row["subgroup"],
                f"{row['positive']} / {row['negative']}",
                estimate(row["auroc"]),
                estimate(row["sensitivity"]),
                estimate(row["specificity"]),
                *(
                    "n/a" if row[key] is None else number(row[key])
                    for key in ("observed", "predicted")
                ),
            )
            for row in audit["rows"]
            if row["arm"] == arm
        )
        head = (
            "subgroup", "positive / other", "AUROC", "sensitivity", "specificity", "observed",
            "mean predicted",
        )  # fmt: skip
        said = f"{arm_words(arm)}: each subgroup, called at 0.5."
        found.append(Grid(f"{said[0].upper()}{said[1:]}", head, rows))
        overall = next(row for row in audit["rows"] if row["arm"] == arm and row["by"] == "all")
        if overall["auroc"]["value"] is not None:
            found.append(
                Drawing(
                    f"subgroups_{arm}",
                    lambda arm=arm: draw_subgroups(audit, arm),  # type: ignore[misc]
                    f"AUROC of {arm_words(arm)} in subgroups; 'within' compares only films of one "
                    "subgroup, where it can tell nothing by itself.",
                    f"Forest plot of the AUROC of {arm_words(arm)} in subgroups, as in the table.",
                    wide=True,
                )
            )
    return found


def _pairing(audit: Audit) -> list[Block]:
    rows = tuple(
        (
            row["target"],
            row["class"],
            "AUROC" if row["metric"] == "auroc" else row["metric"],
            estimate(row["estimate"]),
            estimate(row["difference"], signed=True),
            _p(row.get("p_adjusted")),
            "stands out" if row["stands_out"] else row.get("reason") or "",
        )
        for row in audit["rows"]
    )
    head = ("read", "class", "metric", "how well", "less other classes", "p, adjusted", "note")
    found: list[Block] = [
        Grid("Sex and age as read from the radiograph.", head, rows, frozenset({1, 2, 6})),
        _figure(
            "pairing", draw_pairing, audit, "Sex and age as read from the radiograph, by class."
        ),
    ]
    if audit.get("films"):
        items = tuple(
            " = ".join(
                f"{row['subject_id']} ({row['label']}, {row['sex'] or 'sex unknown'}, "
                f"{_years(row['age'])})"
                for row in film["rows"]
            )
            for film in audit["films"]
        )
        found.append(Bullets(items, f"{len(items)} films in rows of different people"))
    return found


def _gain(audit: Audit) -> list[Block]:
    rows = tuple(
        (
            f"{row['first']} less {row['second']}",
            row.get("among", "all"),
            estimate(row["difference"], signed=True),
        )
        for row in audit["rows"]
    )
    head = ("comparison", "among", "difference in AUROC")
    return [Grid("Paired differences, all folds on one scale.", head, rows, frozenset({1}))]


def _learning(audit: Audit) -> list[Block]:
    rows = tuple(
        (row["model"], f"{row['training_rows']:.0f}", estimate(row["auroc"]))
        for row in audit["rows"]
    )
    head = ("simple model", "training rows", _metric(audit["metric"]))
    return [
        Grid("Cross-validated, over the size of the training side.", head, rows),
        _figure(
            "learning_curve", draw_learning_curve, audit, "AUROC over the number of training rows."
        ),
    ]


_DETAILS: dict[str, Callable[[Audit], list[Block]]] = {
    "leakage": _leakage,
    "shortcut": _shortcut,
    "subgroups": _subgroups,
    "pairing": _pairing,
    "gain": _gain,
    "learning_curve": _learning,
}


def _figure(name: str, draw: Callable[[Audit], Figure], audit: Audit, said: str) -> Drawing:
    return Drawing(name, lambda: draw(audit), said, f"{said} The table has the numbers.", wide=True)


def _subgroups_of_run(material: Material, *, progress: bool) -> Audit:
    """Subgroups of a run, from its tables and the headers of its images where they are there."""
    audit: dict[str, Any] = {"title": "Subgroups: acquisition family, sex, age"}
    if material.cohort is None:
        return audit | {"reason": "cohort.csv is not there"}
    table = material.cohort[material.cohort["label"].notna()].reset_index(drop=True)
    codes = np.unique(table["group"], return_inverse=True)[1].astype(np.int64)
    known = image_files(material)
    paths = [known.get(image) for image in table["image"]]
    files = [path for path in paths if path is not None and path.is_file()]
    side = material.low
    try:
        arms = read_arms(material.first_predictions, table, material.classes)
        families = None
        if len(files) == len(table):
            families = acquisition_families(files, progress=progress).tolist()
        found = audit_subgroups(arms, table, codes, families, side)
    except OsteofusionError as error:
        return audit | {"reason": str(error).rstrip(".")}
    if families is None:
        found["notes"] = ["Not by acquisition family: the images are no longer where they were."]
    return audit | found


def _metric(name: str) -> str:
    return name.replace("_", " ").replace("auroc", "AUROC")


def _years(age: float | None) -> str:
    return "age unknown" if age is None else f"{age:g} years"


def _p(value: float | None) -> str:
    if value is None or pd.isna(value):
        return "\N{EN DASH}"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
