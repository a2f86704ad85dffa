"""Identical films in the rows of different people."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from osteofusion.audit.results.people import numbers

_YEARS = 1.0  # ages on one film may differ by this much: birthdays and rounding


def disagreeing_films(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Identical films whose rows have different sexes, or ages more than a year apart."""
    sex, age = numbers(table, "female"), numbers(table, "age")
    found = []
    for digest, at in table.groupby("image_sha256", sort=False).indices.items():
        if not digest or len(at) < 2:
            continue
        sexes = sorted({"female" if code == 1 else "male" for code in sex[at][~np.isnan(sex[at])]})
        years = age[at][~np.isnan(age[at])]
        gap = float(np.ptp(years)) if len(years) else 0.0
        if len(sexes) < 2 and gap <= _YEARS:
            continue
        people = [
            {
                "subject_id": str(table["subject_id"].iat[i]),
                "image": str(table["image"].iat[i]),
                "label": str(table["label"].iat[i]),
                "sex": None if np.isnan(sex[i]) else "female" if sex[i] == 1 else "male",
                "age": None if np.isnan(age[i]) else float(age[i]),
            }
            for i in at
        ]
        found.append({"sexes_differ": len(sexes) > 1, "years_apart": gap, "rows": people})
    return sorted(found, key=lambda film: (not film["sexes_differ"], -film["years_apart"]))


def film_words(films: list[dict[str, Any]]) -> list[str]:
    """What the films mean, in a sentence; nothing where there are none."""
    if not films:
        return []
    sexes = sum(film["sexes_differ"] for film in films)
    worst = films[0]["rows"]
    people = " and ".join(
        f"{row['subject_id']} ({row['label']}, {row['sex']}, {_years(row['age'])})" for row in worst
    )
    return [
        f"{len(films)} films stand in rows of different people: {sexes} with both sexes, all "
        f"others with ages more than a year apart, such as {people}; "
        "at least one row of each cannot be right."
    ]


def _years(age: float | None) -> str:
    return "age unknown" if age is None else f"{age:g} years"
