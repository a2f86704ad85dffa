"""`osteofusion report`: one page, PDF, figures and model card of a run or a study."""

from __future__ import annotations

import sys
from pathlib import Path

from osteofusion.parser import Parser
from osteofusion.report.read import ReportError, read_material
from osteofusion.report.write import write_report


def run(arguments: list[str]) -> int:
    """Write the report.

    Returns:
        0.

    Raises:
        OsteofusionError: an option is wrong, the folder is no finished run or study, or a file in
            it is damaged.
    """
    parser = Parser(
        prog="osteofusion report",
        description="One self-contained page of a run or a study, with model_card.md beside it. It "
        "needs no network, and it holds patient images unless --no-images is given.",
    )
    parser.add_argument("folder", type=Path, metavar="RUN_OR_STUDY", help="its folder")
    parser.add_argument("--out", type=Path, help="HTML file (default: report.html in the folder)")
    parser.add_argument("--pdf", action="store_true", help="also write a PDF beside it")
    parser.add_argument("--figures", type=Path, help="also write each figure as SVG and PNG here")
    parser.add_argument(
        "--prevalence",
        type=float,
        nargs="+",
        default=[0.2],
        help="shares of low bone density to read decisions at (default: 0.2)",
    )
    parser.add_argument("--no-images", action="store_true", help="leave the radiographs out")
    options = parser.parse_args(arguments)
    out: Path = options.out or options.folder / "report.html"
    if out.suffix.lower() not in (".html", ".htm"):
        raise ReportError(f"--out {out} is no HTML file; give it the ending .html.")
    if options.figures is not None and options.figures.exists() and not options.figures.is_dir():
        raise ReportError(f"--figures {options.figures} is a file; name a folder.")
    for share in options.prevalence:
        if not 0 < share < 1:
            raise ReportError(f"--prevalence {share} is no share between 0 and 1, such as 0.2.")
    written = write_report(
        read_material(options.folder),
        out,
        prevalences=options.prevalence,
        pdf=options.pdf,
        figures=options.figures,
        images=not options.no_images,
        progress=True,
    )
    print(f"Wrote {', '.join(map(str, written))}", file=sys.stderr)
    return 0
