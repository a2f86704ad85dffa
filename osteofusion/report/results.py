"""What the arms reached, and what they differ by."""

from __future__ import annotations

from typing import Any

from osteofusion.evaluation.curves import words
from osteofusion.report.blocks import (
    Block,
    Bullets,
    Drawing,
    Heading,
    Paragraph,
    Section,
    absent,
)
from osteofusion.report.read import TRAINED, Material
from osteofusion.report.regions import region_blocks
from osteofusion.report.tables import (
    difference_blocks,
    draw_rows,
    forest_row,
    headline_metrics,
    metric_grid,
    ordered_arms,
    primary_metric,
)
from osteofusion.report.words import WITHHELD, arm_words, metric_words


def results_section(material: Material) -> Section:
    """Metrics of every arm, baselines in the same table."""
    section = Section("results", "Results")
    for variant, evaluation in material.evaluations.items():
        if len(material.evaluations) > 1:
            section.blocks.append(Heading(f"Variant {words(variant)}"))
        section.blocks += _tables(evaluation, material.evaluation)
        if len(material.evaluations) == 1:
            section.blocks += region_blocks(evaluation)
    return section


def _tables(evaluation: dict[str, Any], first: dict[str, Any]) -> list[Block]:
    arms, classes = ordered_arms(evaluation), list(evaluation["classes"])
    shared = [arm for arm in arms if evaluation is not first and _same(arm, evaluation, first)]
    arms = [arm for arm in arms if arm not in shared]
    metrics = list(evaluation["arms"][arms[0]]["metrics"])
    counts = ", ".join(f"{n} {words(name)}" for name, n in evaluation["class_counts"].items())
    caption = (
        f"{evaluation['n_rows']} test radiographs in {evaluation['n_groups']} split groups "
        f"({counts}); below each value its 95 % interval over split groups."
    )
    shown = headline_metrics(evaluation)
    rest = [name for name in metrics if name not in shown]
    if shared:
        caption += " Baselines as under the first variant."
    found: list[Block] = [metric_grid(evaluation, arms, shown, classes, caption)]
    if rest:
        found += [
            Heading("The other metrics"),
            metric_grid(evaluation, arms, rest, classes, "The same rows and arms."),
        ]
    reasons = _reasons(evaluation, arms, metrics, classes)
    if reasons:
        found.append(Bullets(reasons, f"Missing or qualified figures ({len(reasons)}), and why"))
    found += [Paragraph(f"Note: {note}", "soft") for note in evaluation.get("notes", [])]
    return found


def _same(arm: str, evaluation: dict[str, Any], first: dict[str, Any]) -> bool:
    """Whether a baseline says the same of a variant's rows as of the first variant's."""
    trained = arm in (*TRAINED, *WITHHELD)
    return not trained and evaluation["arms"][arm] == first["arms"].get(arm)


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
    rows = [forest_row(arm, evaluation["arms"][arm]["metrics"][metric]) for arm in arms]
    section.blocks.append(
        Drawing(
            "forest",
            lambda: draw_rows(rows, name, None),
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
    section.blocks += difference_blocks(differences, metric, classes)
    return section
