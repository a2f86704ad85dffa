"""Findings from the readings, features and sides of an audit."""

from __future__ import annotations

from osteofusion.audit.drift import DriftTest
from osteofusion.audit.features import FeatureReadings
from osteofusion.audit.findings import ALPHA, Finding, LabelReading
from osteofusion.audit.predictability import Reading, Target, holm


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
