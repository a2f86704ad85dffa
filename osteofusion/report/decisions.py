"""Operating points, triage, prevalence and decision curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from osteofusion.errors import EvaluationError
from osteofusion.evaluation.curves import draw_decision_curves, words
from osteofusion.evaluation.decisions import decide
from osteofusion.report.blocks import (
    Block,
    Bullets,
    Drawing,
    Grid,
    Heading,
    Paragraph,
    Prevalence,
    Section,
    absent,
)
from osteofusion.report.read import Material
from osteofusion.report.words import arm_words, estimate, number, percent, persons

_POINTS = {
    "fixed_sensitivity": "fixed sensitivity",
    "fixed_specificity": "fixed specificity",
    "youden": "Youden",
    "half": "0.5",
}
_BANDS = {"rule_out": "rule out", "dxa": "send to DXA", "rule_in": "rule in"}


def decisions_section(material: Material, prevalences: Sequence[float]) -> Section:
    """What the main arm is good for at the point of decision, at the prevalences asked for."""
    section = Section("decisions", f"Decisions with the {arm_words(material.main)} arm")
    try:
        found = decide(
            material.first_predictions,
            material.classes,
            arm=material.main,
            prevalence=list(prevalences),
        ).to_dict()
    except EvaluationError as error:
        section.blocks.append(absent("Operating points, triage and decision curves", str(error)))
        return section
    section.blocks += [Paragraph(note, "soft") for note in found["notes"]]
    section.blocks += [_operating(found), *_calibration(found)]
    section.blocks += _prevalence(found, prevalences)
    section.blocks += _triage(found)
    section.blocks += [_curve(curve, place) for place, curve in enumerate(found["curves"])]
    if found["precision"]:
        readings = tuple(each["reading"] for each in found["precision"])
        section.blocks += [Heading("How small a difference could be seen"), Bullets(readings)]
    return section


def _operating(found: dict[str, Any]) -> Grid:
    rows = tuple(
        (
            _point(point),
            _thresholds(point["thresholds"]),
            estimate(point["sensitivity"]),
            estimate(point["specificity"]),
            point["reading"],
        )
        for point in found["operating"]
    )
    caption = (
        "Thresholds are chosen on other folds and applied to the fold left out, so a target may be "
        "missed; below each value its 95 % interval."
        if found["calibrated"]
        else "Nothing is chosen on the rows that are scored."
    )
    head = ("operating point", "threshold", "sensitivity", "specificity", "reading")
    return Grid(caption, head, rows, frozenset({4}))


def _point(point: dict[str, Any]) -> str:
    target = "" if point["target"] is None else f" {point['target']:.2f}"
    return f"{_POINTS.get(point['name'], point['name'])}{target}"


def _thresholds(values: list[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.2f}" if high - low < 0.005 else f"{low:.2f} to {high:.2f}"


def _calibration(found: dict[str, Any]) -> list[Block]:
    states = {"before": found["before"], "after": found["after"]}
    rows = tuple(
        (
            name if found["after"] is not None else "as it is",
            number(values["mean_predicted"]),
            number(values["observed"]),
            number(values["brier"]),
            *(
                "n/a" if values[key] is None else number(values[key])
                for key in ("intercept", "slope")
            ),
        )
        for name, values in states.items()
        if values is not None
    )
    head = ("calibration", "mean predicted", "observed", "Brier", "intercept", "slope")
    said = (
        f"Agreement of the probability of {words(found['positive'])} with what was "
        "found; intercept 0 and slope 1 are best."
    )
    return [Grid(said, head, rows)]


def _prevalence(found: dict[str, Any], asked: Sequence[float]) -> list[Block]:
    side = words(found["positive"])
    rows: list[tuple[str, ...]] = []
    for point in found["operating"]:
        rows.append((f"operating point {_point(point)}",))
        for place, at in enumerate(found["at_prevalence"][point["name"]]):
            here = (
                " (here)"
                if place == 0 and len(asked) < len(found["at_prevalence"][point["name"]])
                else ""
            )
            rows.append(
                (
                    f"{percent(at['prevalence'])}{here}",
                    estimate(at["ppv"]),
                    estimate(at["npv"]),
                    estimate(at["net_benefit"]),
                    "n/a"
                    if at["net_benefit_treat_all"] is None
                    else number(at["net_benefit_treat_all"]),
                    persons(at["dxa_avoided_per_1000"]),
                    persons(at["missed_per_1000"]),
                )
            )
    head = (
        "prevalence", "PPV", "NPV", "net benefit", "net benefit, everybody to DXA",
        "DXAs avoided per 1,000", f"{side} missed per 1,000",
    )  # fmt: skip
    caption = (
        f"What the operating points mean where another share has {side}. Sensitivity and "
        "specificity are carried over as they are, which another clinic's patients may not honour."
    )
    rules = tuple(
        (_point(point), point["sensitivity"]["value"], point["specificity"]["value"])
        for point in found["operating"]
        if point["sensitivity"]["value"] is not None and point["specificity"]["value"] is not None
    )
    blocks: list[Block] = [Heading("At other prevalences"), Grid(caption, head, tuple(rows))]
    if rules:
        blocks.append(Prevalence(asked[0], side, rules))
    return blocks


def _triage(found: dict[str, Any]) -> list[Block]:
    if not found["triage"]:
        return [absent("Three-way triage", "It needs several test folds to choose thresholds on.")]
    rows: list[tuple[str, ...]] = []
    for triage in found["triage"]:
        rows.append((f"prevalence {percent(triage['prevalence'])}",))
        rows += [
            (
                _BANDS[name],
                estimate(band["share"]),
                estimate(band["of_low"]),
                estimate(band["of_normal"]),
                estimate(band["low_bmd"]),
            )
            for name, band in triage["bands"].items()
        ]
    side = words(found["positive"])
    head = ("band", "share of all", f"of those with {side}", "of the others", f"{side} within")
    readings = tuple(triage["reading"] for triage in found["triage"])
    return [
        Heading("Three-way triage"),
        Grid("Rule out, send to DXA, or rule in, with 95 % intervals.", head, tuple(rows)),
        Bullets(readings),
    ]


def _curve(curve: dict[str, Any], place: int) -> Drawing:
    def draw() -> Figure:
        figure = Figure(figsize=(4.6, 5.0), layout="constrained")
        draw_decision_curves(figure.subplots(), curve)
        return figure

    share = percent(curve["prevalence"])
    arms = ", ".join(arm_words(arm) for arm in curve["arms"])
    return Drawing(
        f"decision_curve_{place}",
        draw,
        f"At a prevalence of {share}: an arm is worth using where its line is above both grey "
        "ones. The band is the pointwise 95 % interval of the first arm.",
        f"Decision curves at prevalence {share} of {arms}, beside sending everybody and nobody.",
    )
