"""What the intervals do and do not show, in plain language."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from osteofusion.evaluation.class_scores import ClassScores
from osteofusion.evaluation.curves import words
from osteofusion.evaluation.differences import Difference
from osteofusion.evaluation.evaluate import ArmEvaluation, Evaluation
from osteofusion.evaluation.metrics import Estimate
from osteofusion.evaluation.reading import best_single_column, reading
from osteofusion.report.blocks import Bullets, Heading, Paragraph, Section
from osteofusion.report.glossary import explained
from osteofusion.report.read import Material
from osteofusion.report.tables import primary_metric
from osteofusion.report.variants import verdict as variants_verdict
from osteofusion.report.words import arm_words, inline, metric_words, percent

_WIDE = 0.15  # width of an interval from which it says little
_WITHHELD = {
    "fused_without_image": "its images withheld",
    "fused_without_clinical": "its clinical row withheld",
    "fused_shuffled_images": "its images shuffled between subjects",
}


def reading_section(material: Material) -> Section:
    """The reading, first of all sections."""
    section = Section("reading", "In plain words")
    verdicts, said = [fusion_verdict(material.evaluation)], sentences(material)
    if len(material.evaluations) > 1:
        verdicts.insert(0, variants_verdict(material))
    section.blocks += [
        *(Paragraph(verdict, "verdict") for verdict in verdicts),
        Paragraph(explained([*verdicts, *said]), "soft"),
        Bullets(tuple(said)),
        Heading("What this cannot show"),
        Bullets(tuple(limits(material))),
    ]
    return section


def fusion_verdict(evaluation: dict[str, Any]) -> str:
    """Whether fusion helps: over the clinical arm and the best single column, with intervals."""
    return reading(from_dict(evaluation))


def best_single(evaluation: dict[str, Any]) -> str | None:
    """The single number, such as age, with the highest AUROC."""
    return best_single_column(from_dict(evaluation))


def from_dict(evaluation: dict[str, Any]) -> Evaluation:
    """The evaluation that was written; what an older version did not write is empty."""
    arms = {
        arm: ArmEvaluation(
            metrics={name: Estimate(**values) for name, values in found["metrics"].items()},
            confusion=found["confusion"],
            report=found.get("report", {}),
            degenerate_resamples=found.get("degenerate_resamples", 0),
            by_class={name: _scores(each) for name, each in found.get("by_class", {}).items()},
        )
        for arm, found in evaluation["arms"].items()
    }
    differences = [
        Difference(**{**each, "estimate": Estimate(**each["estimate"])})
        for each in evaluation.get("differences") or []
    ]
    names = [item.name for item in fields(Evaluation)]
    known = {"n_folds": 1, **{name: evaluation[name] for name in names if name in evaluation}}
    return Evaluation(**{**known, "arms": arms, "differences": differences})


def _scores(found: dict[str, Any]) -> ClassScores:
    shares = {name: Estimate(**found[name]) for name in ("precision", "recall", "f1")}
    return ClassScores(**shares, support=found["support"])


def difference(evaluation: dict[str, Any], first: str, second: str, metric: str) -> dict[str, Any]:
    """The paired difference, first less second; empty where there is none."""
    for each in evaluation.get("differences") or []:
        if each["metric"] != metric:
            continue
        found: dict[str, Any] = each["estimate"]
        if (each["first"], each["second"]) == (first, second):
            return found
        if (each["first"], each["second"]) == (second, first) and found.get("value") is not None:
            low, high = found.get("low"), found.get("high")
            return {
                **found,
                "value": -found["value"],
                "low": None if high is None else -high,
                "high": None if low is None else -low,
            }
    return {}


def sentences(material: Material) -> list[str]:
    """What each figure means, one sentence each."""
    evaluation, classes = material.evaluation, material.classes
    arms, metric = evaluation["arms"], primary_metric(evaluation)
    name = metric_words(metric, classes)
    counts = " and ".join(f"{n} {words(c)}" for c, n in evaluation["class_counts"].items())
    said = [
        f"All figures rest on {evaluation['n_rows']} test radiographs in {evaluation['n_groups']} "
        f"split groups: {counts}."
    ]
    main = material.main
    for arm in dict.fromkeys((main, "tabular", "image", best_single(evaluation))):
        if arm is not None and arm in arms:
            found = arms[arm]["metrics"][metric]
            said.append(f"{_start(arm)} reaches {name} {inline(found)}{_how_wide(found)}.")
    for arm, meaning in _WITHHELD.items():
        found = difference(evaluation, "fused", arm, metric)
        if _has_interval(found):
            said.append(
                f"With {meaning} the fused model changes by {inline(_turned(found), signed=True)} "
                f"in {name}: {_depends(found)}."
            )
    said.append(_majority(evaluation))
    return said


def limits(material: Material) -> list[str]:
    """What the figures cannot show."""
    said = [
        "An interval shows the chance in who was tested. It does not show what another hospital, "
        "another machine or another training run would change.",
        "An interval of a difference that holds 0 does not mean that two arms are equal.",
    ]
    if suspect := material.audits.get("pairing", {}).get("suspect"):
        named = " and ".join(map(words, suspect))
        said.append(
            f"Radiographs and rows may not belong together in the class {named} (see the audits), "
            "so what an image adds there cannot be trusted."
        )
    if material.evaluation.get("n_folds", 1) == 1:
        said.append(
            "One split is one draw: another one moves every figure. No p value is given from it; "
            "`osteofusion study` repeats the comparison over folds."
        )
    if material.stamp:
        said.insert(0, f"{material.stamp}; nothing here is evidence about patients.")
    classes = material.evaluation["class_counts"]
    total = sum(classes.values())
    share = 1 - next(iter(classes.values())) / total
    said.append(
        f"{percent(round(share, 3))} of these radiographs are {material.low}; where that share is "
        "another, predictive values are others too (see the section on decisions)."
    )
    return said


def _majority(evaluation: dict[str, Any]) -> str:
    counts = evaluation["class_counts"]
    answer = max(counts, key=lambda name: counts[name])
    share = percent(round(counts[answer] / sum(counts.values()), 3))
    return (
        f"Always answering {words(answer)} is right in {share} of these rows, so an accuracy near "
        "that has learnt nothing."
    )


def _how_wide(found: dict[str, Any]) -> str:
    if not _has_interval(found):
        return f" ({found['reason']})" if found.get("reason") else ""
    if found["low"] <= 0.5 <= found["high"]:
        return ", which cannot be told from guessing"
    if found["high"] - found["low"] > _WIDE:
        return f", an interval {found['high'] - found['low']:.2f} wide, so it is known roughly only"
    return ""


def _depends(found: dict[str, Any]) -> str:
    if found["low"] > 0:
        return "it relies on that"
    if found["high"] < 0:
        return "it is better without"
    return "no loss can be shown"


def _turned(found: dict[str, Any]) -> dict[str, Any]:
    return {**found, "value": -found["value"], "low": -found["high"], "high": -found["low"]}


def _has_interval(found: dict[str, Any]) -> bool:
    return all(found.get(key) is not None for key in ("value", "low", "high"))


def _start(arm: str) -> str:
    names = {
        "fused": "The fused model",
        "tabular": "The tabular arm",
        "image": "The image arm",
    }
    said = names.get(arm, arm_words(arm))
    return said[0].upper() + said[1:]
