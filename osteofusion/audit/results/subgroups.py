"""The trained arms in each acquisition family, sex and age band."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from osteofusion.audit.results.arms import Arms
from osteofusion.audit.results.estimates import (
    Bools,
    area,
    auroc_estimate,
    in_words,
    plain,
    within_strata,
)
from osteofusion.evaluation.intervals import wilson_interval
from osteofusion.evaluation.metrics import Estimate, Floats, Ints

_FEWEST_SIDE = 5  # rows of either kind that an AUROC needs
_BANDS = ((0, 40), (40, 50), (50, 60), (60, 70), (70, np.inf))


def audit_subgroups(
    arms: Arms, table: pd.DataFrame, groups: Ints, families: Sequence[Any] | None, side: str
) -> dict[str, Any]:
    """AUROC, sensitivity, specificity and mean risk of every trained arm in each subgroup.

    ``within`` is the AUROC over pairs of films from one subgroup: what is left of an arm when the
    family, sex or age band itself can tell nothing. Decisions are at probability 0.5.

    Args:
        arms: The arms on their test rows.
        table: The cohort.
        groups: (n,) codes of the split groups of the cohort.
        families: n acquisition families; None without images.
        side: The positive side in words.
    """
    test = table.iloc[arms.rows]
    codes = np.unique(groups[arms.rows], return_inverse=True)[1].astype(np.int64)
    known = {} if families is None else {"acquisition family": np.array(families)[arms.rows]}
    known |= people(test)
    rows, within = [], []
    for arm, scores in arms.scores.items():
        everything = np.ones(len(test), dtype=bool)
        rows.append(_row(arms, arm, "all", "all rows", everything, codes))
        for what, words in known.items():
            strata = [word for word in _ordered(words) if what in _SHOWN]
            for word in strata:
                rows.append(_row(arms, arm, what, word, words == word, codes))
            found = within_strata(arms.positive, scores, codes, words)
            estimate = (
                Estimate(None, len(test), reason=f"no {what} has rows of both kinds")
                if found is None
                else auroc_estimate([found], len(test))
            )
            within.append({"arm": arm, "within": what, "auroc": plain(estimate)})
    missing = [name for name in _SHOWN if name not in known]
    return {
        "reason": None,
        "verdict": _verdict(rows, within, side),
        "positive": side,
        "rows": rows,
        "within": within,
        "not_known": missing,
    }


_SHOWN = ("acquisition family", "sex", "age band")


def people(table: pd.DataFrame) -> dict[str, Any]:
    """Sex, age band and both, in words, of every row; None where unknown."""
    found: dict[str, Any] = {}
    if "female" in table and table["female"].notna().any():
        codes = table["female"].to_numpy(dtype=np.float64, na_value=np.nan)
        found["sex"] = np.array(
            [None if np.isnan(code) else "women" if code == 1 else "men" for code in codes],
            dtype=object,
        )
    if "age" in table and table["age"].notna().any():
        ages = table["age"].to_numpy(dtype=np.float64, na_value=np.nan)
        found["age band"] = np.array([_band(age) for age in ages], dtype=object)
    if len(found) == 2:
        both = zip(found["sex"], found["age band"], strict=True)
        found["sex and age band"] = np.array(
            [None if sex is None or band is None else f"{sex}, {band}" for sex, band in both],
            dtype=object,
        )
    return found


def _band(age: float) -> str | None:
    if np.isnan(age):
        return None
    low, high = next(band for band in _BANDS if age < band[1])
    if low == 0:
        return f"under {high}"
    return f"{low} and over" if high == _BANDS[-1][1] else f"{low} to {high - 1}"


def _ordered(words: Any) -> list[str]:
    """Subgroups: age bands by age, others by size."""
    counts = pd.Series(words, dtype=object).value_counts()
    names = [_band(low) for low, _ in _BANDS]
    return sorted(
        map(str, counts.index),
        key=lambda word: (names.index(word) if word in names else 0, -counts[word]),
    )


def _row(arms: Arms, arm: str, what: str, word: str, rows: Bools, codes: Ints) -> dict[str, Any]:
    positive = arms.positive
    m, n = int((rows & positive).sum()), int((rows & ~positive).sum())
    p = arms.probabilities[arm]
    called = p >= 0.5
    if min(m, n) < _FEWEST_SIDE:
        reason = f"{m} positive and {n} negative rows: too few for an AUROC"
        auroc = Estimate(None, m + n, reason=reason)
    else:
        auroc = auroc_estimate([area(positive, arms.scores[arm], codes, rows)], m + n)
    return {
        "arm": arm,
        "by": what,
        "subgroup": word,
        "positive": m,
        "negative": n,
        "auroc": plain(auroc),
        "sensitivity": plain(_share(rows & positive, called, codes, "positive")),
        "specificity": plain(_share(rows & ~positive, ~called, codes, "negative")),
        "observed": m / (m + n) if m + n else None,
        "predicted": float(p[rows].mean()) if m + n else None,
    }


def _share(chosen: Bools, right: Bools | Floats, codes: Ints, side: str) -> Estimate:
    n = int(chosen.sum())
    if not n:
        return Estimate(None, 0, reason=f"no {side} row")
    low, high = wilson_interval(chosen, right, codes)
    return Estimate(float(right[chosen].mean()), n, low, high, "wilson")


def _verdict(rows: list[dict[str, Any]], within: list[dict[str, Any]], side: str) -> list[str]:
    said = []
    for arm in dict.fromkeys(row["arm"] for row in rows):
        overall = next(row["auroc"] for row in rows if row["arm"] == arm and row["by"] == "all")
        if overall["value"] is None:
            said.append(f"{arm}: no AUROC ({overall['reason']}).")
            continue
        parts = [
            f"{in_words(Estimate(**each['auroc']))} within one {each['within']}"
            for each in within
            if each["arm"] == arm and each["auroc"]["value"] is not None
        ]
        whole = in_words(Estimate(**overall))
        said.append(
            f"AUROC of {arm} for {side}: {whole} over all pairs of films, {', '.join(parts)}."
        )
    few = list(dict.fromkeys(row["subgroup"] for row in rows if row["auroc"]["value"] is None))
    if few:
        said.append(f"Too few rows of one kind for an AUROC: {', '.join(few)}.")
    return said
