"""The headline metrics and paired differences of an evaluation, as tables for the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from osteofusion.evaluation.differences import Difference
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
_ARMS_ABREAST = 5
_DIFFERENCES = {
    2: ("auroc", "sensitivity", "specificity", "mcc", "brier"),
    3: ("macro_auroc", "low_bmd_auroc", "accuracy", "macro_f1", "mcc"),
}


def render_table(evaluation: Evaluation) -> RenderableType:
    """Headline metrics as rows, arms as columns, 95 % intervals below the values.

    Fits 100 columns: five arms abreast, further arms below. The remaining metrics are in
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
    caption = ["Below each value: 95 % intervals over split groups.", *sorted(undefined)]
    if len(evaluation.classes) == 2:
        caption.insert(0, f"Sensitivity is that for {evaluation.classes[1].replace('_', ' ')}.")
    title = (
        f"{evaluation.split} rows: {evaluation.n_rows} radiographs in "
        f"{evaluation.n_groups} split groups ({counts})"
    )
    arms = list(evaluation.arms)
    blocks = [arms[i : i + _ARMS_ABREAST] for i in range(0, len(arms), _ARMS_ABREAST)]
    tables = [_block(evaluation, block, shown) for block in blocks]
    tables[0].title = escape(title)
    text = "\n".join([*caption, *evaluation.notes])
    if len(tables) == 1:
        tables[0].caption = escape(text)
        return tables[0]
    return Group(*tables, Text(text, style="table.caption"))  # the last table may be narrow


def render_differences(evaluation: Evaluation) -> RenderableType:
    """Paired differences: pairs as rows, five metrics as columns; fits 100 columns.

    Below each value its 95 % interval, and its p value, adjusted over the pairs, where there is
    one. Without pairs a sentence that says so.
    """
    if not evaluation.differences:
        return "No paired differences: there is no pair of arms."
    found = {(d.first, d.second, d.metric): d for d in evaluation.differences}
    pairs = list(dict.fromkeys((first, second) for first, second, _ in found))
    metrics = _DIFFERENCES[min(len(evaluation.classes), 3)]
    caption = ["First arm less second on the same rows. Below each: 95 % intervals."]
    undefined = {
        f"n/a: {d.estimate.reason}."
        for key, d in found.items()
        if key[2] in metrics and d.estimate.value is None
    }
    caption += sorted(undefined)
    if evaluation.n_folds > 1:
        caption.append("p: two-sided, adjusted for the number of pairs (Holm), each metric alone.")
    else:
        caption.append("No p values from a single split: another split is another draw.")
    table = _table()
    table.title = "Paired differences"
    table.caption = "\n".join(escape(line) for line in caption)
    table.add_column("pair", min_width=11, max_width=18, overflow="fold")
    for name in metrics:
        label = _HEADLINES[name].partition(" (")[0]
        table.add_column(label, justify="center")
    for first, second in pairs:
        cells = [_difference(found[first, second, name]) for name in metrics]
        table.add_row(escape(f"{_spaced(first)}\n- {_spaced(second)}"), *cells, end_section=True)
    return table


def _block(evaluation: Evaluation, arms: list[str], shown: list[str]) -> Table:
    table = _table()
    table.add_column("metric", max_width=15)
    for arm in arms:
        table.add_column(escape(_spaced(arm)), justify="center")
    for name in shown:
        label = escape(_HEADLINES[name].format(negative=evaluation.classes[0]))
        table.add_row(label, *(_cell(evaluation.arms[arm].metrics[name]) for arm in arms))
    return table


def _table() -> Table:
    return Table(caption_justify="left", box=box.SIMPLE_HEAD, padding=0)


def _spaced(arm: str) -> str:
    return arm.replace("_", " ")


def _cell(estimate: Estimate, sign: str = "") -> str:
    if estimate.value is None:
        return "n/a"
    value = f"[bold]{estimate.value:{sign}.3f}[/bold]"
    if estimate.low is None or estimate.high is None or estimate.method == "constant":
        return value
    return f"{value}\n{estimate.low:.3f} to {estimate.high:.3f}"


def _difference(difference: Difference) -> str:
    p = difference.p_adjusted
    if p is None:
        return _cell(difference.estimate, "+")
    return f"{_cell(difference.estimate, '+')}\np {'< 0.001' if p < 0.001 else f'= {p:.3f}'}"
