"""What one trained model calls: its classification report and its confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from osteofusion.evaluation.curves import draw_confusion, words
from osteofusion.report.blocks import Block, Drawing, Grid, absent
from osteofusion.report.words import estimate

_SCORES = ("precision", "recall", "f1")


def class_report(found: Mapping[str, Any], classes: Sequence[str], name: str) -> Block:
    """Precision, recall, F1 and support of each class, then accuracy and AUROC, with intervals.

    Args:
        found: An arm's evaluation, as metrics.json has it.
        classes: Class names in order.
        name: The model in words.
    """
    title = f"Classification report, {name}"
    if not found.get("by_class"):
        why = "An older version made these files; run the same command again for it."
        return absent(title, why)
    rows = [
        (
            words(each),
            *(estimate(found["by_class"][each][score]) for score in _SCORES),
            str(found["by_class"][each]["support"]),
        )
        for each in classes
    ]
    total = str(sum(found["by_class"][each]["support"] for each in classes))
    metrics = found["metrics"]
    lead, said = ("auroc", "AUROC") if len(classes) == 2 else ("macro_auroc", "macro AUROC")
    rows += [
        ("macro F1", "", "", estimate(metrics["macro_f1"]), total),
        ("accuracy", "", "", estimate(metrics["accuracy"]), total),
        (said, "", "", estimate(metrics[lead]), total),
    ]
    caption = f"{title}. The last rows have one value for all classes; below it, 95 % intervals."
    return Grid(caption, ("class", "precision", "recall", "F1", "support"), tuple(rows))


def confusion(found: Mapping[str, Any], classes: Sequence[str], name: str, key: str) -> Drawing:
    """The confusion matrix of a model.

    Args:
        found: An arm's evaluation, as metrics.json has it.
        classes: Class names in order.
        name: The model in words.
        key: The model in the figure's file name.
    """
    counts = found["confusion"]
    said = "; ".join(
        f"of {sum(row):.0f} {words(true)} "
        + ", ".join(f"{n:.0f} called {words(each)}" for each, n in zip(classes, row, strict=True))
        for true, row in zip(classes, counts, strict=True)
    )
    return Drawing(
        f"confusion_{key}",
        lambda: _square_panel(counts, classes, f"Confusion matrix, {name}"),
        "Called at 0.5." if len(classes) == 2 else "Called the most probable class.",
        f"Confusion matrix of {name}: {said}.",
    )


def _square_panel(counts: Any, classes: Sequence[str], title: str) -> Figure:
    figure = Figure(figsize=(3.6, 3.5), layout="constrained")
    draw_confusion(figure.subplots(), counts, classes, title)
    return figure
