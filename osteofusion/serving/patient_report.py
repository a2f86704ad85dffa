"""The report of one patient as a PDF: made in memory, nothing of it touches the disk."""

from __future__ import annotations

import io
import threading
from datetime import datetime

from reportlab.lib.pagesizes import A4
from reportlab.lib.units import mm
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import SimpleDocTemplate

import osteofusion
from osteofusion.serving.description import BundleDescription
from osteofusion.serving.prediction import Explanation, Prediction
from osteofusion.serving.report_graphics import LINE, SOFT, stamp
from osteofusion.serving.report_layout import MARGIN
from osteofusion.serving.report_sections import NO_DIAGNOSIS, TITLE, Report
from osteofusion.serving.report_texts import ReportTexts
from osteofusion.typesetting import FONT, plain, set_up

_PAGES, _FOOT = "pages", 7
_LOCK = threading.Lock()  # ReportLab keeps fonts, and older releases their parser, in one place


def patient_report_bytes(
    prediction: Prediction,
    explanation: Explanation,
    description: BundleDescription,
    *,
    reference: str | None,
    texts: ReportTexts,
    created: datetime,
) -> bytes:
    """The PDF of one patient; the same arguments give the same bytes.

    Args:
        prediction: The answer.
        explanation: Why, with the radiograph if there is one.
        description: Of the bundle that gave both.
        reference: What the reader knows the patient by; None for no reference.
        texts: Recommendations by band.
        created: When the answer was given.
    """
    with _LOCK:
        set_up()
        out = io.BytesIO()
        report = Report(prediction, explanation, description, reference, texts, created)
        _Document(out, report).build(report.flowables(), canvasmaker=_Canvas)
        return out.getvalue()


class _Canvas(Canvas):  # type: ignore[misc]  # ReportLab has no types
    """Fills in the number of pages, which every page names and the last one knows."""

    def save(self) -> None:
        self.beginForm(_PAGES)
        self.setFont(FONT, _FOOT)
        self.setFillColor(SOFT)
        self.drawString(0, 0, str(self.getPageNumber() - 1))
        self.endForm()
        super().save()


class _Document(SimpleDocTemplate):  # type: ignore[misc]  # ReportLab has no types
    """A4 pages that say on each what they are, and carry the stamp above their content."""

    def __init__(self, out: io.BytesIO, report: Report) -> None:
        super().__init__(
            out,
            pagesize=A4,
            leftMargin=MARGIN,
            rightMargin=MARGIN,
            topMargin=12 * mm,
            bottomMargin=17 * mm,
            title=TITLE,
            subject=NO_DIAGNOSIS,
            author=f"osteofusion {osteofusion.__version__}",
            creator="osteofusion",
            lang="en",
            displayDocTitle=1,
            invariant=1,
        )
        self._report = report

    def beforeDocument(self) -> None:  # noqa: N802
        created = self._report.created
        offset = f"{created:%z}"
        zone = f"{offset[:3]}'{offset[3:5]}'" if offset else ""
        self.canv.setDateFormatter(lambda *_: f"D:{created:%Y%m%d%H%M%S}{zone}")

    def afterPage(self) -> None:  # noqa: N802
        report, canvas = self._report, self.canv
        if report.description.training.synthetic_what:
            stamp(canvas, "TRAINED ON SYNTHETIC DATA\nnot for any decision about a patient", A4)
        canvas.saveState()
        canvas.setStrokeColor(LINE)
        canvas.line(MARGIN, 14 * mm, A4[0] - MARGIN, 14 * mm)
        canvas.setFont(FONT, _FOOT)
        canvas.setFillColor(SOFT)
        said = f"{NO_DIAGNOSIS}."
        if report.reference:
            said += f" Reference: {_short(report.reference, 60)}"
        canvas.drawString(MARGIN, 10 * mm, said)
        model = report.prediction.model
        said = f"Model {_short(model['version'], 60)}, SHA-256 {_short(model['sha256'], 64)}"
        canvas.drawString(MARGIN, 6.5 * mm, said)
        canvas.translate(A4[0] - MARGIN - 5 * mm, 10 * mm)
        canvas.drawRightString(0, 0, f"Page {self.page} of ")
        canvas.doForm(_PAGES)
        canvas.restoreState()


def _short(text: str, most: int) -> str:
    text = plain(text)
    return text if len(text) <= most else f"{text[: most - 1]}\u2026"
