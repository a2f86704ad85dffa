"""ROC, precision-recall and calibration curves, confusion matrices, classification reports."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from osteofusion.evaluation.curves import (
    draw_calibration,
    draw_precision_recall,
    draw_roc,
    words,
)
from osteofusion.report.blocks import Drawing, Paragraph, Section
from osteofusion.report.models import class_report, confusion
from osteofusion.report.pooled import Pooled
from osteofusion.report.read import TRAINED, Material
from osteofusion.report.tables import primary_metric
from osteofusion.report.words import SINGLE, WITHHELD, arm_words, number

_MOST_CURVES = 6
_SIDE = 3.3  # of square axes, inches


def curves_section(material: Material, pooled: Pooled) -> Section:
    """ROC, precision-recall, calibration, confusion matrices, classification report."""
    section = Section("curves", "Curves and confusion matrices")
    arms = shown_arms(material, pooled)
    evaluation = material.evaluation
    metric = "auroc" if len(material.classes) == 2 else "low_bmd_auroc"
    # What the tables say: within folds, then averaged, where there are several.
    areas = {arm: evaluation["arms"][arm]["metrics"].get(metric, {}).get("value") for arm in arms}
    printed = None if None in areas.values() else {arm_words(a): v for a, v in areas.items()}
    scores = {arm_words(arm): values for arm, values in pooled.scores(arms).items()}
    side, other = material.low, words(material.classes[0])
    said = ", ".join(arm_words(arm) for arm in arms)
    cells = _cells(material.first_predictions)
    pooled_note = (
        f" {cells} test folds pooled, repeats averaged; the AUROC printed is the mean within folds."
        if cells > 1
        else ""
    )
    section.blocks += [
        Drawing(
            "roc",
            lambda: _panel(draw_roc, pooled.positive, scores, side, printed),
            f"Sensitivity for {side} over 1 - specificity.{pooled_note}",
            f"ROC curves of {said}; the AUROCs stand in the results table.",
        ),
        Drawing(
            "precision_recall",
            lambda: _panel(draw_precision_recall, pooled.positive, scores, side, other),
            "Of the rarer side; the grey line is its share, what guessing reaches.",
            f"Precision-recall curves of {said}; the areas stand in the results table.",
        ),
    ]
    trained = [arm for arm in arms if arm in TRAINED]
    section.blocks += [_calibration(material, pooled, arm) for arm in trained]
    if len(material.evaluations) == 1:  # of several variants they stand under Variants
        for arm in trained:
            section.blocks.append(
                confusion(evaluation["arms"][arm], material.classes, arm_words(arm), arm)
            )
        section.blocks += [
            class_report(evaluation["arms"][arm], material.classes, arm_words(arm))
            for arm in trained
        ]
    if pooled.left_out:
        section.blocks.append(
            Paragraph(
                f"{pooled.left_out} radiographs that some arm was not asked about are not drawn.",
                "absent",
            )
        )
    return section


def shown_arms(material: Material, pooled: Pooled) -> list[str]:
    """Few enough arms: trained, the best single column, OST, the best of the rest."""
    metric = primary_metric(material.evaluation)
    reached = {
        arm: found["metrics"][metric].get("value") or 0.0
        for arm, found in material.evaluation["arms"].items()
        if arm in pooled.p
    }
    ranked = sorted(reached, key=lambda arm: -reached[arm])
    single = [arm for arm in ranked if arm in SINGLE][:1]
    fitted = [arm for arm in ranked if arm not in (*TRAINED, *WITHHELD, *SINGLE, "majority")][:1]
    ost = ["ost"] if "ost" in reached else []
    chosen = [*(arm for arm in TRAINED if arm in reached), *single, *ost, *fitted]
    return list(dict.fromkeys(chosen))[:_MOST_CURVES]


def _cells(predictions: pd.DataFrame) -> int:
    return len(predictions[["repeat", "fold"]].drop_duplicates())


def _panel(draw: Any, positive: Any, scores: Any, *arguments: Any) -> Figure:
    """Square axes with the names of the lines below."""
    below = 0.85 + 0.17 * len(scores)
    width, height = _SIDE + 0.8, _SIDE + below + 0.35
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0.65 / width, below / height, _SIDE / width, _SIDE / height))
    draw(axes, positive, scores, *arguments)
    return figure


def _calibration(material: Material, pooled: Pooled, arm: str) -> Drawing:
    after, before = (pooled.scores([arm], kind)[arm] for kind in ("p", "raw"))
    calibrated = not np.allclose(after, before)
    scores = {"before": before, "after calibration": after} if calibrated else {"as it is": after}
    metrics = material.evaluation["arms"][arm]["metrics"]
    said = ", ".join(
        f"{name} {number(metrics[f'calibration_{name}']['value'])}"
        for name in ("slope", "intercept")
        if metrics.get(f"calibration_{name}", {}).get("value") is not None
    )
    how = (
        "Before and after scaling that was fitted on other folds."
        if calibrated
        else "Not calibrated: the probabilities are as the model says them."
    )
    title = f"Calibration, {arm_words(arm)}"
    return Drawing(
        f"calibration_{arm}",
        lambda: _panel(
            draw_calibration, pooled.positive, scores, pooled.groups, title, material.low
        ),
        f"{how} On the diagonal, predictions mean what they say{f'; {said}' if said else ''}.",
        f"Calibration plot of {arm_words(arm)}: observed share of {material.low} over its "
        f"predicted probability{f'; {said}' if said else ''}.",
    )
