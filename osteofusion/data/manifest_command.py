"""`osteofusion manifest`: draft a manifest by looking at the data, and check one against them."""

from __future__ import annotations

import shlex
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from osteofusion.errors import ManifestError
from osteofusion.parser import Parser


def run(arguments: list[str]) -> int:
    """Run `osteofusion manifest init` or `check`.

    Returns:
        The exit status.

    Raises:
        OsteofusionError: the data cannot be read, or do not fit the manifest.
    """
    parser = Parser(
        prog="osteofusion manifest",
        description="A manifest says what the files and columns of a data set mean.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="init|check")
    init = commands.add_parser("init", help="draft a manifest by looking at the data")
    init.add_argument("--images", type=Path, help="folder of the radiographs")
    init.add_argument("--table", type=Path, help="clinical spreadsheet: csv, tsv, xlsx, xls ...")
    init.add_argument("--root", type=Path, help="folder above both; their common parent otherwise")
    init.add_argument("--out", type=Path, help="file to write; NAME.yaml here otherwise")
    init.add_argument("--name", help="name of the data set; that of the root folder otherwise")
    check = commands.add_parser("check", help="hold a manifest against the data")
    check.add_argument("manifest", help="name of a shipped manifest, or a path")
    check.add_argument("--root", type=Path, required=True, help="folder of the data set")
    check.add_argument("--table", type=Path, help="another table file")
    check.add_argument("--labels", type=Path, help="another label file")
    options = parser.parse_args(arguments)
    if options.command == "init":
        return _init(options.images, options.table, options.root, options.out, options.name)

    from osteofusion.data.manifest_check import check_manifest

    return check_manifest(options.manifest, options.root, options.table, options.labels)


def _init(
    images: Path | None, table: Path | None, root: Path | None, out: Path | None, name: str | None
) -> int:
    from osteofusion.data.drafting import draft_manifest
    from osteofusion.files import write_text

    if out is not None and out.exists():
        raise _exists(out)
    draft = draft_manifest(images, table, root, name)
    out = out if out is not None else Path(f"{draft.manifest.name}.yaml")
    if out.exists():
        raise _exists(out)
    write_text(out, draft.text)
    found = Table(title=f"Drafted {out}", title_justify="left")
    found.add_column("what")
    found.add_column("found", overflow="fold")
    for what, told in draft.findings:
        found.add_row(Text(what), Text(told))
    if draft.problem is not None:
        found.add_row(Text("to be edited", "yellow"), Text(draft.problem, "yellow"))
    Console().print(found)
    file, folder = shlex.quote(str(out)), shlex.quote(str(draft.root))
    print(
        f"Read the comments in {out}, correct what is wrong, then:\n"
        f"  osteofusion manifest check {file} --root {folder}\n"
        f"  osteofusion cohort --manifest {file} --root {folder}\n"
        f"  osteofusion fit --config binary.yaml --data.manifest {file} --data.root {folder}"
    )
    return 0


def _exists(out: Path) -> ManifestError:
    return ManifestError(f"{out} exists and is not overwritten; give another --out.")
