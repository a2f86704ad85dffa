"""What a join found: everything that was matched, left out, or looks wrong."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from osteofusion.data.clinical import CellProblem
from osteofusion.data.manifest import Manifest


@dataclass
class JoinReport:
    """Findings of :func:`osteofusion.data.cohort.build_cohort`; nothing is dropped in silence.

    `synthetic_what` says what of the data is synthetic, if anything. Lists hold subject IDs,
    image paths relative to the root, or the findings themselves.
    """

    manifest: str
    title: str
    citation: str
    synthetic_what: str
    root: str
    rows: int = 0
    images: int = 0
    joined: int = 0
    subjects: int = 0
    by_label: dict[str, int] = field(default_factory=dict)
    sites: list[JoinReport] = field(default_factory=list)
    images_without_row: list[str] = field(default_factory=list)
    images_outside_folders: list[str] = field(default_factory=list)
    images_without_id: list[str] = field(default_factory=list)
    linked_folders: list[str] = field(default_factory=list)
    empty_folders: list[str] = field(default_factory=list)
    equal_names: list[list[str]] = field(default_factory=list)
    ids_in_several_classes: list[str] = field(default_factory=list)
    sides_as_subjects: list[str] = field(default_factory=list)
    near_ids: list[str] = field(default_factory=list)
    other_files: list[str] = field(default_factory=list)
    rows_without_image: list[str] = field(default_factory=list)
    rows_without_label: list[str] = field(default_factory=list)
    duplicate_ids: list[str] = field(default_factory=list)
    summary_rows: list[int] = field(default_factory=list)
    label_conflicts: list[dict[str, str]] = field(default_factory=list)
    unreadable_images: list[dict[str, str]] = field(default_factory=list)
    identical_groups: list[list[str]] = field(default_factory=list)
    surplus_identical_images: list[str] = field(default_factory=list)
    conflicting_groups: list[dict[str, str]] = field(default_factory=list)
    implausible_cells: list[CellProblem] = field(default_factory=list)
    unparsable_cells: list[CellProblem] = field(default_factory=list)
    filled_from_headers: dict[str, int] = field(default_factory=dict)
    header_conflicts: list[dict[str, str]] = field(default_factory=list)
    constant_columns: list[str] = field(default_factory=list)
    suspected_leaks: list[dict[str, Any]] = field(default_factory=list)
    unmapped_columns: list[str] = field(default_factory=list)
    absent_columns: list[str] = field(default_factory=list)
    unexpected_counts: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, manifest: Manifest, root: Path) -> JoinReport:
        """The report of one data set, before anything is found."""
        return cls(
            manifest=manifest.name,
            title=manifest.title,
            citation=manifest.citation,
            synthetic_what=manifest.synthetic_what,
            root=str(root),
        )

    @classmethod
    def of_sites(cls, united: Manifest, reports: list[JoinReport]) -> JoinReport:
        """The report of a cohort of several data sets; what is wrong in one stands in its own."""
        return cls(
            manifest=united.name,
            title=united.title,
            citation=united.citation,
            synthetic_what=united.synthetic_what,
            root=", ".join(report.root for report in reports),
            rows=sum(report.rows for report in reports),
            images=sum(report.images for report in reports),
            sites=reports,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**dataclasses.asdict(self), "synthetic": bool(self.synthetic_what)}

    @property
    def problems(self) -> list[str]:
        """Names of all findings that are not empty; `--strict` refuses any of them.

        Summary rows, columns that the manifest does not map and files that are no radiographs
        are noted, not wrong.
        """
        harmless = {"summary_rows", "unmapped_columns", "other_files", "sites"}
        own = [
            item.name
            for item in dataclasses.fields(self)
            if isinstance(getattr(self, item.name), list)
            and getattr(self, item.name)
            and item.name not in harmless
        ]
        return list(dict.fromkeys([*own, *(name for site in self.sites for name in site.problems)]))

    def __rich__(self) -> RenderableType:
        table = Table(title=Text(f"Cohort {self.manifest}: {self.title}"), title_justify="left")
        table.add_column("finding")
        table.add_column("count", justify="right")
        table.add_column("what it means and where", overflow="fold")
        labels = ", ".join(f"{count} {label}" for label, count in self.by_label.items())
        table.add_row("joined", str(self.joined), f"radiographs with a row: {labels}")
        table.add_row("subjects", str(self.subjects), "")
        table.add_row("images", str(self.images), "files found")
        table.add_row("rows", str(self.rows), "table rows with a subject ID")
        table.add_section()
        absent = []
        for name, meaning, shown in self.lines():
            count, title = len(getattr(self, name)), name.replace("_", " ")
            if not count:
                absent.append(title)
                continue
            style = "yellow" if name in self.problems else "cyan"
            # Text, not str: a square bracket in a file name is no markup.
            text = Text(f"{meaning}: {_some(shown)}")
            table.add_row(Text(title, style), Text(str(count), style), text)
        table.add_section()
        table.add_row("nothing found", "0", ", ".join(absent), style="dim")
        parts: list[RenderableType] = [table, Text(f"Source: {self.citation}", style="dim")]
        if self.synthetic_what:
            parts.insert(0, Text(self.synthetic_what, "bold red"))
        return Group(*self.sites, *parts)

    def lines(self) -> list[tuple[str, str, list[str]]]:
        """Each finding: its name, what it means or what was done, and its items in words."""

        def cells(problems: list[CellProblem]) -> list[str]:
            return [
                f"{cell.subject_id} {cell.column} {cell.value!r} "
                f"({f'row {cell.row}' if cell.row else 'DICOM header'}) {cell.reason}"
                for cell in problems
            ]

        leaks = [f"{leak['column']} ({leak['why']})" for leak in self.suspected_leaks]
        conflicts = [
            " = ".join(f"{Path(image).stem} {label}" for image, label in group.items())
            for group in self.conflicting_groups
        ]
        return [
            ("images_without_row", "left out", self.images_without_row),
            ("images_outside_folders", "in no class folder; left out", self.images_outside_folders),
            ("images_without_id", "no PatientID or name; left out", self.images_without_id),
            ("linked_folders", "links to folders are not followed", self.linked_folders),
            ("empty_folders", "class folders without a radiograph", self.empty_folders),
            (
                "equal_names",
                "one name, several files; taken as radiographs of one subject",
                [" = ".join(names) for names in self.equal_names],
            ),
            (
                "ids_in_several_classes",
                "one name in folders of different classes; taken as different subjects",
                self.ids_in_several_classes,
            ),
            (
                "sides_as_subjects",
                "names that differ in the side alone, taken as different subjects; give "
                "images.id_pattern, or left and right may stand on two sides of a split",
                self.sides_as_subjects,
            ),
            ("near_ids", "differ only by case or leading zeros; not matched", self.near_ids),
            ("other_files", "no radiographs", self.other_files),
            ("rows_without_image", "left out", self.rows_without_image),
            ("rows_without_label", "left out", self.rows_without_label),
            (
                "duplicate_ids",
                "several rows; left out where these differ, else counted once",
                self.duplicate_ids,
            ),
            ("summary_rows", "no subject ID; left out", [f"row {i}" for i in self.summary_rows]),
            (
                "label_conflicts",
                "the table's label was used",
                [", ".join(f"{k} {v}" for k, v in item.items()) for item in self.label_conflicts],
            ),
            (
                "unreadable_images",
                "left out",
                [f"{item['image']}: {item['reason']}" for item in self.unreadable_images],
            ),
            (
                "identical_groups",
                "byte-identical files; kept on one side of every split",
                [" = ".join(Path(name).stem for name in group) for group in self.identical_groups],
            ),
            (
                "surplus_identical_images",
                "copies of another file",
                [Path(name).stem for name in self.surplus_identical_images],
            ),
            ("conflicting_groups", "one film, different labels", conflicts),
            ("implausible_cells", "counted as missing", cells(self.implausible_cells)),
            ("unparsable_cells", "counted as missing", cells(self.unparsable_cells)),
            (
                "filled_from_headers",
                "empty cells filled from DICOM headers",
                [f"{name} ({count})" for name, count in self.filled_from_headers.items()],
            ),
            (
                "header_conflicts",
                "the table's value was used",
                [f"{item['image']} {item['why']}" for item in self.header_conflicts],
            ),
            ("constant_columns", "the same in every row", self.constant_columns),
            ("suspected_leaks", "separates the classes almost perfectly", leaks),
            ("unmapped_columns", "the manifest does not mention", self.unmapped_columns),
            ("absent_columns", "in the manifest, not in the table", self.absent_columns),
            ("unexpected_counts", "differs from the published data", self.unexpected_counts),
        ]


def print_report(report: JoinReport, console: Console | None = None) -> None:
    """Print the report as a table."""
    (console or Console()).print(report)


def _some(items: list[str], limit: int = 8) -> str:
    text = "; ".join(items[:limit])
    return text if len(items) <= limit else f"{text}; and {len(items) - limit} more (--json)"
