"""What a reader should know before comparing arms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from osteofusion.evaluation.metrics import Estimate
from osteofusion.evaluation.predictions import TestRows

FEW_ROWS = 10


def averaging_notes(rows: TestRows) -> list[str]:
    """How several predictions of a radiograph were taken together."""
    notes = []
    if rows.seeds > 1:
        notes.append(f"Probabilities are means over {rows.seeds} seeds, radiograph by radiograph.")
    if len(rows.folds) > 1:
        notes.append(
            f"{len(rows.folds)} test folds: AUROCs are means within folds; for all else the folds "
            "are pooled and the repeats averaged, radiograph by radiograph."
        )
    return notes


def fold_notes(rows: TestRows, classes: Sequence[str]) -> list[str]:
    """Which test folds lack a class, and what follows."""
    if len(rows.folds) == 1:
        return []
    notes = []
    for code, name in enumerate(classes):
        without = [fold.name for fold in rows.folds if not (rows.labels[fold.rows] == code).any()]
        if without:
            listed = ", ".join(without[:5]) + (" and others" if len(without) > 5 else "")
            notes.append(
                f"{len(without)} of {len(rows.folds)} test folds have no row that is {name} "
                f"({listed}): each is left out of the AUROCs that need one."
            )
    return notes


def size_notes(
    class_counts: Mapping[str, int], arms: Mapping[str, Mapping[str, Estimate]]
) -> list[str]:
    """What a side with few rows of a class can tell.

    Args:
        class_counts: Class name to number of rows.
        arms: Arm name to its metrics, the leading one first.
    """
    few = [f"{count} {name}" for name, count in class_counts.items() if count < FEW_ROWS]
    if not few:
        return []
    arm, metrics = next(iter(arms.items()))
    metric, estimate = next(iter(metrics.items()))
    said = f"Only {' and '.join(few)} radiographs on this side"
    if estimate.low is None or estimate.high is None:
        return [f"{said}: no arm can be told from another ({estimate.reason})."]
    return [
        f"{said}: the {metric.replace('_', ' ').replace('auroc', 'AUROC')} of {arm} is known to "
        f"lie between {estimate.low:.2f} and {estimate.high:.2f} only, a width of "
        f"{estimate.high - estimate.low:.2f}; smaller differences between arms say little."
    ]
