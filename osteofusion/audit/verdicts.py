"""Findings from the readings, features and sides of an audit."""

from __future__ import annotations

import pandas as pd
from scipy.stats import hypergeom

from osteofusion.audit.drift import DriftTest
from osteofusion.audit.features import FeatureReadings
from osteofusion.audit.findings import ALPHA, Finding, LabelReading
from osteofusion.audit.predictability import Reading, Target, holm
from osteofusion.data.allocation import Ints

_FEW_FILMS = 5


def reading_findings(target: Target, readings: list[LabelReading]) -> list[Finding]:
    """From which facts the label can be read, in the pixels and outside."""
    if target.reason is not None:
        why = target.reason
        return [Finding(f"label_{where}", None, why) for where in ("in_pixels", "outside_pixels")]
    found: dict[bool, list[str]] = {True: [], False: []}
    for item in readings:
        if item.above_chance:
            found[item.visible].append(f"{item.reading.what} (AUROC {item.reading.auroc:.2f})")
    return [
        Finding(
            "label_in_pixels",
            len(found[True]),
            "the label can be read from what a network sees and no bone shows",
            found[True],
        ),
        Finding(
            "label_outside_pixels",
            len(found[False]),
            "the label can be read from the file; harmless unless fed to the model",
            found[False],
            wrong=False,
        ),
    ]


def family_finding(facts: pd.DataFrame, labels: pd.Series, groups: Ints) -> Finding:
    """Formats and acquisition families whose films all have one label.

    A classifier needs many films to see this; the hypergeometric probability of such a family,
    times the number of families looked at, needs few. Films of one subject count once.
    """
    name, first = "families_of_one_label", ~pd.Series(groups).duplicated().to_numpy()
    known = first & labels.notna().to_numpy()
    labels = labels[known]
    if labels.nunique() < 2:
        return Finding(name, None, "fewer than two labels are known")
    count = labels.value_counts()
    sets = [
        (column, value, labels[(facts[column][known] == value).to_numpy()])
        for column in ("format", "family")
        for value in facts[column][known].dropna().unique()
    ]
    sets = [each for each in sets if len(each[2]) >= _FEW_FILMS]
    found = {}
    for column, value, inside in sets:
        if inside.nunique() == 1:
            word = inside.iloc[0]
            p = hypergeom.pmf(len(inside), len(labels), count[word], len(inside)) * len(sets)
            if p < ALPHA:
                found[frozenset(inside.index)] = (
                    f"{column} {value}: all {len(inside)} are {word} (p {p:.2g})"
                )
    meaning = "the label shows in how the film was stored, after Bonferroni's adjustment"
    return Finding(name, len(found), meaning, list(found.values()))


def feature_finding(features: FeatureReadings | None) -> Finding:
    """Features that are the label under another name."""
    if features is None:
        return Finding("perfect_features", None, "no clinical columns")
    leaks = [
        f"{reading.column}{' missing' if reading.what == 'missing' else ''} "
        f"(AUROC {reading.auroc:.3f} for {reading.label})"
        for reading in features.columns
        if reading.leaks
    ]
    return Finding("perfect_features", len(leaks), "separates the classes almost perfectly", leaks)


def drift_findings(
    split_drift: list[DriftTest],
    split_sides: list[Reading],
    source_drift: list[DriftTest],
    source_sides: list[Reading],
) -> list[Finding]:
    """Columns on which sides or sources differ, and classifiers that tell them apart."""
    findings = []
    for what, drift, sides in (
        ("splits", split_drift, split_sides),
        ("sources", source_drift, source_sides),
    ):
        if not drift and not sides:
            if what == "splits":
                why = "no splits are known"
                findings.append(Finding("splits_differ", None, why))
            continue
        examples = [
            f"{test.column} ({test.sides}: {test.shown})" for test in drift if test.adjusted < ALPHA
        ]
        adjusted = holm([reading.p for reading in sides])
        examples += [
            f"{reading.what} (AUROC {reading.auroc:.2f})"
            for reading, p in zip(sides, adjusted, strict=True)
            if p is not None and p < ALPHA and not reading.chance
        ]
        meaning = "more than chance explains, after Holm's adjustment"
        # Hospitals differ; the sides of one split should not.
        wrong = what == "splits"
        findings.append(Finding(f"{what}_differ", len(examples), meaning, examples, wrong))
    return findings
