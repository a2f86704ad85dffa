"""The report as one HTML page that needs no network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib import rc_context

import osteofusion
from osteofusion.data import page as cohort_page
from osteofusion.data.page.figures import STYLE, inline_svg
from osteofusion.report.blocks import Block, Drawing, Section
from osteofusion.report.read import Material

_STYLE = {**STYLE, "axes.titlesize": 10, "legend.frameon": False, "legend.fontsize": 8}


def render_page(material: Material, sections: Sequence[Section], images_note: str) -> str:
    """The page as text."""
    folders = [Path(__file__).parent, Path(cohort_page.__file__).parent]  # they share one look
    environment = Environment(
        loader=FileSystemLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["code"] = _code
    text = environment.get_template("report.html").render(
        material=material,
        sections=sections,
        runs=_runs,
        svg=_svg,
        images_note=images_note,
        version=osteofusion.__version__,
    )
    # A file name that is no text in this machine's encoding holds halves of characters.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _code(text: str) -> Markup:
    """Text in which `commands` are set as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _runs(blocks: Sequence[Block]) -> list[list[Block]]:
    """Narrow drawings that follow each other stand side by side, everything else alone."""
    runs: list[list[Block]] = []
    for block in blocks:
        narrow = isinstance(block, Drawing) and not block.wide
        if narrow and runs and isinstance(runs[-1][-1], Drawing) and not runs[-1][-1].wide:
            runs[-1].append(block)
        else:
            runs.append([block])
    return runs


def _svg(block: Drawing) -> Markup:
    with rc_context(_STYLE):
        return inline_svg(block.draw(), block.name, block.description)
