"""How training went: loss and accuracy over the epochs."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from osteofusion.evaluation.curves import COLOURS, name_lines_below, words
from osteofusion.report.blocks import Drawing, Paragraph, Section, absent
from osteofusion.report.read import Material
from osteofusion.report.words import ARMS

_SHOWN = {"loss": "loss", "accuracy": "accuracy", "auroc": "AUROC", "macro_auroc": "macro AUROC"}


def training_section(material: Material) -> Section:
    """Curves of the run, or of all cells of a study, arm by arm."""
    section = Section("training", "Training")
    if not material.logs:
        section.blocks.append(absent("Training curves", "There is no logs/*/metrics.csv."))
        return section
    several = len(material.evaluations) > 1
    if several:
        said = "Accuracy over the epochs stands beside each model under Variants."
        section.blocks.append(Paragraph(said, "soft"))
    for variant in material.evaluations:
        for arm, logs in logs_of(material, variant).items():
            key = f"{variant}_{arm}" if several else arm
            whose = ", ".join([words(variant)] * several + [ARMS.get(arm, arm)])
            for metric in _SHOWN:
                drawn = curve(logs, metric, key, whose)
                if drawn is not None and not (several and metric == "accuracy"):
                    section.blocks.append(drawn)
    return section


def curve(logs: list[pd.DataFrame], metric: str, key: str, whose: str) -> Drawing | None:
    """A metric over the epochs, training and validation side; None where it was not logged.

    Args:
        logs: One a training.
        metric: ``loss``, ``accuracy``, ``auroc`` or ``macro_auroc``.
        key: The model in the figure's file name.
        whose: The model in words.
    """
    known = {column for log in logs for column in log.columns}
    if not known & {f"val_{metric}", f"train_{metric}"}:
        return None
    many = f"{len(logs)} trainings, each a line" if len(logs) > 1 else "one training"
    epochs = max(len(log) for log in logs)
    name = _SHOWN[metric]
    start = f"{name[0].upper()}{name[1:]}"
    return Drawing(
        f"training_{key}_{metric}",
        lambda: _draw(logs, metric, f"{whose}: {name}", name),
        f"{start} over the epochs, {many}; the test side is not among them.",
        f"{start} of {whose} over up to {epochs} epochs, training and validation side, {many}.",
    )


def logs_of(material: Material, variant: str) -> dict[str, list[pd.DataFrame]]:
    """Arm to the logs of its trainings, one a fold and seed, of one variant."""
    if material.cells is None:
        return {arm: [log] for arm, log in material.logs.items()}
    arms: Mapping[str, str] = dict(zip(material.cells["cell"], material.cells["arm"], strict=True))
    variants = dict(zip(material.cells["cell"], material.cells["variant"], strict=True))
    found: dict[str, list[pd.DataFrame]] = {}
    for cell, log in material.logs.items():
        if variants[cell] == variant:
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
