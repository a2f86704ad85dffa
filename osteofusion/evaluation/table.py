"""The headline metrics of an evaluation as a table for the terminal."""

from __future__ import annotations

from rich import box
from rich.markup import escape
from rich.table import Table

from osteofusion.evaluation.evaluate import Evaluation
from osteofusion.evaluation.metrics import Estimate

_HEADLINES = {
    "auroc": "AUROC",
    "macro_auroc": "macro AUROC",
    "low_bmd_auroc": "low-BMD AUROC",
    "auprc_negative": "AUPRC, {negative}",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced acc.",
    "macro_f1": "macro F1",
    "mcc": "MCC",
    "quadratic_kappa": "quadratic kappa",
    "brier": "Brier (0 best)",
}


def render_table(evaluation: Evaluation) -> Table:
    """Headline metrics as rows, arms as columns, 95 % intervals below the values.

    Fits 100 columns with five arms. The remaining metrics are in
    :meth:`~osteofusion.evaluation.Evaluation.to_dict`; the notes stand below the table.
    """
    counts = ", ".join(f"{count} {name}" for name, count in evaluation.class_counts.items())
    shown = [n for n in next(iter(evaluation.arms.values())).metrics if n in _HEADLINES]
    undefined = {
        f"n/a: {estimate.reason}."
        for arm in evaluation.arms.values()
        for name in shown
        if (estimate := arm.metrics[name]).value is None
    }
    caption = ["In brackets: 95 % intervals over split groups.", *sorted(undefined)]
    if len(evaluation.classes) == 2:
        caption.insert(0, f"Sensitivity is that for {evaluation.classes[1].replace('_', ' ')}.")
    table = Table(
        title=escape(
            f"{evaluation.split} rows: {evaluation.n_rows} radiographs in "
            f"{evaluation.n_groups} split groups ({counts})"
        ),
        caption=escape("\n".join([*caption, *evaluation.notes])),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=0,
    )
    table.add_column("metric", max_width=15)
    for arm in evaluation.arms:
        table.add_column(escape(arm.replace("_", " ")), justify="center")
    for name in shown:
        label = escape(_HEADLINES[name].format(negative=evaluation.classes[0]))
        table.add_row(label, *(_cell(arm.metrics[name]) for arm in evaluation.arms.values()))
    return table


def _cell(estimate: Estimate) -> str:
    if estimate.value is None:
        return "n/a"
    value = f"[bold]{estimate.value:.3f}[/bold]"
    if estimate.low is None or estimate.high is None or estimate.method == "constant":
        return value
    return f"{value}\n\\[{estimate.low:.3f}, {estimate.high:.3f}]"
