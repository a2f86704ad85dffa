"""Would more radiographs help? Test AUROC over the size of the training side."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from scipy.stats import rankdata, t

from osteofusion.audit.results.estimates import (
    auroc_estimate,
    class_areas,
    difference,
    in_words,
    mean_area,
    plain,
)
from osteofusion.audit.results.simple import AuditRows, fit_scores, grouped_folds, ranked
from osteofusion.evaluation.auroc import ClusteredAuroc
from osteofusion.evaluation.metrics import Estimate, Floats, Ints
from osteofusion.progress import shown

SHARES = (0.2, 0.4, 0.6, 0.8, 1.0)
DRAWS = 5
_FROM = 0.6  # the rise from here to all rows is judged
_FEWEST = 3  # split groups of a class in every training set


def audit_learning(rows: AuditRows, *, progress: bool = False) -> dict[str, Any]:
    """Cross-validated AUROC of the simple models, trained on 20 to 100 % of the training groups.

    Grouped folds; the training sets of one draw are nested, stratified by class. AUROCs of 5
    draws of folds and training sets are averaged. Intervals are over the test rows, those of the
    rise over the draws as well.

    Args:
        rows: The rows.
        progress: Show a progress bar.
    """
    if rows.too_few:
        return {"reason": rows.too_few}
    found: dict[tuple[str, float], list[ClusteredAuroc]] = {}
    sizes: dict[float, list[int]] = {share: [] for share in SHARES}
    for seed in shown(range(DRAWS), DRAWS, "Learning curve", progress):
        scores: dict[tuple[str, float], Floats] = {}
        for fold, (train, test) in enumerate(grouped_folds(rows.y, rows.groups, seed)):
            place = _order(rows, train, np.random.default_rng([seed, fold]))
            for share in SHARES:
                chosen = train[place <= share + 1e-9]
                sizes[share].append(len(chosen))
                memory: dict[str, Floats] = {}
                for model in rows.models:
                    said = fit_scores(rows, model, chosen, test, seed, memory)
                    shape = (len(rows.y), said.shape[1])
                    scores.setdefault((model, share), np.zeros(shape))[test] = ranked(said)
        for key, values in scores.items():
            found.setdefault(key, []).extend(class_areas(rows.y, values, rows.groups))
    points = [
        {
            "model": model,
            "share": share,
            "training_rows": round(float(np.mean(sizes[share])), 1),
            "auroc": plain(auroc_estimate(found[model, share], len(rows.y))),
        }
        for model in rows.models
        for share in SHARES
    ]
    rises = {model: _rise(rows, found, model) for model in rows.models}
    first = round(float(np.mean(sizes[_FROM])))
    last = round(float(np.mean(sizes[1.0])))
    return {
        "reason": None,
        "verdict": [_verdict(model, rise, first, last) for model, rise in rises.items()],
        "metric": "auroc" if len(rows.classes) == 2 else "macro_auroc",
        "draws": DRAWS,
        "rows": points,
        "rises": [{"model": name, "difference": plain(rise)} for name, rise in rises.items()],
    }


def _order(rows: AuditRows, train: Ints, rng: np.random.Generator) -> Floats:
    """(k,) place of each training row between 0 and 1, at random by split group within a class."""
    groups, first = np.unique(rows.groups[train], return_index=True)
    y = rows.y[train][first]
    place = np.zeros(len(groups))
    for code in np.unique(y):
        members = np.flatnonzero(y == code)
        ranks = rankdata(rng.random(len(members)))
        place[members] = np.where(ranks <= _FEWEST, 0.0, ranks / len(members))
    every: Floats = place[np.searchsorted(groups, rows.groups[train])]
    return every


def _rise(
    rows: AuditRows, found: dict[tuple[str, float], list[ClusteredAuroc]], model: str
) -> Estimate:
    """The rise with its interval, over test rows and over draws of training rows."""
    areas = [found[model, share] for share in (1.0, _FROM)]
    rise, _ = difference(mean_area(areas[0]), mean_area(areas[1]), len(rows.y))
    if rise.value is None or rise.low is None or rise.high is None:
        return rise
    values = np.array([[each.value for each in part] for part in areas]).reshape(2, DRAWS, -1)
    by_draw = (values[0] - values[1]).mean(axis=1)
    draws = t.ppf(0.975, DRAWS - 1) * by_draw.std(ddof=1) / np.sqrt(DRAWS)
    half = float(np.hypot(rise.high - rise.value, draws))
    return replace(rise, low=rise.value - half, high=rise.value + half)


def _verdict(model: str, rise: Estimate, first: int, last: int) -> str:
    said = f"From {first} to {last} training rows AUROC of the simple {model} model changes by "
    said += in_words(rise, signed=True)
    if rise.low is not None and rise.low > 0:
        return f"{said}: it still rises, and more rows would help."
    if rise.high is not None and rise.high < 0:
        return f"{said}: it falls."
    return f"{said}: whether it still rises cannot be told."
