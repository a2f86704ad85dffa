"""The most confident errors, with their radiographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from osteofusion.data.page.films import thumbnails
from osteofusion.evaluation.curves import words
from osteofusion.evaluation.metrics import decide
from osteofusion.report.blocks import Film, Films, Grid, Paragraph, Section, absent
from osteofusion.report.cohort import join_report
from osteofusion.report.pooled import Pooled
from osteofusion.report.read import Material
from osteofusion.report.words import arm_words

MOST_ERRORS = 12
_SIDE = 260  # pixels of the longer side
_WHO = ("age", "female", "bmi")


def errors_section(material: Material, pooled: Pooled, *, images: bool, progress: bool) -> Section:
    """Test rows that the main arm calls wrongly, the surest first.

    Args:
        material: What is reported on.
        pooled: Its test rows.
        images: Whether to show the radiographs.
        progress: Show a progress bar.
    """
    arm = material.main
    section = Section("errors", f"The most confident errors of the {arm_words(arm)} arm")
    p = pooled.p[arm]
    called = decide(p)
    sure = p[np.arange(len(p)), called]
    wrong = np.flatnonzero(called != pooled.labels)
    worst = wrong[np.argsort(-sure[wrong], kind="stable")][:MOST_ERRORS]
    if not len(worst):
        section.blocks.append(Paragraph(f"None of {len(p)} test rows is called wrongly."))
        return section
    section.blocks.append(
        Paragraph(
            f"{len(wrong)} of {len(p)} test rows are called wrongly; the {len(worst)} of which the "
            "model was surest are shown. Look for wrong labels, copies, implants and markers "
            "before looking for bone."
        )
    )
    rows = pooled.rows.iloc[worst]
    facts = [_facts(material, subject, image) for subject, image in _keys(rows)]
    lines = [
        (
            str(row.subject_id),
            words(str(row.label)),
            f"{words(material.classes[called[at]])} ({sure[at]:.0%})",
            ", ".join(fact),
        )
        for at, row, fact in zip(worst, rows.itertuples(index=False), facts, strict=True)
    ]
    head = ("subject", "true", "called (probability)", "row")
    section.blocks.append(
        Grid("Most confident errors, surest first.", head, tuple(lines), frozenset({1, 2, 3}))
    )
    if not images:
        section.blocks.append(absent("Their radiographs", "Left out with --no-images."))
        return section
    files = image_files(material)
    named = {at: files.get(image) for at, (_, image) in zip(worst, _keys(rows), strict=True)}
    there = {int(at): path for at, path in named.items() if path is not None and path.is_file()}
    if not there:
        why = "The files are no longer where the run read them, or the cohort has no images."
        section.blocks.append(absent("Their radiographs", why))
        return section
    drawn = thumbnails(there, side=_SIDE, progress=progress)
    films = []
    for at, line in zip(worst, lines, strict=True):
        found = drawn.get(int(at))
        films.append(
            Film(
                found.uri if found else "",
                "" if found and found.uri else "Its file is no longer there or cannot be read.",
                (line[0], f"true: {line[1]}", f"called: {line[2]}"),
                f"Radiograph of subject {line[0]}, {line[1]}, called {line[2]}",
            )
        )
    section.blocks.append(Films(tuple(films)))
    return section


def image_files(material: Material) -> dict[str, Path]:
    """Image as the tables name it to where its file should lie."""
    if material.cohort is None or not material.join:
        return {}
    # Not the settings: they name no folder where the run took the demo cohort.
    joined = join_report(material.join)
    roots = [Path(each.root) for each in joined.sites or [joined]]
    sites = list(dict.fromkeys(material.cohort["site"].astype(str)))
    several = len(roots) > 1
    if several and len(sites) != len(roots):
        return {}
    root_of = dict(zip(sites, roots, strict=False))
    return {
        image: root_of.get(site, roots[0]) / (image.removeprefix(f"{site}/") if several else image)
        for site, image in zip(
            material.cohort["site"].astype(str), material.cohort["image"], strict=True
        )
        if image
    }


def _keys(rows: object) -> list[tuple[str, str]]:
    return list(rows[["subject_id", "image"]].itertuples(index=False, name=None))  # type: ignore[index]


def _facts(material: Material, subject: str, image: str) -> list[str]:
    if material.cohort is None:
        return []
    found = material.cohort[
        (material.cohort["subject_id"] == subject) & (material.cohort["image"] == image)
    ]
    if found.empty:
        return []
    row = found.iloc[0]
    said = {name: row[name] for name in _WHO if name in row and row[name] == row[name]}
    return [f"labelled {row['label']}", *(_fact(name, value) for name, value in said.items())]


def _fact(name: str, value: float) -> str:
    if name == "female":
        return "woman" if value == 1 else "man"
    return f"{name.replace('bmi', 'BMI')} {value:.4g}"
