"""What splitting by row buys: the same simple models, split by row and split by group."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.neighbors import KNeighborsClassifier

from osteofusion.audit.findings import ALPHA
from osteofusion.audit.predictability import holm
from osteofusion.audit.results.estimates import (
    Bools,
    class_areas,
    difference,
    in_words,
    mean_area,
    mean_value,
    plain,
)
from osteofusion.audit.results.simple import (
    AuditRows,
    class_targets,
    decided,
    fit_scores,
    grouped_folds,
    ranked,
    row_folds,
)
from osteofusion.evaluation.metrics import Floats
from osteofusion.progress import shown

REPEATS = 5
NEAREST = "nearest_film"  # the label of the most similar training film


def audit_leakage(rows: AuditRows, copied: Bools, *, progress: bool = False) -> dict[str, Any]:
    """Compare splits by row with splits by group, for plain values.

    Per model the AUROC and the accuracy with either kind of folds, and the paired differences,
    from scores that are ranked within folds and averaged over 5 repeats. For ``nearest_film``,
    which shows copies plainly, the accuracy, also on the copied films alone. p-values are adjusted
    by Holm over the table.

    Args:
        rows: The rows.
        copied: (n,) true where another row has the same film.
        progress: Show a progress bar.
    """
    if len(np.unique(rows.groups)) == len(rows.y):
        return {"reason": "no film and no subject is there twice, so a split by row leaks nothing"}
    if rows.too_few:
        return {"reason": rows.too_few}
    kinds: dict[str, Callable[[int], Any]] = {
        "row": lambda seed: row_folds(rows.y, seed),
        "group": lambda seed: grouped_folds(rows.y, rows.groups, seed),
    }
    tasks = [(kind, seed) for kind in kinds for seed in range(REPEATS)]
    scores: dict[tuple[str, str], Floats] = {}
    hits: dict[tuple[str, str], Floats] = {}
    for kind, seed in shown(tasks, len(tasks), "Splitting by row and by group", progress):
        for train, test in kinds[kind](seed):
            memory: dict[str, Floats] = {}
            for model in rows.models:
                found = fit_scores(rows, model, train, test, seed, memory)
                kept = scores.setdefault((model, kind), np.zeros((len(rows.y), found.shape[1])))
                kept[test] += ranked(found) / REPEATS
                right = decided(found) == rows.y[test]
                hits.setdefault((model, kind), np.zeros(len(rows.y)))[test] += right / REPEATS
            if "image" in rows.matrices:
                x = rows.matrices["image"]
                nearest = KNeighborsClassifier(1).fit(x[train], rows.y[train]).predict(x[test])
                found = class_targets(nearest, len(rows.classes))
                right = decided(found) == rows.y[test]
                hits.setdefault((NEAREST, kind), np.zeros(len(rows.y)))[test] += right / REPEATS
    table = [_auroc_row(rows, model, scores) for model in rows.models]
    everything = np.ones(len(rows.y), dtype=bool)
    table += [_accuracy_row(rows, model, hits, everything, "all") for model in rows.models]
    if "image" in rows.matrices:
        table.append(_accuracy_row(rows, NEAREST, hits, everything, "all"))
        if copied.any():
            table.append(_accuracy_row(rows, NEAREST, hits, copied, "copied films"))
    for row, p in zip(table, holm([row["p"] for row in table]), strict=True):
        row["p_adjusted"] = p
    surplus = len(rows.y) - len(np.unique(rows.groups))
    return {"reason": None, "verdict": _verdict(table, surplus, len(rows.y)), "rows": table}


def _auroc_row(
    rows: AuditRows, model: str, scores: dict[tuple[str, str], Floats]
) -> dict[str, Any]:
    found = {
        kind: mean_area(class_areas(rows.y, scores[model, kind], rows.groups))
        for kind in ("row", "group")
    }
    gap, p = difference(found["row"], found["group"], len(rows.y))
    name = "auroc" if len(rows.classes) == 2 else "macro_auroc"
    return _row(model, name, "all", found["row"].value, found["group"].value, gap, p)


def _accuracy_row(
    rows: AuditRows,
    model: str,
    hits: dict[tuple[str, str], Floats],
    chosen: Bools,
    where: str,
) -> dict[str, Any]:
    found = {
        kind: mean_value(hits[model, kind][chosen], rows.groups[chosen])
        for kind in ("row", "group")
    }
    gap, p = difference(found["row"], found["group"], int(chosen.sum()))
    return _row(model, "accuracy", where, found["row"].value, found["group"].value, gap, p)


def _row(
    model: str, metric: str, where: str, by_row: float, by_group: float, gap: Any, p: float | None
) -> dict[str, Any]:
    return {
        "model": model,
        "metric": metric,
        "on": where,
        "by_row": by_row,
        "by_group": by_group,
        "difference": plain(gap),
        "p": p,
        "said": in_words(gap, signed=True),
    }


def _verdict(table: list[dict[str, Any]], surplus: int, n: int) -> list[str]:
    said = [
        f"{surplus} of {n} rows share a subject or a film with a row before them; a split by row "
        "puts such rows on both sides."
    ]
    gains = [f"{row['model']} {row['said']}" for row in table if row["metric"].endswith("auroc")]
    said.append(f"What that adds to the AUROC of simple models: {'; '.join(gains)}.")
    for row in (row for row in table if row["model"] == NEAREST):
        where = "all films" if row["on"] == "all" else "films that have a copy"
        said.append(
            f"Taking the label of the most similar training film is right in {row['by_row']:.1%} "
            f"of {where} by row and {row['by_group']:.1%} by group."
        )
    bought = [
        f"{row['model'].replace('_', ' ')} ({row['metric'].replace('_', ' ')}, {row['on']})"
        for row in table
        if row["p_adjusted"] is not None
        and row["p_adjusted"] < ALPHA
        and row["difference"]["value"] > 0
    ]
    said.append(
        f"More than chance explains: {', '.join(bought)}."
        if bought
        else "None of these differences can be told from chance on these rows; a network that "
        "learns films by heart may take more from them."
    )
    return said
