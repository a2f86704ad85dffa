"""How training went: loss and accuracy over the epochs."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from osteofusion.evaluation.curves import COLOURS, name_lines_below
from osteofusion.report.blocks import Drawing, Section, absent
from osteofusion.report.read import Material
from osteofusion.report.words import ARMS

_SHOWN = {"loss": "loss", "accuracy": "accuracy", "auroc": "AUROC", "macro_auroc": "macro AUROC"}


def training_section(material: Material) -> Section:
    """Curves of the run, or of all cells of a study, arm by arm."""
    section = Section("training", "Training")
    if not material.logs:
        section.blocks.append(absent("Training curves", "There is no logs/*/metrics.csv."))
        return section
    for arm, logs in _by_arm(material).items():
        known = {key for log in logs for key in log.columns}
        for metric, name in _SHOWN.items():
            if f"val_{metric}" not in known and f"train_{metric}" not in known:
                continue
            section.blocks.append(_drawing(arm, logs, metric, name))
    return section


def _drawing(arm: str, logs: list[pd.DataFrame], metric: str, name: str) -> Drawing:
    many = f"{len(logs)} trainings, each a line" if len(logs) > 1 else "one training"
    epochs = max(len(log) for log in logs)
    start, whose = f"{name[0].upper()}{name[1:]}", ARMS.get(arm, arm)
    return Drawing(
        f"training_{arm}_{metric}",
        lambda: _draw(logs, metric, f"{whose}: {name}", name),
        f"{start} over the epochs, {many}; the test side is not among them.",
        f"{start} of {whose} over up to {epochs} epochs, training and validation side, {many}.",
    )


def _by_arm(material: Material) -> dict[str, list[pd.DataFrame]]:
    if material.cells is None:
        return {arm: [log] for arm, log in material.logs.items()}
    arms: Mapping[str, str] = dict(zip(material.cells["cell"], material.cells["arm"], strict=True))
    several = len(material.evaluations) > 1
    variants = dict(zip(material.cells["cell"], material.cells["variant"], strict=True))
    found: dict[str, list[pd.DataFrame]] = {}
    for cell, log in material.logs.items():
        if several and variants[cell] != material.variant:
            continue  # the first variant stands for all, as in the other sections
        found.setdefault(arms[cell], []).append(log)
    return found


def _draw(logs: list[pd.DataFrame], metric: str, title: str, name: str) -> Figure:
    figure = Figure(figsize=(4.1, 3.6), layout="constrained")
    axes = figure.subplots()
    marker = "o" if max(len(log) for log in logs) < 3 else None
    for log in logs:
        for index, (side, said) in enumerate({"train": "training", "val": "validation"}.items()):
            if f"{side}_{metric}" in log:
                values = log[f"{side}_{metric}"].dropna()
                axes.plot(
                    values.index, values, color=COLOURS[index], linestyle=["-", "--"][index],
                    linewidth=1.6 if len(logs) == 1 else 0.9, marker=marker, markersize=4,
                    alpha=1 if len(logs) == 1 else 0.6, label=said if log is logs[0] else None,
                )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(title=title, xlabel="epoch", ylabel=name)
    name_lines_below(axes)
    return figure
