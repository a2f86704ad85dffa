"""What an audit found: values for JSON, rows for the copies CSV, a table for the terminal."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from osteofusion.audit.drift import DriftTest
from osteofusion.audit.features import FeatureReadings
from osteofusion.audit.predictability import Reading

ALPHA = 0.05  # of a whole family of tests, after Holm's adjustment
_SHOWN = 8


@dataclass(frozen=True)
class Finding:
    """One check.

    Attributes:
        name: Key, such as ``copies_across_splits``.
        count: How often it was found; None where it could not be checked.
        meaning: What it means, or why it could not be checked.
        examples: All of them, in words.
        wrong: Whether `--strict` refuses it; else it is to be known.
    """

    name: str
    count: int | None
    meaning: str
    examples: list[str] = field(default_factory=list)
    wrong: bool = True


@dataclass(frozen=True)
class Copy:
    """Two files that show one film, with what is known of them; a row of ``copies.csv``.

    Attributes:
        a: Row of the first.
        b: Row of the second.
        across: What the pair spoils: ``splits``, ``labels``, ``subjects``, ``sources``.
        transform: (3, 3) pixels of the first to pixels of the second.

    The others are those of :class:`osteofusion.audit.copies.CopyPair`, and the two rows' own.
    """

    a: int
    b: int
    image_a: str
    image_b: str
    sha256_a: str
    sha256_b: str
    kind: str
    mirrored: bool
    correlation: float
    overlap: float
    rotation: float
    across: tuple[str, ...]
    subject_a: str | None
    subject_b: str | None
    label_a: str | None
    label_b: str | None
    split_a: str | None
    split_b: str | None
    source_a: str
    source_b: str
    transform: tuple[tuple[float, ...], ...]

    def row(self) -> dict[str, Any]:
        """Cells of ``copies.csv``."""
        cells = {name: getattr(self, name) for name in COPY_COLUMNS}
        rounded = {name: round(cells[name], 4) for name in ("correlation", "overlap", "rotation")}
        return cells | rounded | {"across": " ".join(self.across)}


COPY_COLUMNS = tuple(
    item.name for item in dataclasses.fields(Copy) if item.name not in ("a", "b", "transform")
)


@dataclass(frozen=True)
class LabelReading:
    """How well the label can be read from a group of file facts.

    Attributes:
        reading: AUROC with interval and p-value.
        visible: Whether a network that sees only the pixels may learn these facts.
        adjusted: P-value adjusted for all label readings (Holm).
    """

    reading: Reading
    visible: bool
    adjusted: float | None

    @property
    def above_chance(self) -> bool:
        """Whether it stands after the adjustment."""
        return self.adjusted is not None and self.adjusted < ALPHA and not self.reading.chance


@dataclass
class AuditReport:
    """Result of :func:`osteofusion.audit.assess.assess`."""

    title: str
    images: int
    subjects: int | None
    labels: dict[str, int]
    splits: dict[str, int]
    sources: dict[str, int]
    notes: list[str]
    findings: list[Finding]
    copies: list[Copy]
    label_readings: list[LabelReading]
    families: dict[str, dict[str, int]]
    features: FeatureReadings | None
    drift: list[DriftTest]
    sides: list[Reading]

    @property
    def problems(self) -> list[str]:
        """Names of all findings that `--strict` refuses."""
        return [finding.name for finding in self.findings if finding.wrong and finding.count]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        content = dataclasses.asdict(self)
        for copy in content["copies"]:
            del copy["a"], copy["b"]
        return content | {
            "problems": self.problems,
            "tests": {
                "label_readings": sum(r.adjusted is not None for r in self.label_readings),
                "features": self.features.tests if self.features else 0,
                "drift": len(self.drift),
                "sides": sum(reading.p is not None for reading in self.sides),
                "adjusted": "Holm within label_readings, drift and sides; alpha 0.05",
            },
        }

    def __rich__(self) -> RenderableType:
        parts: list[RenderableType] = [self._findings()]
        if self.label_readings:
            parts.append(self._readings())
        if self.features is not None and self.features.columns:
            parts.append(self._features(self.features))
        if self.drift or self.sides:
            parts.append(self._drift())
        parts += [Text(f"note: {note}", "dim") for note in self.notes]
        return Group(*parts)

    def _findings(self) -> Table:
        table = _table(f"Audit of {self.title}", "finding", "count", "what it means and where")
        subjects = f" of {self.subjects} subjects" if self.subjects is not None else ""
        table.add_row("images", str(self.images), Text(f"readable{subjects}"))
        for name, counts in (
            ("labels", self.labels),
            ("splits", self.splits),
            ("sources", self.sources if len(self.sources) > 1 else {}),
        ):
            if counts:
                shown = ", ".join(f"{count} {word}" for word, count in counts.items())
                table.add_row(name, str(len(counts)), Text(shown))
        table.add_section()
        for finding in self.findings:
            if finding.count:
                style = "yellow" if finding.wrong else "cyan"
                text = finding.meaning
                text += f": {some(finding.examples)}" if finding.examples else ""
                # Text, not str: a square bracket in a file name is no markup.
                count = Text(str(finding.count), style)
                table.add_row(Text(_words(finding), style), count, Text(text))
        clean = [_words(finding) for finding in self.findings if finding.count == 0]
        if clean:
            table.add_row("not found", "0", Text(", ".join(clean)))
        unchecked: dict[str, list[str]] = {}
        for finding in self.findings:
            if finding.count is None:
                unchecked.setdefault(finding.meaning, []).append(_words(finding))
        for why, names in unchecked.items():
            table.add_row(Text("not checked", "dim"), "-", Text(f"{', '.join(names)}: {why}"))
        return table

    def _readings(self) -> Table:
        tests = sum(reading.adjusted is not None for reading in self.label_readings)
        title = (
            "Label read from facts of the file (5-fold cross-validated AUROC; p adjusted for "
            f"{tests} readings)"
        )
        table = _table(title, "facts", "a network sees them", "AUROC (95 % interval)", "p", "")
        for item in self.label_readings:
            reading = item.reading
            if reading.auroc is None:
                verdict, style = reading.reason or "", "dim"
            elif reading.chance and reading.high is not None and reading.high < 0.5:
                verdict, style = "below 0.5: of no use to a model", ""
            elif reading.chance:
                verdict, style = "chance", ""
            elif item.above_chance:
                verdict, style = "readable", "yellow" if item.visible else "cyan"
            else:
                verdict, style = "not above chance after adjustment", ""
            seen = "in the pixels" if item.visible else "outside the pixels"
            p = "-" if item.adjusted is None else f"{item.adjusted:.2g}"
            table.add_row(Text(reading.what, style), seen, _interval(reading), p, Text(verdict))
        return table

    def _features(self, features: FeatureReadings) -> Table:
        title = f"Label read from one clinical column (best of {features.tests} AUROCs)"
        table = _table(title, "column", "role", "AUROC (95 % interval)", "of")
        for item in features.columns[:_SHOWN]:
            style = "yellow" if item.leaks else ""
            value = f"{item.auroc:.3f} ({item.low:.3f} to {item.high:.3f})"
            name = item.column if item.what == "value" else f"{item.column} missing"
            table.add_row(Text(name, style), item.role, value, Text(item.label))
        left = len(features.columns) - _SHOWN
        if left > 0:
            table.add_row(f"and {left} more", "", "", "(report.json)")
        table.add_section()
        together = _interval(features.together) if features.together.auroc is not None else "-"
        table.add_row(features.together.what, "feature", together, "cross-validated")
        return table

    def _drift(self) -> Table:
        title = f"Differences between the sides ({len(self.drift)} tests, p adjusted by Holm)"
        table = _table(title, "sides", "column", "test", "p", "")
        shown = [test for test in self.drift if test.adjusted < ALPHA] or self.drift[:3]
        for test in shown[:_SHOWN]:
            style = "yellow" if test.adjusted < ALPHA else ""
            row = (test.sides, test.column, test.test, f"{test.adjusted:.2g}", test.shown)
            table.add_row(*(Text(cell, style) for cell in row))
        if len(shown) > _SHOWN:
            table.add_row(f"and {len(shown) - _SHOWN} more", "", "", "", "(report.json)")
        table.add_section()
        for reading in self.sides:
            value = reading.reason if reading.auroc is None else f"AUROC {_interval(reading)}"
            verdict = "" if reading.auroc is None else "chance" if reading.chance else "apart"
            table.add_row(Text(reading.what), "", "classifier", Text(value or ""), verdict)
        return table


def some(items: Sequence[str], limit: int = _SHOWN) -> str:
    """The first items, and how many more there are."""
    text = "; ".join(items[:limit])
    return text if len(items) <= limit else f"{text}; and {len(items) - limit} more (report.json)"


def _words(finding: Finding) -> str:
    return finding.name.replace("_", " ")


def _interval(reading: Reading) -> str:
    if reading.auroc is None:
        return "-"
    return f"{reading.auroc:.3f} ({reading.low:.3f} to {reading.high:.3f})"


def _table(title: str, *headers: str) -> Table:
    table = Table(title=Text(title), title_justify="left")
    for header in headers:
        table.add_column(header, overflow="fold", justify="right" if header == "count" else "left")
    return table
