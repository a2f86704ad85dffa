"""Who gains from fusion: is what the image adds the sex and age that a network reads in it?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.linear_model import LinearRegression, LogisticRegression

from osteofusion.audit.results.arms import Arms
from osteofusion.audit.results.estimates import auroc_gap, in_words, plain
from osteofusion.audit.results.people import Read
from osteofusion.audit.results.simple import Folds, grouped_folds, ranked
from osteofusion.audit.results.subgroups import people
from osteofusion.evaluation.metrics import Estimate, Floats, Ints

REPEATS = 5
_FEWEST = 10  # split groups of either kind
_WORTH = 0.002  # gains of AUROC below this are not split


def audit_gain(arms: Arms, read: Read | None, table: pd.DataFrame, groups: Ints) -> dict[str, Any]:
    """Split the difference between the fused and the tabular arm.

    Sex and age as read from the film by other models (not as the table says) are taken out of
    what the image arm and the fused arm say beside the tabular arm, by regression; AUROCs of what
    is left are compared with the tabular arm's. All regressions are cross-fitted by split group,
    5 repeats; differences are paired, intervals over groups.

    Args:
        arms: The arms on their test rows.
        read: Sex and age as read, of all rows of the cohort.
        table: The cohort.
        groups: (n,) codes of the split groups of the cohort.
    """
    absent = [arm for arm in ("fused", "tabular") if arm not in arms.scores]
    if absent:
        return {"reason": f"the predictions have no {' and no '.join(absent)} arm"}
    codes = np.unique(groups[arms.rows], return_inverse=True)[1].astype(np.int64)
    positive = arms.positive
    sides = [len(np.unique(codes[positive == kind])) for kind in (True, False)]
    if min(sides) < _FEWEST:
        return {
            "reason": f"the test rows are {sides[0]} positive and {sides[1]} negative split "
            f"groups; {_FEWEST} of each are needed"
        }
    tabular, fused = arms.scores["tabular"], arms.scores["fused"]
    gain = auroc_gap(positive, fused, tabular, codes)
    rows = [_row("fused", "tabular", gain)]
    rows += _by_sex(arms, table, codes)
    scores = [score for score in (read.sex, read.age) if score is not None] if read else []
    if not scores:
        verdict = [_gain_words(gain), "Sex and age could not be read from the radiographs."]
        return {"reason": None, "verdict": verdict, "rows": rows, "explained": None}
    people_read = np.column_stack([_standard(score[arms.rows]) for score in scores])
    names = [name for name, score in _named(read) if score is not None]
    y = positive.astype(np.int64)
    folds = [fold for seed in range(REPEATS) for fold in grouped_folds(y, codes, seed)]
    left = _take_out(fused, tabular[:, None], people_read, folds)
    kept = auroc_gap(positive, left, tabular, codes)
    lost = auroc_gap(positive, fused, left, codes)
    rows += [
        _row("fused, with what is read of the person taken out", "tabular", kept),
        _row("fused", "fused, with what is read of the person taken out", lost),
    ]
    alone = _stack([tabular], y, folds)
    with_read = _stack([tabular, *people_read.T], y, folds)
    person = auroc_gap(positive, with_read, alone, codes)
    rows.append(_row("tabular with sex and age as read", "tabular", person))
    explained = None
    if "image" in arms.scores:
        image = arms.scores["image"]
        bare = _take_out(image, np.zeros((len(image), 0)), people_read, folds)
        explained = _share_explained(image, people_read)
        for name, score in (
            ("tabular with the image arm", image),
            ("tabular with the image arm, what is read of the person taken out", bare),
        ):
            added = _stack([tabular, score], y, folds)
            rows.append(_row(name, "tabular", auroc_gap(positive, added, alone, codes)))
    return {
        "reason": None,
        "verdict": _verdict(gain, kept, person, explained, " and ".join(names)),
        "rows": rows,
        "explained": explained,
    }


def _named(read: Read | None) -> list[tuple[str, Floats | None]]:
    return [] if read is None else [("sex", read.sex), ("age", read.age)]


def _by_sex(arms: Arms, table: pd.DataFrame, codes: Ints) -> list[dict[str, Any]]:
    """The difference among women and among men."""
    words = people(table.iloc[arms.rows]).get("sex")
    rows = []
    for sex in ("women", "men") if words is not None else ():
        here = np.asarray(words == sex, dtype=bool)
        sides = [len(np.unique(codes[here & (arms.positive == kind)])) for kind in (True, False)]
        if min(sides) < _FEWEST:
            reason = f"{sides[0]} positive and {sides[1]} negative split groups: too few"
            found = Estimate(None, int(here.sum()), reason=reason)
        else:
            within = np.unique(codes[here], return_inverse=True)[1].astype(np.int64)
            found = auroc_gap(
                arms.positive[here],
                arms.scores["fused"][here],
                arms.scores["tabular"][here],
                within,
            )
        rows.append(_row("fused", "tabular", found, sex))
    return rows


def _take_out(score: Floats, beside: Floats, people_read: Floats, folds: Folds) -> Floats:
    """A score (m,) less the part that goes with what is read, others held fixed; cross-fitted."""
    left = np.zeros(len(score))
    design = np.column_stack([people_read, beside])
    width = people_read.shape[1]
    for train, test in folds:
        model = LinearRegression().fit(design[train], score[train])
        part = people_read[test] @ model.coef_[:width]
        left[test] += (score[test] - part) / REPEATS
    return left


def _stack(parts: Sequence[Floats], y: Ints, folds: Folds) -> Floats:
    """Cross-fitted scores (m,) of a logistic regression on some scores; ranks within folds."""
    design, found = np.column_stack(parts), np.zeros(len(y))
    for train, test in folds:
        model = LogisticRegression(class_weight="balanced").fit(design[train], y[train])
        found[test] += ranked(model.decision_function(design[test])) / REPEATS
    return found


def _share_explained(score: Floats, people_read: Floats) -> float:
    """Share of the variance of a score that goes with what is read."""
    return float(LinearRegression().fit(people_read, score).score(people_read, score))


def _standard(values: Floats) -> Floats:
    spread = values.std()
    centred: Floats = (values - values.mean()) / (spread if spread > 0 else 1.0)
    return centred


def _row(first: str, second: str, found: Estimate, among: str = "all") -> dict[str, Any]:
    return {"first": first, "second": second, "among": among, "difference": plain(found)}


def _gain_words(gain: Estimate) -> str:
    return f"AUROC of fused minus tabular, all folds on one scale: {in_words(gain, signed=True)}."


def _verdict(
    gain: Estimate, kept: Estimate, person: Estimate, explained: float | None, names: str
) -> list[str]:
    said = [_gain_words(gain)]
    if explained is not None:
        said.append(
            f"{explained:.0%} of the variance of the image arm's score goes with {names} as read "
            "from the radiographs."
        )
    said.append(
        f"With {names} as read taken out of what the image adds: {in_words(kept, signed=True)}. "
        f"{names.capitalize()} as read, without anything else of the image, put beside the "
        f"tabular arm: {in_words(person, signed=True)}."
    )
    if gain.value is None or kept.value is None or gain.value < _WORTH:
        return [*said, "Fusion gains next to nothing here, so there is no gain to explain."]
    certain = gain.low is not None and gain.low > 0
    doubt = "" if certain else ", which these rows cannot tell from none,"
    share = min(max(1 - kept.value / gain.value, 0.0), 1.0)
    if share >= 0.5:
        said.append(
            f"{share:.0%} of the gain{doubt} goes with the {names} that a network reads in the "
            "radiograph: it is no evidence of bone."
        )
    else:
        said.append(
            f"{1 - share:.0%} of the gain{doubt} is left without the {names} that a network reads "
            "in the radiograph."
        )
    return said
