"""Do radiographs and rows belong together? Sex and age as read from the film, class by class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from osteofusion.audit.findings import ALPHA
from osteofusion.audit.predictability import holm
from osteofusion.audit.results.estimates import (
    Bools,
    Measure,
    area,
    auroc_estimate,
    concordance,
    difference,
    in_words,
    mean_area,
    mean_of,
    plain,
    share_estimate,
    within_strata,
)
from osteofusion.audit.results.films import disagreeing_films, film_words
from osteofusion.audit.results.people import Read, numbers
from osteofusion.audit.results.simple import FEWEST
from osteofusion.data.manifest import LABELS
from osteofusion.evaluation.metrics import Estimate, Floats, Ints

_PLAINLY = 0.55  # lower end of the mean over classes; less says nothing of any class
_FEWEST_SIDE = 5  # split groups of either sex that a class needs


def audit_pairing(
    table: pd.DataFrame,
    read: Read | None,
    groups: Ints,
    *,
    families: Sequence[Any] | None = None,
) -> dict[str, Any]:
    """How well the film tells sex and age in each class, and films whose rows disagree.

    Sex as AUROC, age as concordance (the share of pairs put in the right order); 0.5 is chance.
    Each class is compared with the mean of the others (``mean`` is that of all); p-values are
    adjusted by Holm over all comparisons. A class stands out where it is read worse (adjusted
    p < 0.05) while the others are read better than chance.

    Args:
        table: Cohort rows with ``subject_id, image, image_sha256, label``.
        read: What `read_people` found; None where there are no image features.
        groups: (n,) codes of the split groups.
        families: n acquisition families, to look within.
    """
    films = disagreeing_films(table)
    if read is None or (read.sex is None and read.age is None):
        reasons = read.reasons.values() if read else ["there are no features of the radiographs"]
        return {
            "reason": "; ".join(dict.fromkeys(reasons)),
            "verdict": film_words(films),
            "films": films,
        }
    rows = [
        *(_sex_rows(table, read.sex, groups, families) if read.sex is not None else []),
        *(_age_rows(table, read.age, groups) if read.age is not None else []),
    ]
    adjusted = holm([row["p"] for row in rows])
    for row, p in zip(rows, adjusted, strict=True):
        row["p_adjusted"] = p
        row["stands_out"] = bool(
            p is not None
            and p < ALPHA
            and row["difference"]["value"] < 0
            and row["others"]["low"] is not None
            and row["others"]["low"] > 0.5
        )
    verdict = [*_verdict(rows), *film_words(films)]
    return {
        "reason": None,
        "not_read": read.reasons,
        "verdict": verdict,
        "suspect": sorted({row["class"] for row in rows if row["stands_out"]}),
        "rows": rows,
        "films": films,
    }


def _sex_rows(
    table: pd.DataFrame, scores: Floats, groups: Ints, families: Sequence[Any] | None
) -> list[dict[str, Any]]:
    female = numbers(table, "female")
    measures: dict[str, Measure | str] = {}
    estimates: dict[str, Estimate] = {}
    within: dict[str, Estimate | None] = {}
    for name, members in _classes(table):
        rows = members & ~np.isnan(female)
        women, men = (len(np.unique(groups[rows & (female == code)])) for code in (1, 0))
        if min(women, men) < _FEWEST_SIDE:
            measures[name] = f"{women} women and {men} men: too few"
            continue
        found = area(female == 1, scores, groups, rows)
        measures[name] = mean_area([found])
        estimates[name] = auroc_estimate([found], int(rows.sum()))
        within[name] = _within_families(female, scores, groups, rows, families)
    described = _compare("sex", "auroc", measures, estimates, table)
    for row in described:
        found_within = within.get(row["class"])
        row["within_families"] = None if found_within is None else plain(found_within)
    return described


def _age_rows(table: pd.DataFrame, scores: Floats, groups: Ints) -> list[dict[str, Any]]:
    age = numbers(table, "age")
    measures: dict[str, Measure | str] = {}
    estimates: dict[str, Estimate] = {}
    correlations: dict[str, float] = {}
    for name, members in _classes(table):
        rows = members & ~np.isnan(age)
        count = len(np.unique(groups[rows]))
        if count < FEWEST or np.ptp(age[rows]) == 0:
            measures[name] = f"{count} split groups with a known age: too few"
            continue
        found = concordance(age, scores, groups, rows)
        measures[name] = found
        estimates[name] = share_estimate(found, int(rows.sum()))
        correlations[name] = float(np.corrcoef(age[rows], scores[rows])[0, 1])
    described = _compare("age", "concordance", measures, estimates, table)
    for row in described:
        row["correlation"] = correlations.get(row["class"])
    return described


def _compare(
    what: str,
    metric: str,
    measures: dict[str, Measure | str],
    estimates: dict[str, Estimate],
    table: pd.DataFrame,
) -> list[dict[str, Any]]:
    """A row a class: how well it is read, and how much better or worse than the other classes."""
    rows = []
    known = [measure for measure in measures.values() if isinstance(measure, Measure)]
    mean = share_estimate(mean_of(known), len(table)) if known else Estimate(None, len(table))
    for name, measure in measures.items():
        row: dict[str, Any] = {"target": what, "metric": metric, "class": name, "reason": None}
        n = int((table["label"] == name).sum())
        others = [m for other, m in measures.items() if other != name and isinstance(m, Measure)]
        gap, rest, p = Estimate(None, n), Estimate(None, n), None
        if isinstance(measure, str):
            row["reason"] = measure
        elif not others:
            row["reason"] = "no other class to compare with"
        else:
            rest = share_estimate(mean_of(others), len(table) - n)
            gap, p = difference(measure, mean_of(others), len(table))
        value = estimates.get(name, Estimate(None, n, reason=row["reason"]))
        row |= {"estimate": plain(value), "mean": plain(mean), "others": plain(rest)}
        row |= {"difference": plain(gap), "p": p}
        rows.append(row)
    return rows


def _within_families(
    female: Floats, scores: Floats, groups: Ints, rows: Bools, families: Sequence[Any] | None
) -> Estimate | None:
    """Sex as read among films of one acquisition family: the scanner cannot tell it there."""
    if families is None:
        return None
    strata = [family if here else None for family, here in zip(families, rows, strict=True)]
    found = within_strata(female == 1, scores, groups, strata)
    if found is None:
        return None
    return auroc_estimate([found], int(rows.sum()))


def _verdict(rows: list[dict[str, Any]]) -> list[str]:
    said = []
    for target in dict.fromkeys(row["target"] for row in rows):
        known = [row for row in rows if row["target"] == target]
        judged = [row for row in known if row["estimate"]["value"] is not None]
        metric = "AUROC" if target == "sex" else "concordance"
        read = ", ".join(f"{in_words(Estimate(**r['estimate']))} in {r['class']}" for r in judged)
        if read:
            said.append(f"{target.capitalize()} as read from the radiograph, {metric}: {read}.")
        for row in (row for row in judged if row["stands_out"]):
            others = in_words(Estimate(**row["others"]))
            said.append(
                f"In the class {row['class']} {target} is read worse than in the other classes "
                f"(there {others}; adjusted p {row['p_adjusted']:.2g}): images and rows may not "
                f"belong together in the class {row['class']}."
            )
    if not any(row["stands_out"] for row in rows):
        readable = any((row["mean"]["low"] or 0) > _PLAINLY for row in rows)
        said.append(
            "No class stands out, so nothing here speaks against images and rows belonging "
            "together."
            if readable
            else "Neither sex nor age can be plainly read from these radiographs by a simple "
            "model, so it cannot tell whether images and rows belong together."
        )
    return said


def _classes(table: pd.DataFrame) -> list[tuple[str, Bools]]:
    label = table["label"].to_numpy(dtype=object)
    return [(name, label == name) for name in LABELS if (label == name).any()]
