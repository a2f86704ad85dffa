"""Tables and forest plots of an evaluation, as several sections show them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from osteofusion.evaluation.curves import ForestRow, draw_forest
from osteofusion.report.blocks import Block, Drawing, Grid
from osteofusion.report.read import TRAINED
from osteofusion.report.words import WITHHELD, arm_words, estimate, metric_words

_HEADLINES = (
    "auroc", "macro_auroc", "low_bmd_auroc", "auprc_negative", "sensitivity", "specificity",
    "accuracy", "balanced_accuracy", "macro_f1", "mcc", "brier",
)  # fmt: skip
_COMPARED = ("auroc", "macro_auroc", "low_bmd_auroc", "accuracy", "macro_f1", "mcc", "brier")


def primary_metric(evaluation: dict[str, Any]) -> str:
    """The AUROC that leads: macro for three classes."""
    return "auroc" if len(evaluation["classes"]) == 2 else "macro_auroc"


def headline_metrics(evaluation: dict[str, Any]) -> list[str]:
    """Metrics of the first table, in its order."""
    known = next(iter(evaluation["arms"].values()))["metrics"]
    return [name for name in _HEADLINES if name in known]


def ordered_arms(evaluation: dict[str, Any]) -> list[str]:
    """Arms of an evaluation: trained, then asked otherwise, then baselines."""
    arms = list(evaluation["arms"])
    first = [arm for arm in (*TRAINED, *WITHHELD) if arm in arms]
    return [*first, *(arm for arm in arms if arm not in first)]


def metric_grid(
    evaluation: dict[str, Any], arms: list[str], shown: list[str], classes: list[str], caption: str
) -> Grid:
    """Arms as rows, metrics as columns, each value over its interval."""
    rows: list[tuple[str, ...]] = []
    kinds = [("trained here", TRAINED), ("the fused model asked otherwise", WITHHELD)]
    named = {arm: kind for kind, members in kinds for arm in members}
    previous = ""
    for arm in arms:
        kind = named.get(arm, "baselines on the same rows")
        if kind != previous:
            rows.append((kind,))
        previous = kind
        metrics = evaluation["arms"][arm]["metrics"]
        rows.append((arm_words(arm), *(estimate(metrics.get(name)) for name in shown)))
    return Grid(caption, ("arm", *(metric_words(name, classes) for name in shown)), tuple(rows))


def forest_row(arm: str, found: dict[str, Any]) -> ForestRow:
    """An arm in a forest plot; trained ones filled."""
    return _row(arm_words(arm), found, strong=arm in TRAINED)


def _row(name: str, found: dict[str, Any], *, strong: bool) -> ForestRow:
    return ForestRow(name, found.get("value"), found.get("low"), found.get("high"), strong)


def draw_rows(rows: Sequence[ForestRow], label: str, reference: float | None) -> Figure:
    """A forest plot of its own."""
    figure = Figure(figsize=(7.2, 0.75 + 0.27 * len(rows)), layout="constrained")
    draw_forest(figure.subplots(), rows, label, reference=reference)
    return figure


def difference_blocks(
    differences: list[dict[str, Any]], metric: str, classes: list[str], suffix: str = ""
) -> list[Block]:
    """Paired differences as a table and a forest plot.

    Args:
        differences: As an evaluation has them.
        metric: The metric of the plot and of the p values.
        classes: Class names in order.
        suffix: Of the figure's name.
    """
    if not differences:
        return []
    pairs = list(dict.fromkeys((each["first"], each["second"]) for each in differences))
    by_key = {(each["first"], each["second"], each["metric"]): each for each in differences}
    shown = [name for name in _COMPARED if any(key[2] == name for key in by_key)]
    name = metric_words(metric, classes)
    rows = []
    forest = []
    for first, second in pairs:
        pair = f"{arm_words(first)} less {arm_words(second)}"
        of = [by_key.get((first, second, each), {}) for each in shown]
        cells = [estimate(each.get("estimate"), signed=True) for each in of]
        leading = by_key.get((first, second, metric))
        rows.append((pair, *cells, _p(leading)))
        if leading is not None:
            forest.append(_row(pair, leading["estimate"], strong=second in TRAINED))
    caption = (
        "First arm less second on the same radiographs, 95 % intervals over split groups; an "
        f"interval that holds 0 does not tell the arms apart. p: of the {name}, adjusted for the "
        "number of pairs (Holm); none is given for a single split."
    )
    head = ("pair", *(metric_words(each, classes) for each in shown), "p")
    found: list[Block] = [Grid(caption, head, tuple(rows))]
    if forest:
        found.append(
            Drawing(
                re.sub(r"\W+", "_", f"differences_{pairs[0][0]}{suffix}"),
                lambda: draw_rows(forest, f"difference in {name}", 0.0),
                f"Paired differences in {name}; right of the line the first arm is better.",
                "Forest plot of the paired differences; the table above has the numbers.",
                wide=True,
            )
        )
    return found


def _p(found: dict[str, Any] | None) -> str:
    value = None if found is None else found.get("p_adjusted")
    if value is None:
        return "\N{EN DASH}"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
