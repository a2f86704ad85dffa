"""Variants of a study beside each other, as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from rich import box
from rich.markup import escape
from rich.table import Table

from osteofusion.evaluation.classification import AccuracyGap, in_brackets
from osteofusion.evaluation.evaluate import ArmEvaluation, Evaluation

REFERENCES = ("majority", "age")  # baselines to hold every variant against
METRICS = {"accuracy": "accuracy", "macro_f1": "macro F1", "mcc": "MCC"}


def model_words(name: str, arms: Sequence[str]) -> str:
    """A model of a study, ``variant/arm``, as read; an only arm goes without saying."""
    variant, _, arm = name.partition("/")
    return (variant if len(arms) == 1 else f"{variant}, {arm}").replace("_", " ")


def render_variants(
    evaluations: Mapping[str, Evaluation],
    arms: Sequence[str],
    gaps: Mapping[str, pd.DataFrame] | None = None,
    title: str = "Variants",
) -> Table:
    """AUROC, accuracy, macro F1 and MCC of every variant, and what each loses from training on.

    Args:
        evaluations: Variant to its evaluation, in the study's order, all on the same rows.
        arms: Trained arms.
        gaps: Variant to what :func:`osteofusion.evaluation.classification.accuracy_gap` found.
        title: What stands above.
    """
    first = next(iter(evaluations.values()))
    lead = "auroc" if len(first.classes) == 2 else "macro_auroc"
    counts = ", ".join(f"{n} {name}" for name, n in first.class_counts.items())
    table = Table(box=box.SIMPLE_HEAD, padding=0, caption_justify="left", title=escape(title))
    heads = ["AUROC" if lead == "auroc" else "macro AUROC", *METRICS.values()]
    for name in ("variant", *heads, *(["train - test"] if gaps is not None else [])):
        table.add_column(name, justify="left" if name == "variant" else "center")

    def add(name: str, found: ArmEvaluation, gap: str) -> None:
        cells = [in_brackets(found.metrics[metric]) for metric in (lead, *METRICS)]
        if gaps is not None:
            cells.append(gap)
        table.add_row(escape(name), *(cell.replace(" (", "\n(") for cell in cells))

    for variant, evaluation in evaluations.items():
        for arm in arms:
            if arm not in evaluation.arms:
                continue
            own = None if gaps is None else gaps.get(variant)
            gap = ""
            if own is not None and arm in own.index:
                gap = in_brackets(AccuracyGap(**own.loc[arm]).estimate, "+")
            add(model_words(f"{variant}/{arm}", arms), evaluation.arms[arm], gap)
    table.add_section()
    for arm in REFERENCES:
        if arm in first.arms:
            add(arm, first.arms[arm], "")
    table.caption = escape(
        f"{first.n_rows} rows in {first.n_groups} split groups ({counts}), in the study's order; "
        "below, what always answering the commonest class reaches, and age alone. In brackets: "
        "95 % intervals over split groups."
        + (
            " train - test: what accuracy is lost off the training rows, as the models call before "
            "calibration."
            if gaps
            else ""
        )
    )
    return table
