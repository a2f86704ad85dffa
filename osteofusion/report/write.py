"""Put the report together and write it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg

from osteofusion.errors import EvaluationError
from osteofusion.evaluation.figures import STYLE, save_figure
from osteofusion.files import atomic_path, write_text
from osteofusion.progress import shown
from osteofusion.report.audits import audits_section
from osteofusion.report.blocks import Drawing, Films, Section
from osteofusion.report.cohort import cohort_section, table_section
from osteofusion.report.curves import curves_section
from osteofusion.report.decisions import decisions_section
from osteofusion.report.films import errors_section
from osteofusion.report.model_card import model_card
from osteofusion.report.page import render_page
from osteofusion.report.pdf import write_pdf
from osteofusion.report.pooled import pool
from osteofusion.report.provenance import environment_section, looks_section
from osteofusion.report.read import Material, ReportError
from osteofusion.report.reading import reading_section
from osteofusion.report.results import comparison_section, results_section
from osteofusion.report.training import training_section
from osteofusion.report.tripod import tripod_section
from osteofusion.report.variants import variants_section


def write_report(
    material: Material,
    out: Path,
    *,
    prevalences: Sequence[float] = (0.2,),
    pdf: bool = False,
    figures: Path | None = None,
    images: bool = True,
    progress: bool = False,
) -> list[Path]:
    """Write the page, `model_card.md` beside it, and on demand a PDF and the figures.

    Everything is made before anything is written.

    Args:
        material: What is reported on.
        out: The HTML file.
        prevalences: Shares of low BMD to read decisions at.
        pdf: Also write a PDF of the same name.
        figures: Folder for every figure as SVG and PNG; None for none.
        images: Whether the report holds radiographs.
        progress: Show progress bars on standard error.

    Returns:
        The files written; of the figures their folder.

    Raises:
        ReportError: the predictions are damaged.
    """
    sections = build_sections(material, prevalences, images=images, progress=progress)
    note = _images_note(sections)
    page = render_page(material, sections, note)
    card = model_card(material)
    written = [out, out.with_name("model_card.md")]
    if pdf:
        with atomic_path(out.with_suffix(".pdf")) as temporary:
            write_pdf(material, sections, note, temporary)
        written.append(out.with_suffix(".pdf"))
    if figures is not None:
        save_drawings(sections, figures, progress=progress)
        written.append(figures)
    write_text(written[1], card)
    write_text(out, page)
    return written


def build_sections(
    material: Material, prevalences: Sequence[float], *, images: bool, progress: bool = False
) -> list[Section]:
    """All sections, in order.

    Raises:
        ReportError: the predictions are damaged.
    """
    try:
        pooled = pool(material.first_predictions, material.classes)
        arms = [arm for arm in material.evaluation["arms"] if arm in pooled.p]
        if not len(pooled.labels) or material.main not in arms:
            raise EvaluationError(f"there is no test row of the {material.main} arm")
        return [
            reading_section(material),
            cohort_section(material),
            *([variants_section(material)] if len(material.evaluations) > 1 else []),
            results_section(material),
            comparison_section(material),
            curves_section(material, pooled),
            decisions_section(material, prevalences),
            errors_section(material, pooled, images=images, progress=progress),
            table_section(material),
            training_section(material),
            audits_section(material, progress=progress),
            looks_section(material),
            environment_section(material),
            tripod_section(material),
        ]
    except (EvaluationError, KeyError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ReportError(
            f"The files in {material.folder} do not fit together ({what}); make the run or study "
            "again."
        ) from error


def save_drawings(sections: Sequence[Section], folder: Path, *, progress: bool = False) -> None:
    """Write every figure as SVG and PNG, black on white."""
    drawings = [b for section in sections for b in section.blocks if isinstance(b, Drawing)]
    for block in shown(drawings, len(drawings), "Drawing figures", progress):
        with rc_context(STYLE):
            figure = block.draw()
            FigureCanvasAgg(figure)
            for suffix in ("svg", "png"):
                save_figure(figure, folder / f"{block.name}.{suffix}")


def _images_note(sections: Sequence[Section]) -> str:
    films = [b for section in sections for b in section.blocks if isinstance(b, Films)]
    if any(film.uri for block in films for film in block.films):
        return (
            "This report holds patient images and subject IDs: share it as you would share the "
            "data, or make it with --no-images."
        )
    return "This report holds subject IDs and no patient images."
