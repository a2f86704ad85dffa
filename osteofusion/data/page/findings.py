"""What the join found, as the page tells it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from osteofusion.data.report import JoinReport

_LEFT_OUT = {
    "images_without_row": "images without a row",
    "images_outside_folders": "images in no class folder",
    "images_without_id": "images without an ID",
    "unreadable_images": "unreadable images",
    "rows_without_image": "rows without an image",
    "rows_without_label": "subjects without a label",
    "duplicate_ids": "subjects with several rows, where these differ",
    "summary_rows": "rows without an ID",
}


@dataclass(frozen=True)
class Finding:
    """One finding with all its items; `wrong` where `--strict` refuses it."""

    name: str
    meaning: str
    items: list[str]
    wrong: bool


@dataclass(frozen=True)
class Found:
    """What one report found, and how many of what were left out."""

    report: JoinReport
    findings: list[Finding]
    left_out: dict[str, int]


def everything_found(report: JoinReport) -> list[Found]:
    """The findings of each data set, and those of the whole where there are several."""
    return [_found(each) for each in (*report.sites, report)]


def without_folders(text: str, roots: Iterable[Path]) -> str:
    """A message without the folders of this machine, which tell where and by whom it was made."""
    for root in roots:
        if root.name:  # neither `.` nor `/`
            start = rf"(?<![\w./\\-]){re.escape(str(root))}"
            text = re.sub(start + r"[/\\]", "", text)
            text = re.sub(start + r"(?![\w.-])", "the folder", text)
    return text


def _found(report: JoinReport) -> Found:
    findings = [
        Finding(name, meaning, items, name in report.problems)
        for name, meaning, items in report.lines()
        if items
    ]
    count = {finding.name: len(finding.items) for finding in findings}
    left_out = {text: count[name] for name, text in _LEFT_OUT.items() if name in count}
    return Found(report, findings, left_out)
