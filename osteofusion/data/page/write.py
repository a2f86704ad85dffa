"""Put the page together and write it."""

from __future__ import annotations

import functools
import math
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

import osteofusion
from osteofusion.data.cohort import Cohort
from osteofusion.data.page import balance, classes, families, figures, films, missing, table_one
from osteofusion.data.page.findings import everything_found, without_folders
from osteofusion.files import write_text


def write_page(cohort: Cohort, path: str | os.PathLike[str], *, progress: bool = False) -> None:
    """Write one HTML file to look at a cohort with; it needs neither network nor scripts.

    It shows what was left out, the class balance, Table 1 by class, missing cells, distributions,
    acquisition families, contact sheets, and byte-identical films beside the rows that claim them.
    Of a patient it names the subject ID and the file; no folder of this machine stands in it.

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
    environment.filters["bare"] = functools.partial(without_folders, roots=cohort.roots.values())
    environment.globals.update(
        percent=classes.percent, colours=classes.COLOURS, map_colours=figures.MAP_COLOURS
    )
    text = environment.get_template("page.html").render(
        manifest=cohort.manifest,
        version=osteofusion.__version__,
        found=everything_found(cohort.report),
        clinical=_clinical(cohort),
        film=_films(cohort, progress=progress),
    )
    # A file name that is no text in this machine's encoding holds halves of characters.
    write_text(path, text.encode("utf-8", "backslashreplace").decode("utf-8"))


@np.errstate(over="ignore", invalid="ignore")  # a cell may hold 1e300
def _clinical(cohort: Cohort) -> dict[str, Any]:
    """What the rows say; clinical values count once a subject."""
    table, manifest = cohort.table, cohort.manifest
    people = classes.subjects(table)
    columns = table_one.shown_columns(people, manifest)
    gaps = missing.missing_by_class(people, list(columns), manifest)
    mixes = balance.class_mixes(table, people)
    counts = mixes[0].counts.values()
    return {
        "mixes": mixes,
        "imbalance": max(counts) / min(counts),
        "guesses": balance.guesses(table),
        "people": balance.mix("all subjects", classes.classes(people)),
        "variables": table_one.table_one(people, manifest),
        "aside": {
            name: column.role if column.role in ("identifier", "ignored") else column.kind
            for name, column in manifest.columns.items()
            if name in table and name not in columns
        },
        "gaps": gaps,
        "uneven": missing.UNEVEN,
        "map": figures.draw_missing(people, list(columns), manifest) if gaps else None,
        "distributions": [
            (name, column, figures.draw_distribution(people, name, column.unit or ""))
            for name, column in columns.items()
            if column.kind == "numeric" and 0 < people[name].max() - people[name].min() < math.inf
        ],
    }


def _films(cohort: Cohort, *, progress: bool) -> dict[str, Any] | None:
    """What the radiographs show; None where there are none."""
    table = cohort.table[cohort.table["image"] != ""].reset_index(drop=True)
    if table.empty:
        return None
    files, by_class = cohort.files(table), classes.classes(table)
    family = families.acquisition_families(files, progress=progress)
    mixes = balance.split_mix(by_class, family)
    by_class_sheets, by_family_sheets = (films.contact_sheets(k) for k in (by_class, family))
    groups = films.copy_groups(table, cohort.manifest)
    drawn = {row for sheet in (*by_class_sheets, *by_family_sheets) for row in sheet.chosen}
    drawn |= {group.rows[0] for group in groups[: films.MOST_GROUPS]}
    return {
        "subjects": table["subject_id"].tolist(),
        "images": table["image"].tolist(),
        "labels": by_class.tolist(),
        "thumbnails": films.thumbnails({row: files[row] for row in drawn}, progress=progress),
        "families": mixes,
        "all": (whole := balance.mix("all films", by_class)),
        "blind_guess": balance.best_guess([whole]),
        "guess": balance.best_guess(mixes),
        "by_class": by_class_sheets,
        "by_family": by_family_sheets,
        "groups": groups[: films.MOST_GROUPS],
        "more_groups": groups[films.MOST_GROUPS :],
        "differ": Counter(name for group in groups for name in group.differs),
        "who": films.patient_columns(table, cohort.manifest),
    }
