"""The command ``osteofusion audit``."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pandas as pd
from rich.console import Console

from osteofusion.audit.assess import assess
from osteofusion.audit.figures import save_copy_sheet
from osteofusion.audit.findings import COPY_COLUMNS, AuditReport
from osteofusion.audit.sources import Collection, from_cohort, from_folders, shown
from osteofusion.audit.split_file import add_splits
from osteofusion.errors import CohortError, ConfigError
from osteofusion.files import atomic_path, write_text
from osteofusion.parser import Parser

_WIDTH = 140  # letters a line of report.txt


def run(arguments: list[str]) -> int:
    """Run the command.

    Returns:
        The exit status, 0.

    Raises:
        OsteofusionError: an option or a file is wrong, or `--strict` found something.
    """
    parser = Parser(
        prog="osteofusion audit",
        description="Look for what would spoil a result before a model is trained: copies of one "
        "film (re-encoded, resized, mirrored, cropped) across labels and splits, subjects across "
        "splits, labels that file facts or a column give away, sides that differ. Audits a cohort "
        "(--manifest and --root), or plain folders: class sub-folders give labels, and train, val "
        "and test ones the split.",
    )
    parser.add_argument(
        "folders", nargs="*", type=Path, metavar="DIR", help="folder of radiographs, or several"
    )
    parser.add_argument("--manifest", nargs="+", help="cohort: manifest, or several")
    parser.add_argument("--root", nargs="+", type=Path, help="folder of each manifest's data set")
    parser.add_argument(
        "--splits", type=Path, help="CSV with a row an image: its path and its side of the split"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("audit"),
        help="folder for report.txt, report.json, copies.csv and copies.pdf (default: audit)",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--strict", action="store_true", help="exit 2 when anything is wrong")
    options = parser.parse_args(arguments)
    if bool(options.folders) == bool(options.manifest):
        raise ConfigError(
            "osteofusion audit needs either folders (osteofusion audit DIR) or a cohort "
            "(--manifest NAME --root DIR)."
        )
    if bool(options.manifest) != bool(options.root):
        raise ConfigError("osteofusion audit: --manifest and --root go together.")
    if options.out.exists() and not options.out.is_dir():
        raise ConfigError(f"--out {options.out} is a file; name a folder.")
    roots = options.root or options.folders
    if options.manifest:
        collection = from_cohort(options.manifest, roots, progress=True)
    else:
        collection = from_folders(roots)
    if options.splits is not None:
        add_splits(collection, options.splits, roots)
    options.out.mkdir(parents=True, exist_ok=True)  # now, and not after minutes of work
    report, collection = assess(collection, progress=True)
    written = _write(report, collection, options.out)
    if options.json:
        print(json.dumps(report.to_dict(), indent=2, ensure_ascii=False))
    else:
        Console().print(report)
    print(f"Wrote {', '.join(written)} to {shown(options.out)}", file=sys.stderr)
    if options.strict and report.problems:
        named = ", ".join(name.replace("_", " ") for name in report.problems)
        raise CohortError(f"--strict: {report.title} has findings: {named}.")
    return 0


def _write(report: AuditReport, collection: Collection, out: Path) -> list[str]:
    """Write all files of a report; return their names."""
    files = ["report.txt", "report.json", "copies.csv"]
    sheet = out / "copies.pdf"
    if report.copies:
        paths = collection.table["path"].tolist()
        save_copy_sheet(report.copies, paths, sheet, heading=report.title)
        files.append(sheet.name)
    else:
        sheet.unlink(missing_ok=True)  # of an earlier audit into the same folder
    with atomic_path(out / "copies.csv") as temporary:
        rows = [copy.row() for copy in report.copies]
        pd.DataFrame(rows, columns=list(COPY_COLUMNS)).to_csv(temporary, index=False)
    text = io.StringIO()
    Console(file=text, width=_WIDTH).print(report)
    write_text(out / "report.txt", text.getvalue())
    write_text(out / "report.json", json.dumps(report.to_dict(), indent=2, ensure_ascii=False))
    return files
