"""What the arms reached: tables, paired differences, curves and confusion matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from osteofusion.evaluation.curves import (
    ForestRow,
    draw_calibration,
    draw_confusion,
    draw_forest,
    draw_precision_recall,
    draw_roc,
    words,
)
from osteofusion.report.blocks import (
    Block,
    Bullets,
    Drawing,
    Grid,
    Heading,
    Paragraph,
    Section,
    absent,
)
from osteofusion.report.pooled import Pooled
from osteofusion.report.read import TRAINED, Material
from osteofusion.report.words import (
    SINGLE,
    WITHHELD,
    arm_words,
    estimate,
    metric_words,
    number,
)

_HEADLINES = (
    "auroc", "macro_auroc", "low_bmd_auroc", "auprc_negative", "sensitivity", "specificity",
    "accuracy", "balanced_accuracy", "macro_f1", "mcc", "brier",
)  # fmt: skip
_COMPARED = ("auroc", "macro_auroc", "low_bmd_auroc", "accuracy", "macro_f1", "mcc", "brier")
_MOST_CURVES = 6
_SIDE = 3.3  # of square axes, inches


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


def results_section(material: Material) -> Section:
    """Metrics of every arm, baselines in the same table."""
    section = Section("results", "Results")
    for variant, evaluation in material.evaluations.items():
        if len(material.evaluations) > 1:
            section.blocks.append(Heading(f"Variant {variant}"))
        section.blocks += _tables(evaluation)
    if material.between is not None:
        section.blocks.append(Heading("Between variants"))
        metric = primary_metric(material.between)
        differences = material.between.get("differences") or []
        section.blocks += _differences(differences, metric, material.classes)
    return section


def _tables(evaluation: dict[str, Any]) -> list[Block]:
    arms, classes = ordered_arms(evaluation), list(evaluation["classes"])
    metrics = list(evaluation["arms"][arms[0]]["metrics"])
    counts = ", ".join(f"{n} {words(name)}" for name, n in evaluation["class_counts"].items())
    caption = (
        f"{evaluation['n_rows']} test radiographs in {evaluation['n_groups']} split groups "
        f"({counts}); below each value its 95 % interval over split groups."
    )
    shown = headline_metrics(evaluation)
    rest = [name for name in metrics if name not in shown]
    found: list[Block] = [_metric_grid(evaluation, arms, shown, classes, caption)]
    if rest:
        found += [
            Heading("The other metrics"),
            _metric_grid(evaluation, arms, rest, classes, "The same rows and arms."),
        ]
    reasons = _reasons(evaluation, arms, metrics, classes)
    if reasons:
        found.append(Bullets(reasons, f"Why {len(reasons)} figures are missing or qualified"))
    found += [Paragraph(f"Note: {note}", "soft") for note in evaluation.get("notes", [])]
    return found


def _metric_grid(
    evaluation: dict[str, Any], arms: list[str], shown: list[str], classes: list[str], caption: str
) -> Grid:
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


def _reasons(
    evaluation: dict[str, Any], arms: list[str], metrics: list[str], classes: list[str]
) -> tuple[str, ...]:
    return tuple(
        f"{arm_words(arm)}, {metric_words(name, classes)}: {found['reason']}"
        for arm in arms
        for name in metrics
        if (found := evaluation["arms"][arm]["metrics"].get(name, {})).get("reason")
    )


def comparison_section(material: Material) -> Section:
    """Paired differences and the forest plots."""
    section = Section("comparison", "Does the radiograph add anything?")
    evaluation = material.evaluation
    classes, arms = list(evaluation["classes"]), ordered_arms(evaluation)
    metric = primary_metric(evaluation)
    name = metric_words(metric, classes)
    if not any(arm in arms for arm in WITHHELD) and "fused" in arms:
        section.blocks.append(
            absent("The fused model without a modality", "The ablation was left out of this one.")
        )
    rows = [_forest_row(arm, evaluation["arms"][arm]["metrics"][metric]) for arm in arms]
    section.blocks.append(
        Drawing(
            "forest",
            lambda: _forest(rows, name, None),
            f"{name} of every arm; filled: trained here.",
            f"Forest plot of the {name} of {len(rows)} arms; the results table has the numbers.",
            wide=True,
        )
    )
    differences = list(evaluation.get("differences") or [])
    if not differences:
        why = (
            "There is one arm only."
            if len(arms) == 1
            else "The folder was evaluated without them; intervals of single arms that overlap say "
            "little about a difference."
        )
        section.blocks.append(absent("Paired differences", why))
        return section
    section.blocks += _differences(differences, metric, classes)
    return section


def _forest_row(arm: str, found: dict[str, Any]) -> ForestRow:
    return _row(arm_words(arm), found, strong=arm in TRAINED)


def _row(name: str, found: dict[str, Any], *, strong: bool) -> ForestRow:
    return ForestRow(name, found.get("value"), found.get("low"), found.get("high"), strong)


def _forest(rows: Sequence[ForestRow], label: str, reference: float | None) -> Figure:
    figure = Figure(figsize=(7.2, 0.75 + 0.27 * len(rows)), layout="constrained")
    draw_forest(figure.subplots(), rows, label, reference=reference)
    return figure


def _differences(differences: list[dict[str, Any]], metric: str, classes: list[str]) -> list[Block]:
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
                f"differences_{pairs[0][0]}".replace("/", "_"),
                lambda: _forest(forest, f"difference in {name}", 0.0),
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
    section.blocks += [_confusion(material, arm) for arm in trained]
    section.blocks += _classification_reports(material, trained)
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


def _confusion(material: Material, arm: str) -> Drawing:
    counts = material.evaluation["arms"][arm]["confusion"]
    classes = material.classes
    said = "; ".join(
        f"of {sum(row):.0f} {words(true)} "
        + ", ".join(f"{n:.0f} called {words(name)}" for name, n in zip(classes, row, strict=True))
        for true, row in zip(classes, counts, strict=True)
    )
    return Drawing(
        f"confusion_{arm}",
        lambda: _square_panel(counts, classes, f"Confusion matrix, {arm_words(arm)}"),
        "Called at 0.5." if len(classes) == 2 else "Called the most probable class.",
        f"Confusion matrix of {arm_words(arm)}: {said}.",
    )


def _square_panel(counts: Any, classes: list[str], title: str) -> Figure:
    figure = Figure(figsize=(3.6, 3.5), layout="constrained")
    draw_confusion(figure.subplots(), counts, classes, title)
    return figure


def _classification_reports(material: Material, arms: list[str]) -> list[Block]:
    found: list[Block] = []
    for arm in arms:
        counts = np.asarray(material.evaluation["arms"][arm]["confusion"], dtype=float)
        hits, true, called = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            precision, recall = hits / called, hits / true
            f1 = 2 * hits / (true + called)
        rows = [
            (words(name), *map(_share, values), f"{support:.0f}")
            for name, support, *values in zip(
                material.classes, true, precision, recall, f1, strict=True
            )
        ]
        means = [float(np.mean(values)) for values in (precision, recall, f1)]
        rows.append(("macro average", *map(_share, means), f"{true.sum():.0f}"))
        found.append(
            Grid(
                f"Classification report, {arm_words(arm)}.",
                ("class", "precision", "recall", "F1", "support"),
                tuple(rows),
            )
        )
    return found


def _share(value: float) -> str:
    return "n/a" if np.isnan(value) else f"{value:.3f}"
