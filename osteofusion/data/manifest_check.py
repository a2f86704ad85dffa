"""Hold a manifest against the data: what each column holds, and what does not fit."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from osteofusion.data.clinical import CellProblem, parse_column
from osteofusion.data.cohort import build_cohort
from osteofusion.data.manifest import Column, Manifest, load_manifest
from osteofusion.data.report import JoinReport
from osteofusion.data.table import find_column, read_table
from osteofusion.errors import CohortError, OsteofusionError

_TOO_MANY = 0.2  # a larger share of cells or images that do not fit is the manifest's fault
_OTHER_UNITS = {
    "m": {"cm": 0.01, "mm": 0.001, "inches": 0.0254, "feet": 0.3048},
    "kg": {"pounds": 0.45359237, "g": 0.001},
    "years": {"months": 1 / 12},
}
_SHOWN = 5


@dataclass(frozen=True)
class _Finding:
    """What a column of the manifest meets in the table."""

    name: str
    column: Column
    header: str | None
    values: pd.Series
    filled: int
    unparsable: list[CellProblem]
    implausible: list[CellProblem]

    @property
    def problem(self) -> str | None:
        """What the manifest should say otherwise."""
        if self.header is None:
            if self.column.dicom is not None:
                return None
            return (
                f"column {self.name}: the table has no header "
                f"{self.column.headers(self.name)[0]!r}; correct columns.{self.name}.header"
            )
        if self.column.role in ("ignored", "identifier") or not self.filled:
            return None
        for cells, wrong in ((self.unparsable, "unparsable"), (self.implausible, "implausible")):
            if len(cells) > _TOO_MANY * self.filled:
                first = cells[0]
                hint = self._unit_hint() if wrong == "implausible" else ""
                return (
                    f"column {self.name}: {len(cells)} of {self.filled} cells are {wrong}, such as "
                    f"{first.value!r} (row {first.row}), which {_why(first)}{hint}"
                )
        return None

    def _unit_hint(self) -> str:
        column = self.column
        if column.range is None or column.unit not in _OTHER_UNITS:
            return ""
        numbers = [float(cell.value.replace(",", ".")) for cell in self.implausible]
        median = float(pd.Series(numbers).median())
        low, high = column.range
        for unit, scale in _OTHER_UNITS[column.unit].items():
            if low <= median * scale <= high:
                return f"; in {unit}? then columns.{self.name} needs scale: {scale:.6g}"
        return ""


def check_manifest(source: str, root: Path, table: Path | None, labels: Path | None) -> int:
    """Print what each column of the manifest finds in the data.

    Args:
        source: Path of the manifest, or the name of a shipped one.
        root: Folder of the data set.
        table: Another table file.
        labels: Another label file.

    Returns:
        0 where everything fits.

    Raises:
        OsteofusionError: the manifest and the data do not fit; its sentence is the first problem.
    """
    manifest = load_manifest(source)
    problems: list[str] = []
    console = Console()
    if manifest.table is not None and root.is_dir():
        path = table if table is not None else root / manifest.table.file
        findings = _findings(manifest, path)
        console.print(_as_table(manifest, findings))
        problems = [found.problem for found in findings if found.problem is not None]
    try:
        report = build_cohort(manifest, root, table=table, labels=labels, progress=True).report
    except OsteofusionError as error:
        raise type(error)(f"{error}{_where_to_edit(Path(source))}") from None
    for line in _notes(report, manifest):
        console.print(Text(line), soft_wrap=True)
    problems += _of_images(report)
    if problems:
        more = f" (1 of {len(problems)} problems)" if len(problems) > 1 else ""
        raise CohortError(f"Manifest {source}, {problems[0]}{more}.")
    print(f"ok: {source} fits the data under {root}")
    return 0


def _findings(manifest: Manifest, path: Path) -> list[_Finding]:
    assert manifest.table is not None
    raw = read_table(path, manifest.table)
    id_header = find_column(raw, [manifest.table.id], path, "ID column")
    if id_header is not None:
        raw = raw[raw[id_header].notna()]
    found = []
    for name, column in manifest.columns.items():
        header = find_column(raw, column.headers(name), path, f"column {name}")
        cells = raw[header] if header is not None else pd.Series(dtype=object)
        ids = cells.index.to_series()
        values, unparsable, implausible = parse_column(
            cells, ids, name, column, manifest.table.decimal
        )
        filled = int(cells.notna().sum())
        found.append(_Finding(name, column, header, values, filled, unparsable, implausible))
    return found


def _as_table(manifest: Manifest, findings: list[_Finding]) -> Table:
    table = Table(title=f"Columns of {manifest.name}", title_justify="left")
    table.add_column("column and header", overflow="fold")
    table.add_column("kind", no_wrap=True)
    for title in ("values", "missing", "unusable"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("what they are", overflow="fold")
    for found in findings:
        style = "yellow" if found.problem is not None else ""
        kind, role = found.column.kind, found.column.role
        wrong = [*found.unparsable, *found.implausible]
        told = f"; unusable: {wrong[0].value!r} (row {wrong[0].row})" if wrong else ""
        header = found.header if found.header is not None else "absent"
        known = int(found.values.notna().sum())
        cells = (
            f"{found.name}: {header}",
            kind if role == "feature" else f"{kind}\n{role}",
            str(known),
            str(len(found.values) - known - len(wrong)),
            str(len(wrong)),
            _content(found) + told,
        )
        table.add_row(*(Text(cell, style) for cell in cells))
    return table


def _content(found: _Finding) -> str:
    values = found.values.dropna()
    if values.empty:
        return ""
    if found.column.kind == "numeric":
        unit = f" {found.column.unit}" if found.column.unit else ""
        return f"{values.min():g} to {values.max():g}{unit}, median {values.median():g}"
    counts = Counter(
        f"{value:g}" if isinstance(value, float) else value for value in values
    ).most_common()
    shown = ", ".join(f"{word} {count}" for word, count in counts[:_SHOWN])
    return shown + (f", and {len(counts) - _SHOWN} more" if len(counts) > _SHOWN else "")


def _notes(report: JoinReport, manifest: Manifest) -> list[str]:
    """What is worth knowing of the join, and is not wrong as such."""
    labels = ", ".join(f"{count} {label}" for label, count in report.by_label.items())
    lines = [f"joined {report.joined} of {report.images or report.rows}: {labels}"]
    lists = (
        ("images without a row", report.images_without_row),
        ("rows without an image", report.rows_without_image),
        ("subjects without a label", report.rows_without_label),
        ("subjects with several rows", report.duplicate_ids),
        ("rows without an ID", [f"row {row}" for row in report.summary_rows]),
        ("columns that the manifest does not mention", report.unmapped_columns),
    )
    for what, items in lists:
        if items:
            more = ", ..." if len(items) > _SHOWN else ""
            lines.append(f"{len(items)} {what}: {', '.join(items[:_SHOWN])}{more}")
    lines += [
        f"{leak['column']} separates the classes almost perfectly ({leak['why']}): "
        "is its role outcome?"
        for leak in report.suspected_leaks
    ]
    unknown = [
        key
        for key in ("title", "region", "license", "citation")
        if str(getattr(manifest, key)).startswith("unknown")
    ]
    if unknown:
        lines.append(f"still to be filled in: {', '.join(unknown)}")
    return lines


def _of_images(report: JoinReport) -> list[str]:
    lone = report.images_without_row
    if len(lone) > _TOO_MANY * max(report.images, 1):
        return [
            f"{len(lone)} of {report.images} images match no row, such as {lone[0]!r}: correct "
            "table.id, table.id_pattern or images.id_pattern"
        ]
    return []


def _why(problem: CellProblem) -> str:
    return problem.reason if problem.reason.startswith("is") else f"is {problem.reason}"


def _where_to_edit(path: Path) -> str:
    """The line of a draft that waits for a decision."""
    if not path.is_file():
        return ""
    lines = path.read_text(encoding="utf-8").splitlines()
    marked = (number for number, line in enumerate(lines, 1) if "# EDIT:" in line)
    number = next(marked, None)
    return "" if number is None else f" Line {number} of {path} says what to edit."
