"""The variants of a study, such as backbones, beside each other and one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from osteofusion.evaluation.curves import COLOURS, words
from osteofusion.evaluation.variants import METRICS, REFERENCES
from osteofusion.report.blocks import Block, Drawing, Grid, Heading, Paragraph, Section
from osteofusion.report.models import class_report, confusion
from osteofusion.report.read import TRAINED, Material
from osteofusion.report.tables import difference_blocks, primary_metric
from osteofusion.report.training import curve, logs_of
from osteofusion.report.words import arm_words, estimate, metric_words, number

_VERBS = {  # of one variant, and of several
    "better": ("is better than", "are better than"),
    "worse": ("is worse than", "are worse than"),
    "same": ("cannot be told from", "cannot be told from"),
}

Evaluations = Mapping[str, dict[str, Any]]


def variants_section(material: Material) -> Section:
    """All variants in one table and one figure, against each other, and each model apart."""
    section = Section("variants", "Variants")
    evaluations, classes = material.evaluations, material.classes
    metric = primary_metric(material.evaluation)
    section.blocks += [
        *_introduction(material),
        _table(evaluations, classes, ""),
        _figure(evaluations, classes),
    ]
    if material.between is not None:
        section.blocks.append(Heading("Each variant against the first"))
        section.blocks += difference_blocks(_differences(material.between), metric, classes)
    section.blocks += _regions(material)
    section.blocks += _models(material)
    return section


def models_of(evaluations: Evaluations) -> list[tuple[str, str]]:
    """Variant and arm of every trained model, in the study's order."""
    return [
        (variant, arm)
        for variant, evaluation in evaluations.items()
        for arm in TRAINED
        if arm in evaluation["arms"]
    ]


