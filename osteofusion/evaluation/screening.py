"""Published scores that pick whom to send to DXA, from columns of the cohort."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from osteofusion.evaluation.metrics import Floats

_ORAI_AGE = ((75, 15.0), (65, 9.0), (55, 5.0))
_ORAI_WEIGHT = ((60, 9.0), (70, 3.0))


def ost(age: Floats, weight: Floats) -> Floats:
    """OST (n,) = 0.2 x (kg - years), not truncated; a lower score is a higher risk."""
    return 0.2 * (weight - age)


def osta(age: Floats, weight: Floats) -> Floats:
    """OSTA (n,), the same truncated towards 0 to a whole number (Koh et al. 2001)."""
    return np.trunc(ost(age, weight))


def orai(age: Floats, weight: Floats, estrogen: Floats | None = None) -> Floats:
    """ORAI (n,), 0 to 26 (Cadarette et al. 2000); a higher score is a higher risk.

    Age 75 and older 15 points, 65 to 74 9, 55 to 64 5; weight below 60 kg 9, below 70 kg 3; no
    current oestrogen 2, also where it is unknown.

    Args:
        age: (n,) years.
        weight: (n,) kg.
        estrogen: (n,) 1 for current use; None leaves its points out.
    """
    points = np.zeros(len(age))
    for least, worth in reversed(_ORAI_AGE):
        points[age >= least] = worth
    by_weight = np.zeros(len(age))
    for below, worth in reversed(_ORAI_WEIGHT):
        by_weight[weight < below] = worth
    points += by_weight
    if estrogen is not None:
        points += np.where(estrogen == 1, 0.0, 2.0)
    points[np.isnan(age) | np.isnan(weight)] = np.nan
    return points


def screening_scores(columns: Mapping[str, Floats]) -> tuple[dict[str, Floats], dict[str, str]]:
    """Scores that the columns allow, and why the others cannot be had.

    Args:
        columns: Canonical name to (n,) values: ``age`` in years, ``weight`` in kg, ``estrogen`` 1
            for current use, and ``frax``, a probability that somebody brings.

    Returns:
        Arm name to (n,) scores (NaN where age or weight is missing), and arm name to reason.
    """
    scores: dict[str, Floats] = {}
    reasons: dict[str, str] = {}
    missing = [name for name in ("age", "weight") if name not in columns]
    if missing:
        for arm in ("ost", "osta", "orai"):
            reasons[arm] = f"the cohort has no {' and no '.join(missing)} column"
    else:
        age, weight = columns["age"], columns["weight"]
        scores = {"ost": ost(age, weight), "osta": osta(age, weight)}
        scores["orai"] = orai(age, weight, columns.get("estrogen"))
    if "frax" in columns:
        scores["frax"] = columns["frax"]
    return scores, reasons