def _differences(between: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Paired differences, the models called as the tables call them."""
    found: list[dict[str, Any]] = between.get("differences") or []
    several = len({each["first"].partition("/")[2] for each in found}) > 1

    def named(model: str) -> str:
        variant, _, arm = model.partition("/")
        return f"{words(variant)}, {arm_words(arm)}" if several else words(variant)

    return [
        {**each, "first": named(each["first"]), "second": named(each["second"])} for each in found
    ]


def verdict(material: Material) -> str:
    """Which variants can be told from the first, and which know more than the commonest class."""
    evaluations, metric = material.evaluations, primary_metric(material.evaluation)
    name = metric_words(metric, material.classes)
    said: dict[str, list[str]] = {"better": [], "worse": [], "same": []}
    adjusted = True
    for each in _differences(material.between or {}):
        found = each["estimate"]
        if each["metric"] == metric and found.get("low") is not None:
            p = each.get("p_adjusted")
            adjusted = adjusted and p is not None
            sure = p is None or p < 0.05
            better, worse = sure and found["low"] > 0, sure and found["high"] < 0
            said["better" if better else "worse" if worse else "same"].append(each["first"])
    first = f"the first variant, {words(material.variant)}"
    parts = [
        f"By {name}, {_listed(who)} {_VERBS[how][len(who) > 1]} {first}."
        for how, who in said.items()
        if who
    ]
    compared = sum(map(len, said.values()))
    if compared > 1 and not adjusted:
        parts.append(
            f"These are {compared} comparisons that are not adjusted for their number: with that "
            "many, one can look different by chance."
        )
    majority = material.evaluation["arms"].get("majority")
    if majority is not None:
        bar = majority["metrics"]["accuracy"]["value"]
        above = [
            _name(evaluations, variant, arm)
            for variant, arm in models_of(evaluations)
            if (evaluations[variant]["arms"][arm]["metrics"]["accuracy"]["low"] or 0) > bar
        ]
        beaten = f"above the {number(bar)} of always answering the commonest class"
        parts.append(
            f"The accuracy of {_listed(above)} lies, with its whole interval, {beaten}."
            if above
            else f"No accuracy lies, with its whole interval, {beaten}."
        )
    return " ".join(parts)


def _listed(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def _introduction(material: Material) -> list[Block]:
    first = next(iter(material.evaluations.values()))
    found: list[Block] = [
        Paragraph(
            f"{len(material.evaluations)} variants on the same {first['n_rows']} test rows, in the "
            "order of the study. Whoever picks the best of them by these figures should expect "
            "less of it on new patients. Every prediction of every model stands in "
            "`predictions.csv` of the study's folder, one row a radiograph, with the columns "
            "`variant` and `arm`. Where a section below speaks of one model, it is that of the "
            f"first variant, {words(material.variant)}."
        )
    ]
    apart = [
        words(name)
        for name, changed in (material.study.get("variants") or {}).items()
        if (changed or {}).get("data.regions") == "each"
    ]
    if apart:
        found.append(
            Paragraph(
                f"{', '.join(apart)}: a model for each region, each asked about the rows of its "
                "own; together they are compared on the same rows as one model for all regions."
            )
        )
    return found


def _name(evaluations: Evaluations, variant: str, arm: str) -> str:
    several = len({arm for _, arm in models_of(evaluations)}) > 1
    return f"{words(variant)}, {arm_words(arm)}" if several else words(variant)


def _table(evaluations: Evaluations, classes: list[str], where: str) -> Grid:
    first = next(iter(evaluations.values()))
    shown = (primary_metric(first), *METRICS)
    gaps = any(each.get("accuracy_gap") for each in evaluations.values())
    rows: list[tuple[str, ...]] = []
    for variant, arm in models_of(evaluations):
        found = evaluations[variant]
        cells = [estimate(found["arms"][arm]["metrics"][name]) for name in shown]
        if gaps:
            cells.append(_gap(found.get("accuracy_gap", {}).get(arm)))
        rows.append((_name(evaluations, variant, arm), *cells))
    references = [arm for arm in REFERENCES if arm in first["arms"]]
    if references:
        rows.append(("for comparison, on the same rows",))
    for arm in references:
        cells = [estimate(first["arms"][arm]["metrics"][name]) for name in shown]
        rows.append((arm_words(arm), *cells, *[""] * gaps))
    counts = ", ".join(f"{n} {words(name)}" for name, n in first["class_counts"].items())
    caption = (
        f"{where}{first['n_rows']} test rows in {first['n_groups']} split groups ({counts}); below "
        "each value its 95 % interval over split groups."
    )
    if gaps:
        caption += (
            " Training less test: what accuracy is lost off the training rows, as the models call "
            "before calibration."
        )
    head = ("variant", *(metric_words(name, classes) for name in shown))
    return Grid(caption, (*head, *["accuracy, training less test"] * gaps), tuple(rows))


def _gap(found: Mapping[str, float] | None) -> str:
    if found is None:
        return ""
    said = estimate({**found, "value": found["gap"]}, signed=True)
    return f"{said}\n{number(found['train'])} less {number(found['test'])}"


def _figure(evaluations: Evaluations, classes: list[str]) -> Drawing:
    first = next(iter(evaluations.values()))
    shown = (primary_metric(first), *METRICS)
    return Drawing(
        "variants",
        lambda: _draw(evaluations, shown, [metric_words(name, classes) for name in shown]),
        "The table above as a figure, with 95 % intervals. Dotted: always the majority; dashed: "
        "age alone.",
        f"{', '.join(metric_words(name, classes) for name in shown)} of "
        f"{len(models_of(evaluations))} models, each with its interval; the table has the numbers.",
        wide=True,
    )


def _draw(evaluations: Evaluations, shown: Sequence[str], titles: Sequence[str]) -> Figure:
    models = models_of(evaluations)
    first = next(iter(evaluations.values()))
    figure = Figure(figsize=(7.2, 1.0 + 0.28 * len(models)), layout="constrained")
    axes = figure.subplots(1, len(shown), sharey=True)
    for own, metric, title in zip(axes, shown, titles, strict=True):
        for arm, style in zip(REFERENCES, (":", "--"), strict=True):
            value = first["arms"].get(arm, {}).get("metrics", {}).get(metric, {}).get("value")
            if value is not None:
                own.axvline(value, color=COLOURS[-1], linestyle=style, linewidth=1.1)
        for place, (variant, arm) in enumerate(models):
            found = evaluations[variant]["arms"][arm]["metrics"][metric]
            if found.get("value") is None:
                continue
            own.plot(found["value"], place, "s", color=COLOURS[0], markersize=5)
            if found.get("low") is not None:
                ends = [found["low"], found["high"]]
                own.plot(ends, [place] * 2, color=COLOURS[0], linewidth=1.5)
        own.set_title(title)
        own.margins(x=0.12)
        own.locator_params(axis="x", nbins=4)
        own.tick_params(axis="y", length=0)
    axes[0].set_yticks(range(len(models)), [_name(evaluations, *model) for model in models])
    axes[0].set_ylim(len(models) - 0.5, -0.5)
    return figure


def _regions(material: Material) -> list[Block]:
    """The same table for the rows of each region, and each variant against the first there."""
    found: list[Block] = []
    first = material.evaluation
    for region in first.get("regions") or {}:
        apart = {name: each["regions"][region] for name, each in material.evaluations.items()}
        found += [
            Heading(f"{words(region)[:1].upper()}{words(region)[1:]} alone"),
            _table(apart, material.classes, f"{words(region)}: "),
        ]
        between = ((material.between or {}).get("regions") or {}).get(region)
        if between is not None:
            differences, metric = _differences(between), primary_metric(first)
            found += difference_blocks(differences, metric, material.classes, f"_{region}")
    return found


def _models(material: Material) -> list[Block]:
    """Of each model its classification report, confusion matrix and accuracy curve."""
    found: list[Block] = []
    for variant, arm in models_of(material.evaluations):
        own = material.evaluations[variant]["arms"][arm]
        name, key = _name(material.evaluations, variant, arm), f"{variant}_{arm}"
        found += [
            Heading(f"Model: {name}"),
            class_report(own, material.classes, name),
            confusion(own, material.classes, name, key),
        ]
        logs = logs_of(material, variant).get(arm, [])
        drawn = curve(logs, "accuracy", key, name)
        if drawn is not None:
            found.append(drawn)
    return found
